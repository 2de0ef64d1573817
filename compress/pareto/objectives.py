"""What is compared: one row's readings on one target, each with its uncertainty.

Readings are compared as *costs*: smaller is better, and times and sizes are on a log2 scale, where
one unit is a factor of two. Knows records; knows nothing of fronts, figures or advice.

Where the record holds paired information (the speedup, the samples that flipped), a reading also
carries its difference to the baseline row, whose interval is much narrower than what two separate
intervals give, because the noise that both rows share has canceled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from compress.measure.quantities import QUANTITIES, quantities_of
from compress.measure.quantity import Estimate, Quantity
from compress.metrics import allowance
from compress.record import Measurement, Record, Row

__all__ = [
    "OBJECTIVES",
    "ComparisonOutcome",
    "Objective",
    "Reading",
    "compare",
    "contenders",
    "difference",
    "no_worse",
    "objectives",
    "pairs",
    "readings",
    "unpaired",
]

ComparisonOutcome = Literal["better", "worse", "equivalent", "unresolved"]

#: Everything that can be an objective: the metric, and what is declared to be one.
OBJECTIVES = ("accuracy", *(quantity.name for quantity in QUANTITIES if quantity.objective))


@dataclass(frozen=True)
class Objective:
    """One thing to be good at.

    ``margin`` and ``resolution`` are in cost units: a difference within the margin is none that
    matters; one whose interval is not beyond the resolution cannot be told from zero.
    ``uncertain`` tells measured objectives from exact ones. On a log scale nothing counts as less
    than ``least``.
    """

    name: str
    logarithmic: bool
    higher_is_better: bool
    margin: float
    resolution: float = 0.0
    uncertain: bool = True
    least: float = 1.0

    @property
    def scale(self) -> str:
        """``log2`` or ``linear``, as stored beside a hypervolume."""
        return "log2" if self.logarithmic else "linear"

    def cost(self, value: float) -> float:
        """``value`` as a cost; a time or size of nothing counts as one nanosecond or byte."""
        if self.logarithmic:
            return math.log2(max(value, self.least))
        return -value if self.higher_is_better else value

    def natural(self, cost: float) -> float:
        """The value that has this cost."""
        if self.logarithmic:
            return float(2.0**cost)
        return -cost if self.higher_is_better else cost


@dataclass(frozen=True)
class Reading:
    """One value in its own unit, and as a cost.

    ``paired`` is the difference in cost to the baseline row on the same rounds or samples, and a
    latency that has one is the baseline's and that difference, in ``value`` and ``cost``: rows are
    timed in sessions of their own, each beside the baseline, and the machine drifts from session to
    session. That is the latency of tables, figures and budgets; ``timed`` is what the row's own
    session gave, in seconds. ``resolution`` is the noise floor of this reading.
    """

    value: float
    ci95: tuple[float, float]
    cost: Estimate
    paired: Estimate | None = None
    resolution: float = 0.0
    timed: Estimate | None = None


def objectives(record: Record, target: str, names: Sequence[str] = OBJECTIVES) -> list[Objective]:
    """The named objectives, with margins that fit this record's metric and baseline."""
    known = {quantity.name: quantity for quantity in quantities_of(record.task)}
    return [_objective(known[name], record, target) for name in names]


def _objective(quantity: Quantity, record: Record, target: str) -> Objective:
    margin = math.log2(1 + quantity.margin)
    return Objective(
        name=quantity.name,
        logarithmic=quantity.logarithmic,
        higher_is_better=quantity.higher_is_better,
        margin=margin if quantity.logarithmic else _score_margin(record, target),
        resolution=math.log2(1 + quantity.resolution),
        uncertain=not quantity.exact,
        least=quantity.unit.least,
    )


def _score_margin(record: Record, target: str) -> float:
    for row in record.rows:
        found = row.on(target) if row.index == record.baseline else None
        if found is not None and found.accuracy is not None:
            return allowance(record.task.metric, found.accuracy.value)
    return 0.0


def readings(record: Record, target: str) -> dict[int, dict[str, Reading]]:
    """Every row's finite readings on ``target``, by row index and objective, in row order."""
    kinds = [
        (_objective(quantity, record, target), quantity)
        for quantity in quantities_of(record.task)
        if quantity.objective
    ]
    table = {
        row.index: {
            kind.name: reading
            for kind, quantity in kinds
            if (reading := _read(kind, quantity, row, found, record.baseline)) is not None
        }
        for row in record.rows
        if (found := row.on(target)) is not None
    }
    _align(table, table.get(record.baseline, {}).get("latency_p50_s"))
    return table


def _align(table: Mapping[int, dict[str, Reading]], baseline: Reading | None) -> None:
    """Put every latency that was paired with the baseline beside the baseline's own."""
    for found in table.values():
        mine = found.get("latency_p50_s")
        if baseline is None or mine is None or mine is baseline or mine.paired is None:
            continue
        gap, start = mine.paired, baseline.cost.value
        cost = Estimate(start + gap.value, start + gap.lo, start + gap.hi)
        found["latency_p50_s"] = replace(
            mine,
            value=_seconds(cost.value),
            ci95=(_seconds(cost.lo), _seconds(cost.hi)),
            cost=cost,
            timed=Estimate(mine.value, *mine.ci95),
        )


def _seconds(cost: float) -> float:
    # To 12 digits, so that a time which went through its logarithm rounds as it did before.
    return float(f"{2.0**cost:.12g}")


def unpaired(kind: Objective, reading: Reading) -> Reading:
    """``reading`` by its own interval alone, as rows of different runs must be compared."""
    value, ci95 = reading.value, reading.ci95
    if reading.timed is not None:
        value, ci95 = reading.timed.value, (reading.timed.lo, reading.timed.hi)
    cost = _costs(kind, value, ci95)
    return replace(reading, value=value, ci95=ci95, cost=cost, paired=None, timed=None)


def contenders(record: Record, target: str) -> dict[int, dict[str, Reading]]:
    """The readings of the rows that could be shipped: the baseline and those after it.

    Rows before the baseline are the model as it came in, untrained; they set no scale.
    """
    table = readings(record, target)
    trained = {row: found for row, found in table.items() if row >= record.baseline}
    return trained or table


def _read(
    kind: Objective, quantity: Quantity, row: Row, found: Measurement, baseline: int
) -> Reading | None:
    read = quantity.read(row, found)
    if read is None or not math.isfinite(read.value):
        return None
    paired = None
    if quantity.paired is not None:
        is_baseline = row.index == baseline
        paired = Estimate(0.0, 0.0, 0.0) if is_baseline else _paired(kind, quantity.paired(found))
    floor = quantity.noise(found) if quantity.noise is not None else 0.0
    ends = (read.lo, read.hi)
    return Reading(read.value, ends, _costs(kind, read.value, ends), paired, math.log2(1.0 + floor))


def _costs(kind: Objective, value: float, ci95: tuple[float, float]) -> Estimate:
    ends = sorted((kind.cost(ci95[0]), kind.cost(ci95[1])))
    return Estimate(kind.cost(value), ends[0], ends[1])


def _paired(kind: Objective, found: Estimate | None) -> Estimate | None:
    """The difference in cost to the baseline, of a ratio to it or of a difference."""
    if found is None:
        return None
    if kind.logarithmic:
        if min(found.value, found.lo, found.hi) <= 0:
            return None
        return Estimate(-math.log2(found.value), -math.log2(found.hi), -math.log2(found.lo))
    if kind.higher_is_better:
        return Estimate(-found.value, -found.hi, -found.lo)
    return found


def difference(a: Reading, b: Reading) -> Estimate:
    """Cost of ``a`` less that of ``b``; paired through the baseline where both are.

    The interval is that of a difference of independent estimates (half-widths in quadrature). Two
    rows share test samples and a baseline, so their noise is correlated and the true interval is
    no wider.
    """
    left, right = _sides(a, b)
    value = left.value - right.value
    down = math.hypot(left.value - left.lo, right.hi - right.value)
    up = math.hypot(left.hi - left.value, right.value - right.lo)
    return Estimate(value, value - down, value + up)


def _sides(a: Reading, b: Reading) -> tuple[Estimate, Estimate]:
    return (a.paired, b.paired) if a.paired and b.paired else (a.cost, b.cost)


def compare(objective: Objective, a: Reading, b: Reading) -> ComparisonOutcome:
    """Whether ``a`` is shown to be better than ``b``, worse, or equal within the margin.

    Better and worse need intervals that do not overlap, which is stricter than a difference whose
    interval excludes zero: of many pairs in one record some would do that by chance.
    """
    left, right = _sides(a, b)
    beyond, floor = objective.resolution, max(a.resolution, b.resolution)
    gap, margin = difference(a, b), max(objective.margin, beyond, floor)
    if left.hi < right.lo and gap.hi < -beyond and gap.value < -floor:
        return "better"
    if left.lo > right.hi and gap.lo > beyond and gap.value > floor:
        return "worse"
    return "equivalent" if -margin <= gap.lo and gap.hi <= margin else "unresolved"


def no_worse(objective: Objective, a: Reading, b: Reading) -> bool:
    """Whether ``a`` is shown to be worse than ``b`` by no more than the margin, if at all."""
    outcome = compare(objective, a, b)
    margin = max(objective.margin, objective.resolution)
    return outcome == "better" or (outcome != "worse" and difference(a, b).hi <= margin)


def pairs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Every two of ``rows``, the earlier first."""
    return ((a, b) for position, a in enumerate(rows) for b in rows[position + 1 :])
