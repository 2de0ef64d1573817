"""What the Pareto figure shows, as plain data: everything but the drawing.

Knows records and their fronts; imports no drawing library.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from compress.formatting import duration, sanitize, score, size
from compress.measure.quantities import quantity_named
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
    "SHOWN_FIRST",
    "ParetoInfo",
    "PlotCurve",
    "PlotPoint",
    "mark_off_scale",
    "pareto_info",
    "plot_point",
    "scale_floor",
]

#: The quantities that a figure starts with: across, and up.
SHOWN_FIRST = ("latency_p50_s", "accuracy")

_LABEL = 24


@dataclass(frozen=True)
class PlotPoint:
    """One row; ``values`` has all that was measured of it, by objective, a score and a latency too.

    Intervals are of each quantity by itself. Of rows of one run a latency is the baseline's over
    the row's paired speedup, with the interval of the latter: that is how they compare, whatever
    the machine did between their sessions.

    ``ties`` are labels of the points that the data cannot tell from this one.
    ``front_probability`` is the share of a joint bootstrap in which no other point dominates it in
    the front's objectives.
    ``off_scale`` points are so much worse than the rest that they are drawn at the edge.
    ``run`` counts the runs of several; ``None`` for a row that some of them share.
    """

    label: str
    row: int
    kind: str
    values: Mapping[str, Estimate]
    front_probability: float
    on_front: bool = False
    is_baseline: bool = False
    is_recommended: bool = False
    ties: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    off_scale: bool = False
    run: int | None = 0

    @property
    def bytes(self) -> int:
        """The size of its artifact."""
        return int(self.values["artifact_bytes"].value)


@dataclass(frozen=True)
class PlotCurve:
    """A line of what lies between rows, such as a cascade of two.

    Args:
        label: at the place that was chosen.
        places: seconds and score of each, in order.
        chosen: seconds and score.
    """

    label: str
    places: tuple[tuple[float, float], ...]
    chosen: tuple[float, float]


@dataclass(frozen=True)
class ParetoInfo:
    """The whole figure.

    ``limits`` are the budget and ``baseline`` what ratios are against, by quantity; several runs
    have them where they share one. ``runs`` names the records where several are overlaid.
    ``missing`` says which rows could not be drawn, and why. ``curves`` are drawn beside the points.
    """

    title: str
    subtitle: str
    caption: str
    metric: str
    higher_is_better: bool
    points: tuple[PlotPoint, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    curves: tuple[PlotCurve, ...] = ()

    @property
    def legend(self) -> str:
        """How to read the figure."""
        latencies = (
            "Latencies are as timed, and rows of different runs are compared by those alone."
            if self.runs and not self.baseline
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
            f"{p.label}: {score(self.metric, p.values['accuracy'].value)} at "
            f"{duration(p.values['latency_p50_s'].value)}, {size(p.bytes)}"
            f"{', on the front' if p.on_front else ''}{', baseline' if p.is_baseline else ''}"
            for p in self.points
        ]
        return f"{self.title}. " + "; ".join([*words, *self.missing]) + "."


def pareto_info(record: Record, target: str) -> ParetoInfo:
    """The metric against latency of every row on ``target``, with front, ties and budget."""
    table = contenders(record, target)
    facts, advice = front_facts(record, target), recommend(record, target)
    rows = [row for row in record.rows if row.index in table]
    drawn = [row for row in rows if set(SHOWN_FIRST) <= table[row.index].keys()]
    limits = _limits(record, target)
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
            notes=_over_budget(limits, table[row.index]),
        )
        for row in drawn
    ]
    return ParetoInfo(
        title=f"{sanitize(record.name, 60)} on {sanitize(target, 30)}",
        subtitle=advice.reasons,
        caption=f"{caption(record, target)} · latency: the baseline's over the paired speedup",
        metric=record.task.metric,
        higher_is_better=record.task.higher_is_better,
        points=mark_off_scale(points, record.task.higher_is_better),
        limits=limits,
        baseline={name: each.value for name, each in table.get(record.baseline, {}).items()},
        missing=tuple(_missing(record, target, {row.index for row in drawn})),
    )


def plot_point(
    row: Row, label: str, found: Mapping[str, Reading], front_probability: float
) -> PlotPoint:
    """The point of ``row``, which has a score and a latency; its role is left to be said."""
    return PlotPoint(
        label=label,
        row=row.index,
        kind=row.kind,
        values={name: Estimate(each.value, *each.ci95) for name, each in found.items()},
        front_probability=front_probability,
    )


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
    scores = [point.values["accuracy"].value for point in points]
    floor = scale_floor(scores, higher_is_better)
    if floor is None:
        return tuple(points)
    sign = 1 if higher_is_better else -1
    return tuple(
        replace(point, off_scale=sign * score < sign * floor)
        for point, score in zip(points, scores, strict=True)
    )


def _label(row: Row) -> str:
    return f"{row.index} {sanitize(row.stage, _LABEL)}"


def _ties_by_row(ties: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for a, b in ties:
        found.setdefault(a, []).append(b)
        found.setdefault(b, []).append(a)
    return found


def _limits(record: Record, target: str) -> dict[str, float]:
    """What the budget allows of each quantity; of the metric, in its own unit and not as a drop."""
    budget = record.budget
    if budget is None:
        return {}
    found = {each.name: limit_of(budget, each) for each in LIMITS}
    baseline = contenders(record, target).get(record.baseline, {}).get("accuracy")
    allowed = allowed_drop(record, target)
    if baseline is not None and allowed is not None and budget.accuracy_drop is not None:
        found["accuracy"] = baseline.value + (-allowed if record.task.higher_is_better else allowed)
    return {name: limit for name, limit in found.items() if limit is not None}


def _over_budget(limits: Mapping[str, float], found: Mapping[str, Reading]) -> tuple[str, ...]:
    """The limits without an axis of their own that a row misses."""
    return tuple(
        f"over {quantity_named(name).title} budget"
        for name, limit in limits.items()
        if name not in SHOWN_FIRST and name in found and found[name].value > limit
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
