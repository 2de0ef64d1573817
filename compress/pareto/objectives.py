"""What is compared: one row's readings on one target, each with its uncertainty.

Readings are compared as *costs*: smaller is better, and times and sizes are on a log2 scale, where
one unit is a factor of two. Knows records; knows nothing of fronts, figures or advice.

Where the record holds paired information (the speedup, the samples that flipped), a reading also
carries its difference to the baseline row, whose interval is much narrower than what two separate
intervals give, because the noise that both rows share has canceled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from compress.metrics import allowance
from compress.record import Accuracy, Measurement, Record, Speedup

__all__ = [
    "OBJECTIVES",
    "Difference",
    "Objective",
    "Outcome",
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

Outcome = Literal["better", "worse", "equivalent", "unresolved"]

#: Everything that can be an objective. Peak memory has no interval in a record.
OBJECTIVES = ("accuracy", "latency_p50_s", "artifact_bytes", "model_peak_bytes")

# How much worse still counts as "no worse", where the intervals leave it open; of a score, see
# :func:`~compress.metrics.allowance`.
_LATENCY_MARGIN = math.log2(1.05)
# Two memory runs of one model within 2 % count as agreeing, so no smaller difference is shown.
_MEMORY_RESOLUTION = math.log2(1.02)


@dataclass(frozen=True)
class Difference:
    """An estimate with its 95 % interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Objective:
    """One thing to be good at.

    ``margin`` and ``resolution`` are in cost units: a difference within the margin is none that
    matters; one below the resolution cannot be told from zero, whatever its interval.
    ``uncertain`` tells measured objectives from exact ones.
    """

    name: str
    logarithmic: bool
    higher_is_better: bool
    margin: float
    resolution: float = 0.0
    uncertain: bool = True

    @property
    def scale(self) -> str:
        """``log2`` or ``linear``, as stored beside a hypervolume."""
        return "log2" if self.logarithmic else "linear"

    def cost(self, value: float) -> float:
        """``value`` as a cost; a time or size of nothing counts as one nanosecond or byte."""
        if self.logarithmic:
            return math.log2(max(value, 1e-9 if self.name.endswith("_s") else 1.0))
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
    cost: Difference
    paired: Difference | None = None
    resolution: float = 0.0
    timed: Difference | None = None


def objectives(record: Record, target: str, names: Sequence[str] = OBJECTIVES) -> list[Objective]:
    """The named objectives, with margins that fit this record's metric and baseline."""
    known = {
        "accuracy": Objective(
            "accuracy", False, record.task.higher_is_better, _score_margin(record, target)
        ),
        "latency_p50_s": Objective("latency_p50_s", True, False, _LATENCY_MARGIN),
        "artifact_bytes": Objective("artifact_bytes", True, False, 0.0, uncertain=False),
        "model_peak_bytes": Objective(
            "model_peak_bytes", True, False, _MEMORY_RESOLUTION, _MEMORY_RESOLUTION
        ),
    }
    return [known[name] for name in names]


def _score_margin(record: Record, target: str) -> float:
    for row in record.rows:
        found = row.on(target) if row.index == record.baseline else None
        if found is not None and found.accuracy is not None:
            return allowance(record.task.metric, found.accuracy.value)
    return 0.0


def readings(record: Record, target: str) -> dict[int, dict[str, Reading]]:
    """Every row's finite readings on ``target``, by row index and objective, in row order."""
    kinds = objectives(record, target)
    table = {
        row.index: {
            kind.name: reading
            for kind in kinds
            if (reading := _read(kind, found, row.index == record.baseline)) is not None
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
        cost = Difference(start + gap.value, start + gap.lo, start + gap.hi)
        found["latency_p50_s"] = replace(
            mine,
            value=_seconds(cost.value),
            ci95=(_seconds(cost.lo), _seconds(cost.hi)),
            cost=cost,
            timed=Difference(mine.value, *mine.ci95),
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


def _read(kind: Objective, found: Measurement, is_baseline: bool) -> Reading | None:
    readers: dict[str, Callable[[Objective, Measurement, bool], Reading | None]] = {
        "accuracy": _read_accuracy,
        "latency_p50_s": _read_latency,
        "artifact_bytes": lambda kind, found, _: _exact(kind, found.artifact.bytes),
        "model_peak_bytes": lambda kind, found, _: (
            None if found.memory is None else _exact(kind, found.memory.model_peak_bytes)
        ),
    }
    reading = readers[kind.name](kind, found, is_baseline)
    return reading if reading is not None and math.isfinite(reading.value) else None


def _read_accuracy(kind: Objective, found: Measurement, is_baseline: bool) -> Reading | None:
    accuracy = found.accuracy
    if accuracy is None:
        return None
    paired = Difference(0.0, 0.0, 0.0) if is_baseline else _paired_accuracy(kind, accuracy)
    return Reading(
        accuracy.value, accuracy.ci95, _costs(kind, accuracy.value, accuracy.ci95), paired
    )


def _read_latency(kind: Objective, found: Measurement, is_baseline: bool) -> Reading | None:
    latency, speedup = found.latency, found.speedup
    if latency is None:
        return None
    paired = Difference(0.0, 0.0, 0.0) if is_baseline else _paired_latency(speedup)
    floor = (speedup.noise_floor if speedup is not None else None) or 0.0
    costs = _costs(kind, latency.p50_s, latency.ci95_p50_s)
    return Reading(latency.p50_s, latency.ci95_p50_s, costs, paired, math.log2(1.0 + floor))


def _exact(kind: Objective, value: float) -> Reading:
    cost = kind.cost(value)
    return Reading(value, (value, value), Difference(cost, cost, cost))


def _costs(kind: Objective, value: float, ci95: tuple[float, float]) -> Difference:
    ends = sorted((kind.cost(ci95[0]), kind.cost(ci95[1])))
    return Difference(kind.cost(value), ends[0], ends[1])


def _paired_latency(speedup: Speedup | None) -> Difference | None:
    if speedup is None or min(speedup.value, *speedup.ci95) <= 0:
        return None
    lo, hi = speedup.ci95
    return Difference(-math.log2(speedup.value), -math.log2(hi), -math.log2(lo))


def _paired_accuracy(kind: Objective, accuracy: Accuracy) -> Difference | None:
    versus = accuracy.versus_baseline or {}
    if not {"delta", "delta_ci_lo", "delta_ci_hi"} <= versus.keys():
        return None
    change = Difference(versus["delta"], versus["delta_ci_lo"], versus["delta_ci_hi"])
    if kind.higher_is_better:
        return Difference(-change.value, -change.hi, -change.lo)
    return change


def difference(a: Reading, b: Reading) -> Difference:
    """Cost of ``a`` less that of ``b``; paired through the baseline where both are.

    The interval is that of a difference of independent estimates (half-widths in quadrature). Two
    rows share test samples and a baseline, so their noise is correlated and the true interval is
    no wider.
    """
    left, right = _sides(a, b)
    value = left.value - right.value
    down = math.hypot(left.value - left.lo, right.hi - right.value)
    up = math.hypot(left.hi - left.value, right.value - right.lo)
    return Difference(value, value - down, value + up)


def _sides(a: Reading, b: Reading) -> tuple[Difference, Difference]:
    return (a.paired, b.paired) if a.paired and b.paired else (a.cost, b.cost)


def compare(objective: Objective, a: Reading, b: Reading) -> Outcome:
    """Whether ``a`` is shown to be better than ``b``, worse, or equal within the margin.

    Better and worse need intervals that do not overlap, which is stricter than a difference whose
    interval excludes zero: of many pairs in one record some would do that by chance.
    """
    left, right = _sides(a, b)
    resolution = max(objective.resolution, a.resolution, b.resolution)
    if left.hi < right.lo and left.value < right.value - resolution:
        return "better"
    if left.lo > right.hi and left.value > right.value + resolution:
        return "worse"
    gap, margin = difference(a, b), max(objective.margin, resolution)
    return "equivalent" if -margin <= gap.lo and gap.hi <= margin else "unresolved"


def no_worse(objective: Objective, a: Reading, b: Reading) -> bool:
    """Whether ``a`` is shown to be worse than ``b`` by no more than the margin, if at all."""
    outcome = compare(objective, a, b)
    margin = max(objective.margin, objective.resolution)
    return outcome == "better" or (outcome != "worse" and difference(a, b).hi <= margin)


def pairs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Every two of ``rows``, the earlier first."""
    return ((a, b) for position, a in enumerate(rows) for b in rows[position + 1 :])
