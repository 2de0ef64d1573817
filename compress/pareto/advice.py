"""Which row to ship, and why, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.budget import Budget
from compress.formatting import interval, ratio_words, sanitize, score_change, score_interval
from compress.pareto.effects import MeasuredChange, change
from compress.pareto.objectives import objectives
from compress.pareto.ship_rule import RowAndReason, ShipRule, baseline_score, default_drop
from compress.record import Record

__all__ = ["Recommendation", "ShipAnswers", "recommend", "ship_answers", "unlimited_words"]


@dataclass(frozen=True)
class Recommendation:
    """The row to ship. ``reasons`` is prose; ``missed`` says of each missed budget by how much.

    Without a budget nothing can be missed and ``meets_budget`` is true. No other sentence of a
    report says which row to ship.
    """

    index: int
    reasons: str
    meets_budget: bool
    missed: tuple[str, ...] = ()


def recommend(record: Record, target: str) -> Recommendation:
    """The row that a user should ship to ``target``.

    Of the rows within the budget and within the allowed drop, less those that another of them
    beats: the fastest; where several are equally fast as far as can be told, the most accurate of
    these; where that is a tie too, the smallest. Where no row is within the budget, the one that
    misses the fewest limits, by the least.

    Raises:
        RecordError: nothing was measured on ``target``.
    """
    rule = ShipRule(record, target)
    budget = rule.resolved(record.budget or Budget())
    misses = {row: rule.misses(row, budget) for row in rule.table}
    fit = [row for row, missed in misses.items() if not missed]
    drop = budget.accuracy_drop
    if fit:
        chosen, why = rule.best(fit, limited=record.budget is not None, drop=drop)
    else:
        penalties = {row: sum(miss.penalty for miss in found) for row, found in misses.items()}
        chosen, why = rule.nearest(penalties)
    before, after = _around(record, target, rule, chosen, drop_asked=drop is not None)
    return Recommendation(
        chosen,
        f"{before}{why}{after}",
        meets_budget=bool(fit),
        missed=tuple(miss.sentence for miss in misses[chosen]),
    )


def _around(
    record: Record, target: str, rule: ShipRule, chosen: int, *, drop_asked: bool
) -> tuple[str, str]:
    """What is said before and after the reason for choosing a row."""
    stage = next(row.stage for row in record.rows if row.index == chosen)
    after = "."
    if chosen != record.baseline and (gains := _gains_words(record, target, rule, chosen)):
        after += f" Against baseline row {record.baseline} it is {gains}."
    if not drop_asked and (words := unlimited_words(record, target)):
        after += f" {words}"
    return f"Ship row {chosen} ({sanitize(stage, 40)}): ", after


def unlimited_words(record: Record, target: str) -> str:
    """What to know where no drop is limited unless a budget does it; empty where one is."""
    if baseline_score(record, target) is None or default_drop(record, target) is not None:
        return ""
    metric = sanitize(record.task.metric, 40)
    return (
        f"No change of {metric} counted as too much, for 1 % of the baseline's 0 is nothing: a "
        f"budget's accuracy_drop, in the unit of {metric}, would limit it."
    )


def _gains_words(record: Record, target: str, rule: ShipRule, chosen: int) -> str:
    """What ``chosen`` gains and loses against the baseline; empty where nothing compares."""
    kinds = {kind.name: kind for kind in objectives(record, target)}
    baseline = rule.table.get(record.baseline, {})
    changes = {
        name: found
        for name, reading in rule.table[chosen].items()
        if (found := change(kinds[name], baseline.get(name), reading)) is not None
    }
    parts = []
    if "latency_p50_s" in changes:
        parts.append(_speed_words(changes["latency_p50_s"]))
    if "artifact_bytes" in changes and changes["artifact_bytes"].value != 1:
        parts.append(ratio_words(changes["artifact_bytes"].value, "smaller", "larger"))
    elif not parts:
        parts.append("as large")
    if "accuracy" in changes:
        parts.append(_score_words(record.task.metric, changes["accuracy"]))
    return ", ".join(parts)


def _speed_words(speed: MeasuredChange) -> str:
    if speed.verdict not in ("better", "worse"):
        return "not shown to differ in speed"
    lo, hi = speed.ci95 if speed.value > 1 else (1 / speed.ci95[1], 1 / speed.ci95[0])
    return f"{ratio_words(speed.value, 'faster', 'slower')} {interval(lo, hi)}"


def _score_words(metric: str, gained: MeasuredChange) -> str:
    change = f"{score_change(metric, gained.value)} {score_interval(metric, *gained.ci95)}"
    return f"and its {sanitize(metric, 40)} changes by {change}"


# -- for every budget -------------------------------------------------------------------------

#: Which of a rule's rows keep a limit, in order.
Kept = tuple[bool, ...]


@dataclass(frozen=True)
class ShipAnswers:
    """What :func:`recommend` says for every budget that some limits can make up, as data.

    A row is a place in ``rows``. ``chosen`` has, by :meth:`key`, the row and the place of its
    reason in ``reasons``; the whole sentence is ``before[row] + reason + after[drop asked][row]``.
    Where no row keeps the budget the row with the least penalties is chosen, for ``nearest``.
    """

    rows: tuple[int, ...]
    chosen: dict[str, tuple[int, int]]
    reasons: tuple[str, ...]
    nearest: str
    before: tuple[str, ...]
    after: tuple[tuple[str, ...], tuple[str, ...]]

    @staticmethod
    def key(kept: Kept, *, limited: bool, drop_asked: bool) -> str:
        """The key of what is left by limits: a digit for each row, and what was limited at all."""
        asked = "d" if drop_asked else "l" if limited else ""
        return "".join("1" if each else "0" for each in kept) + asked


def ship_answers(
    record: Record, target: str, limits: Sequence[set[Kept]], drops: set[Kept], most: int
) -> ShipAnswers | None:
    """The answers for every choice of limits; ``None`` where there would be more than ``most``.

    Args:
        record: the run.
        target: where rows are shipped to.
        limits: for each limit of the budget other than the drop, what its steps may leave.
        drops: what the steps of an allowed drop may leave.
        most: bounds the time and the size of the page.

    Raises:
        RecordError: nothing was measured on ``target``.
    """
    rule = ShipRule(record, target)
    rows = tuple(rule.table)
    left = {(True,) * len(rows)}
    for steps in limits:
        left |= {_both(kept, step) for kept in left for step in steps}
        if len(left) > most:
            return None
    asked = {_both(kept, step) for kept in left for step in drops}
    if len(left) + len(asked) > most:
        return None
    verdicts = {}
    for kept, drop_asked in [*((each, False) for each in left), *((each, True) for each in asked)]:
        fit = [row for row, keeps in zip(rows, kept, strict=True) if keeps]
        if fit:
            # What an asked drop leaves loses no more than that, whatever it is.
            drop = float("inf") if drop_asked else None
            key = ShipAnswers.key(kept, limited=True, drop_asked=drop_asked)
            verdicts[key] = rule.best(fit, limited=True, drop=drop)
    free = ShipAnswers.key((True,) * len(rows), limited=False, drop_asked=False)
    verdicts[free] = rule.best(rows, limited=False, drop=None)
    return _ship_answers(record, target, rule, verdicts)


def _both(a: Kept, b: Kept) -> Kept:
    return tuple(x and y for x, y in zip(a, b, strict=True))


def _ship_answers(
    record: Record, target: str, rule: ShipRule, verdicts: dict[str, RowAndReason]
) -> ShipAnswers:
    rows = tuple(rule.table)
    reasons = list(dict.fromkeys(why for _, why in verdicts.values()))
    around = [
        [_around(record, target, rule, row, drop_asked=asked) for row in rows]
        for asked in (False, True)
    ]
    return ShipAnswers(
        rows=rows,
        chosen={key: (rows.index(row), reasons.index(why)) for key, (row, why) in verdicts.items()},
        reasons=tuple(reasons),
        nearest=rule.nearest(dict.fromkeys(rows, 0.0))[1],
        before=tuple(before for before, _ in around[0]),
        after=(tuple(after for _, after in around[0]), tuple(after for _, after in around[1])),
    )
