"""What the Pareto figure shows, as plain data: everything but the drawing.

Knows records and their fronts; imports no drawing library.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.formatting import duration, sanitize, score, size
from compress.measure.quantity import Estimate
from compress.pareto import (
    LIMITS,
    Reading,
    allowed_drop,
    contenders,
    front_facts,
    front_probabilities_on,
    limit_of,
    readings,
    recommend,
)
from compress.record import Record, Row
from compress.report.provenance import caption

__all__ = [
    "ParetoInfo",
    "PlotPoint",
    "attainment",
    "pareto_info",
    "plot_point",
    "scale_floor",
]

_LABEL = 24


@dataclass(frozen=True)
class PlotPoint:
    """One row in the plane of latency and metric; intervals are of each axis by itself.

    Of rows of one run a latency is the baseline's over the row's paired speedup, with the interval
    of the latter: that is how they compare, whatever the machine did between their sessions.

    ``ties`` are labels of the points that the data cannot tell from this one.
    ``front_probability`` is the share of a joint bootstrap in which no other point dominates it in
    the front's objectives.
    ``values`` has all that was measured of the row, by objective.
    ``off_scale`` points are so much worse than the rest that they are drawn at the edge.
    """

    label: str
    row: int
    kind: str
    latency_s: float
    latency_ci95_s: tuple[float, float]
    score: float
    score_ci95: tuple[float, float]
    bytes: int
    values: Mapping[str, Estimate]
    front_probability: float
    on_front: bool = False
    is_baseline: bool = False
    is_recommended: bool = False
    ties: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    off_scale: bool = False
    run: int = 0


@dataclass(frozen=True)
class ParetoInfo:
    """The whole figure. ``step_line`` is the attained front: corners from fastest to most accurate.

    ``latency_limit_s`` and ``score_limit`` are the budget; ``baseline_s`` anchors the axis of
    speedups. ``runs`` names the records where several are overlaid. ``missing`` says which rows
    could not be drawn, and why.
    """

    title: str
    subtitle: str
    caption: str
    metric: str
    higher_is_better: bool
    points: tuple[PlotPoint, ...]
    step_line: tuple[tuple[float, float], ...]
    latency_limit_s: float | None = None
    score_limit: float | None = None
    baseline_s: float | None = None
    runs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def legend(self) -> str:
        """How to read the figure."""
        latencies = (
            "Latencies are as timed, and rows of different runs are compared by those alone."
            if self.runs
            else "Latencies are the baseline's over each row's paired speedup, which cancels what "
            "the machine did between rows, here and in the tables."
        )
        return (
            "Up and to the left is better. Filled marks are rows that no other row is shown to "
            "beat in score, latency and size together; the steps are the score attained within "
            "each latency. A mark's area grows with the artifact's size; bars are 95 % intervals. "
            f"{latencies}"
        )

    @property
    def alt(self) -> str:
        """The figure in words, with its numbers."""
        words = [
            f"{p.label}: {score(self.metric, p.score)} at {duration(p.latency_s)}, {size(p.bytes)}"
            f"{', on the front' if p.on_front else ''}{', baseline' if p.is_baseline else ''}"
            for p in self.points
        ]
        return f"{self.title}. " + "; ".join([*words, *self.missing]) + "."


def pareto_info(record: Record, target: str) -> ParetoInfo:
    """The metric against latency of every row on ``target``, with front, ties and budget."""
    table = contenders(record, target)
    facts, advice = front_facts(record, target), recommend(record, target)
    rows = [row for row in record.rows if row.index in table]
    drawn = [row for row in rows if {"accuracy", "latency_p50_s"} <= table[row.index].keys()]
    ties = _ties_by_row(facts.ties)
    names = {row.index: _label(row) for row in rows}
    sure = front_probabilities_on(record, target)
    points = [
        replace(
            plot_point(row, names[row.index], table[row.index], sure.get(row.index, 0.0)),
            on_front=row.index in facts.front,
            is_baseline=row.index == record.baseline,
            is_recommended=row.index == advice.index,
            ties=tuple(names[other] for other in ties.get(row.index, ())),
            notes=_over_budget(record, target, row.index),
        )
        for row in drawn
    ]
    baseline = table.get(record.baseline, {})
    budget = record.budget
    return ParetoInfo(
        title=f"{sanitize(record.name, 60)} on {sanitize(target, 30)}",
        subtitle=advice.reasons,
        caption=f"{caption(record, target)} · latency: the baseline's over the paired speedup",
        metric=record.task.metric,
        higher_is_better=record.task.higher_is_better,
        points=mark_off_scale(points, record.task.higher_is_better),
        step_line=attainment(points, record.task.higher_is_better),
        latency_limit_s=None
        if not budget or not budget.latency_p50_ms
        else budget.latency_p50_ms / 1e3,
        score_limit=_score_limit(record, target),
        baseline_s=baseline["latency_p50_s"].value if "latency_p50_s" in baseline else None,
        missing=tuple(_missing(record, target, {row.index for row in drawn})),
    )


def plot_point(
    row: Row, label: str, found: Mapping[str, Reading], front_probability: float
) -> PlotPoint:
    """The point of ``row``, which has a score and a latency; its role is left to be said."""
    latency, score = found["latency_p50_s"], found["accuracy"]
    return PlotPoint(
        label=label,
        row=row.index,
        kind=row.kind,
        latency_s=latency.value,
        latency_ci95_s=latency.ci95,
        score=score.value,
        score_ci95=score.ci95,
        bytes=int(found["artifact_bytes"].value),
        values={name: Estimate(each.value, *each.ci95) for name, each in found.items()},
        front_probability=front_probability,
    )


def attainment(
    points: Iterable[PlotPoint], higher_is_better: bool
) -> tuple[tuple[float, float], ...]:
    """Corners of the best score attained within each latency, by the rows on the front.

    The step between two corners stays at the worse one's score: no straight line claims a model
    that does not exist.
    """
    corners: list[tuple[float, float]] = []
    sign = 1 if higher_is_better else -1
    members = (point for point in points if point.on_front)
    for point in sorted(members, key=lambda p: (p.latency_s, -sign * p.score)):
        if not corners or sign * point.score > sign * corners[-1][1]:
            corners.append((point.latency_s, point.score))
    return tuple(corners)


def scale_floor(scores: Sequence[float], higher_is_better: bool) -> float | None:
    """The worst score still worth scaling an axis to; ``None`` if that is the worst of all.

    A model that a stage destroyed (11 % where the others have 90) would flatten the differences
    that the figure is about. Scores count as off the scale where they lie more than twenty times
    as far from the best as the median row does, and by a quarter of the best or more.
    """
    sign = 1 if higher_is_better else -1
    if len(scores) < 3:
        return None
    best = max(scores, key=lambda value: sign * value)
    drops = [sign * (best - value) for value in scores]
    limit = max(20 * statistics.median(drops), 0.25 * abs(best))
    kept = [value for value, drop in zip(scores, drops, strict=True) if drop <= limit]
    return min(kept, key=lambda value: sign * value) if len(kept) < len(scores) else None


def mark_off_scale(points: Sequence[PlotPoint], higher_is_better: bool) -> tuple[PlotPoint, ...]:
    """``points`` with those below the scale's floor marked."""
    floor = scale_floor([point.score for point in points], higher_is_better)
    if floor is None:
        return tuple(points)
    sign = 1 if higher_is_better else -1
    return tuple(replace(p, off_scale=sign * p.score < sign * floor) for p in points)


def _label(row: Row) -> str:
    return f"{row.index} {sanitize(row.stage, _LABEL)}"


def _ties_by_row(ties: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for a, b in ties:
        found.setdefault(a, []).append(b)
        found.setdefault(b, []).append(a)
    return found


def _score_limit(record: Record, target: str) -> float | None:
    baseline = contenders(record, target).get(record.baseline, {}).get("accuracy")
    allowed = allowed_drop(record, target)
    if baseline is None or allowed is None or not record.budget:
        return None
    if record.budget.accuracy_drop is None:
        return None
    return baseline.value + (-allowed if record.task.higher_is_better else allowed)


def _over_budget(record: Record, target: str, row: int) -> tuple[str, ...]:
    """The limits without an axis of their own that ``row`` misses."""
    budget, found = record.budget, readings(record, target)[row]
    if budget is None:
        return ()
    return tuple(
        f"over {quantity.title} budget"
        for quantity in LIMITS
        if quantity.name != "latency_p50_s"
        and quantity.name in found
        and found[quantity.name].value > (limit_of(budget, quantity) or math.inf)
    )


def _missing(record: Record, target: str, drawn: set[int]) -> Iterable[str]:
    table = readings(record, target)
    for row in record.rows:
        if row.index in drawn:
            continue
        found = table.get(row.index)
        if row.index < record.baseline and found:
            reason = "untrained, before the baseline"
        elif found is None:
            reason = "not measured"
        else:
            lacks = [w for n, w in _AXES if n not in found]
            reason = f"no {' and no '.join(lacks)}"
        yield f"not drawn: {_label(row)} ({reason})"


_AXES = (("accuracy", "score"), ("latency_p50_s", "latency"))
