"""What each stage did: every row against the row before it and against the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from compress.formatting import interval, sanitize, size, times
from compress.pareto.objectives import (
    ComparisonOutcome,
    Objective,
    Reading,
    compare,
    difference,
    objectives,
    readings,
)
from compress.record import Record, Row

__all__ = [
    "MeasuredChange",
    "ObjectiveEffect",
    "StageEffects",
    "change",
    "int8_slowdowns",
    "stage_effects",
]


@dataclass(frozen=True)
class MeasuredChange:
    """From one row to another, with its 95 % interval.

    ``is_ratio``: ``value`` is the older reading over the newer (2 is twice as fast or half the
    size); otherwise it is the newer less the older, in the metric's own direction and unit.
    """

    value: float
    ci95: tuple[float, float]
    is_ratio: bool
    verdict: ComparisonOutcome


@dataclass(frozen=True)
class ObjectiveEffect:
    """One objective of one row. A change is ``None`` where one of its two sides is missing."""

    reading: Reading
    from_previous: MeasuredChange | None
    from_baseline: MeasuredChange | None


@dataclass(frozen=True)
class StageEffects:
    """One row's effects by objective; objectives that were not measured are absent."""

    row: int
    stage: str
    kind: str
    effects: dict[str, ObjectiveEffect]


def stage_effects(record: Record, target: str) -> list[StageEffects]:
    """Every row measured on ``target`` against the measured row before it and the baseline."""
    table = readings(record, target)
    kinds = objectives(record, target)
    baseline = table.get(record.baseline, {})
    previous: dict[str, Reading] = {}
    found = []
    for row in record.rows:
        if row.index not in table:
            continue
        mine = table[row.index]
        effects = {
            kind.name: ObjectiveEffect(
                mine[kind.name],
                change(kind, previous.get(kind.name), mine[kind.name]),
                change(kind, baseline.get(kind.name), mine[kind.name]),
            )
            for kind in kinds
            if kind.name in mine
        }
        found.append(StageEffects(row.index, row.stage, row.kind, effects))
        previous = mine
    return found


def change(kind: Objective, older: Reading | None, newer: Reading) -> MeasuredChange | None:
    """The change from one reading to another; ``None`` where there is no older one."""
    if older is None:
        return None
    if older is newer:
        neutral = 1.0 if kind.logarithmic else 0.0
        return MeasuredChange(neutral, (neutral, neutral), kind.logarithmic, "equivalent")
    gap = difference(newer, older)
    if kind.logarithmic:
        value, lo, hi = (_ratio(cost) for cost in (gap.value, gap.hi, gap.lo))
    else:
        sign = -1.0 if kind.higher_is_better else 1.0
        value = sign * gap.value
        lo, hi = sorted((sign * gap.lo, sign * gap.hi))
    return MeasuredChange(value, (lo, hi), kind.logarithmic, compare(kind, newer, older))


def _ratio(cost: float) -> float:
    # To 12 digits, so that a ratio which went through its logarithm rounds as it did before.
    return float(f"{2.0**-cost:.12g}")


def int8_slowdowns(record: Record, target: str) -> dict[int, str]:
    """A sentence for each row that quantizing made slower, by row index.

    A finding and no advice: which row to ship is :func:`~compress.pareto.recommend`'s to say.
    A row was quantized where the row that it was made from computes a smaller share of its
    multiply-accumulates in integers. The two are compared through both rows' speedups over the
    baseline; only a difference beyond the intervals is called slower.
    """
    table = readings(record, target)
    kinds = {kind.name: kind for kind in objectives(record, target)}
    sentences = {}
    for row in record.rows:
        parent = parent_of(record, row)
        if parent is None or not _quantizes(target, parent, row):
            continue
        old, new = table[parent.index], table[row.index]
        if "latency_p50_s" not in old or "latency_p50_s" not in new:
            continue
        slower = change(kinds["latency_p50_s"], old["latency_p50_s"], new["latency_p50_s"])
        if slower is not None and slower.verdict == "worse":
            sizes = old["artifact_bytes"].value, new["artifact_bytes"].value
            sentences[row.index] = _slower_sentence(target, parent, row, slower, sizes)
    return sentences


def parent_of(record: Record, row: Row) -> Row | None:
    """The row that ``row`` was made from: by fingerprint, else the one before it."""
    earlier = [other for other in record.rows if other.index < row.index]
    named = [other for other in earlier if other.fingerprint == row.parent] or earlier
    return named[-1] if named else None


def _quantizes(target: str, parent: Row, row: Row) -> bool:
    before, after = parent.on(target), row.on(target)
    if before is None or after is None:
        return False
    return after.artifact.int8_mac_fraction > before.artifact.int8_mac_fraction and (
        row.kind == "quantize" or before.artifact.int8_mac_fraction == 0
    )


def _slower_sentence(
    target: str, parent: Row, row: Row, speedup: MeasuredChange, sizes: tuple[float, float]
) -> str:
    found = parent.on(target)
    was_float = found is not None and found.artifact.int8_mac_fraction == 0
    low, high = speedup.ci95
    text = (
        f"int8 row {row.index} ({sanitize(row.stage, 40)}) is {times(1 / speedup.value)} "
        f"{interval(1 / high, 1 / low)} slower here than {'fp32 ' if was_float else ''}"
        f"row {parent.index} ({sanitize(parent.stage, 40)}) that it was made from"
    )
    before, after = sizes
    both = f"({size(after)} against {size(before)})"
    if after >= before:
        return f"{text}, and no smaller {both}."
    return f"{text}; its file is {times(before / after)} smaller {both}."
