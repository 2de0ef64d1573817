"""Which row of several runs wins under a budget: each run's own, and budgets that were asked for.

The rule is that of :mod:`compress.pareto.ship_rule`, over the rows of all runs of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.budget import Budget
from compress.formatting import sanitize
from compress.measure.quantities import quantities_of
from compress.pareto import (
    FRONT_OBJECTIVES,
    LIMITS,
    ShipRule,
    limit_of,
    loss_words,
)
from compress.record import Record
from compress.report.overlay import Group, OverlaidRow

__all__ = ["Winner", "budget_terms", "drawn_limits", "winners"]


@dataclass(frozen=True)
class Winner:
    """The row to ship under ``budget``; ``number`` is the place of ``entry`` in the group's rows.

    ``asked_by`` are the runs whose budget it is; none for one that was asked for, and for none.
    """

    budget: Budget | None
    asked_by: tuple[int, ...]
    number: int
    entry: OverlaidRow
    sentence: str
    meets_budget: bool


def winners(group: Group, asked: Sequence[Budget] = ()) -> list[Winner]:
    """The winner under every budget that was ``asked`` for, then under each of the runs' own.

    Where nobody has a budget it is the fastest within what may be lost where nothing is said. A
    drop counts from the most accurate baseline of all runs. Without a row to compare there is none.
    """
    entries = group.rows
    if not any(entry.is_baseline for entry in entries):
        return []
    own: dict[str, tuple[Budget, list[int]]] = {}
    for place, member in enumerate(group.members):
        budget = member.record.budget
        if budget is not None:
            own.setdefault(budget.model_dump_json(), (budget, []))[1].append(place)
    wanted: list[tuple[Budget | None, tuple[int, ...]]] = [(budget, ()) for budget in asked]
    wanted += [(budget, tuple(places)) for budget, places in own.values()]
    return [_winner(group, entries, *each) for each in wanted or [(None, ())]]


def _winner(
    group: Group, entries: Sequence[OverlaidRow], budget: Budget | None, asked_by: tuple[int, ...]
) -> Winner:
    rule, record = _rule(group, entries)
    limits = rule.resolved(budget or Budget())
    misses = {row: rule.misses(row, limits) for row in rule.table}
    fit = [row for row, missed in misses.items() if not missed]
    if fit:
        number, why = rule.best(fit, limited=budget is not None, drop=limits.accuracy_drop)
    else:
        penalties = {row: sum(miss.penalty for miss in found) for row, found in misses.items()}
        number, why = rule.nearest(penalties)
    entry = entries[number]
    row = f"row {entry.row.index} ({sanitize(entry.row.stage, 40)}) of {group.called(entry.places)}"
    if fit:
        said = f"{row} wins, {why}: {', '.join(_values(record, entry))}"
    else:
        missed = "; ".join(miss.sentence for miss in misses[number])
        said = f"no row keeps it; {row} misses it by the least: {missed}"
    named = _budget_name(group, None if budget is None else limits, asked_by, record)
    return Winner(budget, asked_by, number, entry, f"{named}, {said}.", bool(fit))


def _rule(group: Group, entries: Sequence[OverlaidRow]) -> tuple[ShipRule, Record]:
    """The rule over all rows, and the record of the most accurate baseline."""
    best = _best_baseline(entries)
    member = group.members[entries[best].places[0]]
    table = {number: entry.readings for number, entry in enumerate(entries)}
    return ShipRule(member.record, member.target, table=table, baseline=best), member.record


def _best_baseline(entries: Sequence[OverlaidRow]) -> int:
    """The number of the most accurate baseline."""
    baselines = [number for number, entry in enumerate(entries) if entry.is_baseline]
    return min(baselines, key=lambda number: entries[number].readings["accuracy"].cost.value)


def _budget_name(
    group: Group, budget: Budget | None, asked_by: Sequence[int], record: Record
) -> str:
    if budget is None:
        return "Without a budget"
    whose = f"of {group.called(asked_by)}" if asked_by else "that was asked for"
    terms = ", ".join(budget_terms(budget, record)) or "no limit"
    baseline = "" if budget.accuracy_drop is None else f" of {_baseline_words(group)}"
    return f"Under the budget {whose} ({terms}{baseline})"


def _baseline_words(group: Group) -> str:
    alone = group.shares_baseline or len(group.members) == 1
    return "the baseline" if alone else "the most accurate baseline"


def budget_terms(budget: Budget, record: Record) -> list[str]:
    """What a budget allows, in words; the drop of the metric last."""
    asked = [(quantity, limit_of(budget, quantity)) for quantity in LIMITS]
    terms = [f"{q.title} at most {q.unit.shown(most)}" for q, most in asked if most is not None]
    if budget.accuracy_drop is not None:
        metric, lost = sanitize(record.task.metric, 40), loss_words(record, budget.accuracy_drop)
        terms.append(f"{metric} within {lost}")
    return terms


def _values(record: Record, entry: OverlaidRow) -> list[str]:
    known = {quantity.name: quantity for quantity in quantities_of(record.task)}
    return [
        f"{known[name].title} {known[name].unit.shown(entry.readings[name].value)}"
        for name in FRONT_OBJECTIVES
    ]


def drawn_limits(group: Group, found: Sequence[Winner]) -> dict[str, float]:
    """What the one budget that there is allows, by quantity; nothing where there are several."""
    budget = found[0].budget if len(found) == 1 else None
    if budget is None:
        return {}
    limits = {quantity.name: limit_of(budget, quantity) for quantity in LIMITS}
    if budget.accuracy_drop is not None:
        entries = group.rows
        baseline = entries[_best_baseline(entries)].readings["accuracy"].value
        upwards = group.members[0].record.task.higher_is_better
        drop = budget.resolved(baseline).accuracy_drop or 0.0
        limits["accuracy"] = baseline - (drop if upwards else -drop)
    return {name: limit for name, limit in limits.items() if limit is not None}
