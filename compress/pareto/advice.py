"""Which row to ship, and why: the fastest that loses no more accuracy than is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.budget import Budget
from compress.errors import RecordError
from compress.formatting import (
    interval,
    plain,
    ratio_words,
    score_change,
    score_interval,
)
from compress.measure.quantities import QUANTITIES
from compress.measure.quantity import Quantity
from compress.metrics import allowance
from compress.pareto.effects import Change, change
from compress.pareto.front import FRONT_OBJECTIVES, Point, front
from compress.pareto.objectives import Objective, Reading, compare, contenders, objectives, readings
from compress.record import Record

__all__ = [
    "LIMITS",
    "Recommendation",
    "allowed_drop",
    "default_drop",
    "drop_of",
    "gains_words",
    "limit_of",
    "loss_words",
    "recommend",
    "unlimited_words",
]

# A drop of exactly what is allowed is allowed, whatever the last bit of the subtraction.
_LAST_BIT = 1e-12

Table = Mapping[int, Mapping[str, Reading]]


#: The quantities that a budget can limit, other than the metric.
LIMITS = tuple(quantity for quantity in QUANTITIES if quantity.limit is not None)


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


@dataclass(frozen=True)
class _Miss:
    sentence: str
    over: float


def recommend(record: Record, target: str) -> Recommendation:
    """The row that a user should ship to ``target``.

    Of the rows within the budget and within the allowed drop, less those that another of them
    beats: the fastest; where several are equally fast as far as can be told, the most accurate of
    these; where that is a tie too, the smallest. Where no row is within the budget, the one that
    misses the fewest limits, by the least.

    Raises:
        RecordError: nothing was measured on ``target``.
    """
    table = contenders(record, target)
    if not table:
        known = ", ".join(repr(name) for name in record.targets) or "none yet"
        raise RecordError(
            f"record {record.name!r}: nothing was measured on the target {target!r}; "
            f"targets with measurements: {known}."
        )
    misses = {row: _misses(record, table, row) for row in table}
    fit = [row for row in table if not misses[row]]
    if fit:
        chosen, why = _best(record, target, table, fit)
    else:
        chosen = min(table, key=lambda row: (len(misses[row]), sum(m.over for m in misses[row])))
        why = "no row meets the budget, and this one misses it by the least"
    return Recommendation(
        chosen,
        _reasons(record, target, table, chosen, why),
        meets_budget=bool(fit),
        missed=tuple(miss.sentence for miss in misses[chosen]),
    )


def allowed_drop(record: Record, target: str) -> float | None:
    """How much of the metric may be lost against the baseline; ``None`` where nothing limits it."""
    budget = record.budget
    if budget is None or budget.accuracy_drop is None or _start(record, target) is None:
        return default_drop(record, target)
    return budget.accuracy_drop


def default_drop(record: Record, target: str) -> float | None:
    """What may be lost where the budget does not say.

    ``None`` without the baseline's score, and where that is 0, of which no share can be taken.
    """
    start = _start(record, target)
    return None if start is None else allowance(record.task.metric, start) or None


def unlimited_words(record: Record, target: str) -> str:
    """What to know where no drop is limited unless a budget does it; empty where one is."""
    if _start(record, target) is None or default_drop(record, target) is not None:
        return ""
    metric = plain(record.task.metric, 40)
    return (
        f"No change of {metric} counted as too much, for 1 % of the baseline's 0 is nothing: a "
        f"budget's accuracy_drop, in the unit of {metric}, would limit it."
    )


def _start(record: Record, target: str) -> float | None:
    baseline = readings(record, target).get(record.baseline, {}).get("accuracy")
    return None if baseline is None else baseline.value


def drop_of(record: Record, table: Table, row: int) -> float | None:
    """How much of the metric ``row`` loses against the baseline, which may be less than nothing."""
    baseline = table.get(record.baseline, {}).get("accuracy")
    mine = table[row].get("accuracy")
    return None if baseline is None or mine is None else mine.cost.value - baseline.cost.value


def limit_of(budget: Budget, quantity: Quantity) -> float | None:
    """What a budget allows of a quantity, in the quantity's unit; ``None`` for no limit."""
    asked = getattr(budget, quantity.limit.field) if quantity.limit else None
    return asked * quantity.limit.unit if quantity.limit and asked is not None else None


def _misses(record: Record, table: Table, row: int) -> list[_Miss]:
    budget = record.budget or Budget()
    found = table[row]
    missed = []
    for quantity in LIMITS:
        allowed = limit_of(budget, quantity)
        if allowed is None:
            continue
        if quantity.name not in found:
            missed.append(_Miss(f"{quantity.title} was not measured", math.inf))
        elif (value := found[quantity.name].value) > allowed:
            shown, most = quantity.unit.shown(value), quantity.unit.shown(allowed)
            text = f"{quantity.title} {shown}, budget {most}"
            missed.append(_Miss(text, math.log2(value / allowed)))
    if budget.accuracy_drop is not None:
        missed += _missed_drop(record, drop_of(record, table, row), budget.accuracy_drop)
    return missed


def _missed_drop(record: Record, drop: float | None, allowed: float) -> list[_Miss]:
    metric = plain(record.task.metric, 40)
    if drop is None:
        return [_Miss(f"{metric} was not measured", math.inf)]
    if drop <= allowed + _LAST_BIT:
        return []
    change = (
        f"{loss_words(record, drop)} against the baseline, budget {loss_words(record, allowed)}"
    )
    return [_Miss(f"{metric} {change}", math.log2(drop / max(allowed, 1e-4)))]


def loss_words(record: Record, drop: float) -> str:
    """A loss as the change that it is: ``−1.00 pt`` of an accuracy."""
    return score_change(record.task.metric, 0.0 - drop if record.task.higher_is_better else drop)


def _best(record: Record, target: str, table: Table, fit: Sequence[int]) -> tuple[int, str]:
    """The row to choose among those within the budget, and why it is that one."""
    allowed = allowed_drop(record, target)
    drops = {row: drop for row in fit if (drop := drop_of(record, table, row)) is not None}
    scope = "within the budget" if record.budget else "measured"
    if allowed is None or not drops:
        return _fastest(record, target, table, fit, scope)
    within = [row for row, drop in drops.items() if drop <= allowed + _LAST_BIT]
    loss = f"{loss_words(record, allowed)} of the baseline"
    if not within:
        nearest = min(drops, key=lambda row: drops[row])
        return nearest, f"the most accurate row {scope}, though none of those is within {loss}"
    if record.budget is None:
        scope = f"within {loss}"
    elif record.budget.accuracy_drop is None:
        scope = f"{scope} and {loss}"
    return _fastest(record, target, table, within, scope)


def _fastest(
    record: Record, target: str, table: Table, pool: Sequence[int], scope: str
) -> tuple[int, str]:
    if len(pool) == 1:
        return pool[0], f"the only row {scope}"
    kinds = {kind.name: kind for kind in objectives(record, target, FRONT_OBJECTIVES)}
    left = _unbeaten(list(kinds.values()), table, pool)
    if len(left) == 1:
        return left[0], f"the only one of {len(pool)} rows {scope} that none of them beats"
    words = []
    for name, superlative in (("latency_p50_s", "fastest"), ("accuracy", "most accurate")):
        known = [row for row in left if name in table[row]]
        if known and len(left) > 1:
            left = _not_worse_than_best(kinds[name], table, known)
            words.append(superlative)
    if len(left) > 1:
        words.append("smallest")
    chosen = min(left, key=lambda row: (table[row]["artifact_bytes"].value, row))
    *ties, last = words
    tied = f" of those tied for {' and '.join(ties)}, among" if ties else " of"
    return chosen, f"the {last}{tied} {len(pool)} rows {scope}"


def _not_worse_than_best(kind: Objective, table: Table, rows: Sequence[int]) -> list[int]:
    best = min(rows, key=lambda row: table[row][kind.name].cost.value)
    top = table[best][kind.name]
    return [
        row for row in rows if row == best or compare(kind, table[row][kind.name], top) != "worse"
    ]


def _unbeaten(kinds: Sequence[Objective], table: Table, pool: Sequence[int]) -> list[int]:
    shared = [kind for kind in kinds if all(kind.name in table[row] for row in pool)]
    points = [Point(row, tuple(table[row][kind.name] for kind in shared)) for row in pool]
    return front(shared, points)


def _reasons(record: Record, target: str, table: Table, chosen: int, why: str) -> str:
    stage = next(row.stage for row in record.rows if row.index == chosen)
    sentences = [f"Ship row {chosen} ({plain(stage, 40)}): {why}."]
    if chosen != record.baseline and (gains := gains_words(record, target, table, chosen)):
        sentences.append(f"Against baseline row {record.baseline} it is {gains}.")
    if allowed_drop(record, target) is None and (words := unlimited_words(record, target)):
        sentences.append(words)
    return " ".join(sentences)


def gains_words(record: Record, target: str, table: Table, chosen: int) -> str:
    """What ``chosen`` gains and loses against the baseline; empty where nothing compares."""
    kinds = {kind.name: kind for kind in objectives(record, target)}
    baseline = table.get(record.baseline, {})
    changes = {
        name: found
        for name, reading in table[chosen].items()
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


def _speed_words(speed: Change) -> str:
    if speed.verdict not in ("better", "worse"):
        return "not shown to differ in speed"
    lo, hi = speed.ci95 if speed.value > 1 else (1 / speed.ci95[1], 1 / speed.ci95[0])
    return f"{ratio_words(speed.value, 'faster', 'slower')} {interval(lo, hi)}"


def _score_words(metric: str, gained: Change) -> str:
    change = f"{score_change(metric, gained.value)} {score_interval(metric, *gained.ci95)}"
    return f"and its {plain(metric, 40)} changes by {change}"
