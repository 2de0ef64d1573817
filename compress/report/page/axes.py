"""Axes of the page's plot: where every value lies between best (0) and worst (1).

On either axis 0 is the good end, so that up and left are better whatever is chosen. All arithmetic
is done here; the page's script multiplies these shares by a width or a height and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.formatting import count, duration, plain, score, size
from compress.metrics import most
from compress.report.figures.pareto_data import ParetoInfo, PlotPoint
from compress.report.figures.ticks import (
    binary_ticks,
    brief,
    linear_ticks,
    log_ticks,
    thinned,
    tick_score,
)

__all__ = ["SHOWN_FIRST", "Axis", "Spot", "axes_of", "spot_of"]

#: The axes that a plot starts with: across, and up.
SHOWN_FIRST = ("latency_p50_s", "accuracy")

_TICKS = 6
_PAD = 0.09  # of the span, free at either end
_RATIOS = (0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)
_EDGE = 0.97  # where points are drawn that are off the scale

Span = tuple[float, float, float]
Place = tuple[float, str]


@dataclass(frozen=True)
class _Quantity:
    """Something that can be an axis; ``cue`` says what its good end is."""

    name: str
    title: str
    cue: str
    relative: str = ""


_QUANTITIES = (
    _Quantity("accuracy", "", "better"),
    _Quantity("latency_p50_s", "p50 latency", "faster", "the baseline's speed"),
    _Quantity("artifact_bytes", "artifact size", "smaller", "smaller than the baseline"),
    _Quantity("model_peak_bytes", "peak memory", "smaller", "less memory than the baseline"),
    _Quantity("parameters", "parameters", "fewer", "fewer parameters than the baseline"),
    _Quantity("macs", "multiply-accumulates", "fewer", "fewer than the baseline"),
)


@dataclass(frozen=True)
class Spot:
    """A point on one axis, with the ends of its interval; ``text`` is the value in words."""

    at: float
    lo: float
    hi: float
    text: str
    off_scale: bool = False


@dataclass(frozen=True)
class Axis:
    """``low`` and ``high`` are the costs at its good and at its bad end.

    ``ticks`` and ``ratios`` are places with their labels; the latter are multiples of the baseline,
    and ``relative`` says of what.
    """

    name: str
    title: str
    cue: str
    relative: str
    metric: str
    sign: float
    low: float
    high: float
    ticks: tuple[Place, ...] = ()
    ratios: tuple[Place, ...] = ()

    @property
    def logarithmic(self) -> bool:
        """Whether one step is a ratio; every axis but the metric's."""
        return self.name != "accuracy"

    def at(self, value: float) -> float:
        """Where ``value`` lies; below 0 and above 1 it is beyond the ends."""
        cost = math.log2(max(value, 1e-12)) if self.logarithmic else self.sign * value
        return (cost - self.low) / (self.high - self.low)

    def natural(self, at: float) -> float:
        """The value that lies there."""
        cost = self.low + at * (self.high - self.low)
        return 2.0**cost if self.logarithmic else self.sign * cost


def axes_of(info: ParetoInfo) -> dict[str, Axis]:
    """Every axis that some of the figure's points can be put on, by name."""
    return {
        quantity.name: _axis(info, quantity)
        for quantity in _QUANTITIES
        if any(_span(quantity.name, point) is not None for point in info.points)
    }


def spot_of(axis: Axis, point: PlotPoint) -> Spot | None:
    """Where ``point`` lies on ``axis``; ``None`` if that was not measured."""
    span = _span(axis.name, point)
    if span is None:
        return None
    value, low, high = span
    text = _shown(axis.metric, axis.name, value)
    if axis.name == "accuracy" and point.off_scale:
        return Spot(_EDGE, _EDGE, _EDGE, text, off_scale=True)
    at = axis.at(value)
    ends = sorted(axis.at(end) if math.isfinite(end) else at for end in (low, high))
    return Spot(at, max(0.0, min(at, ends[0])), min(1.0, max(at, ends[1])), text)


def _span(name: str, point: PlotPoint) -> Span | None:
    """A point's value in one quantity, with the ends of its interval."""
    if name == "accuracy":
        return (point.score, *point.score_ci95)
    if name == "latency_p50_s":
        return (point.latency_s, *point.latency_ci95_s)
    value: float | None = {
        "artifact_bytes": point.bytes,
        "model_peak_bytes": point.peak_bytes,
        "parameters": point.parameters,
        "macs": point.macs,
    }[name]
    return None if not value or value < 0 else (value, value, value)


def _axis(info: ParetoInfo, quantity: _Quantity) -> Axis:
    name = quantity.name
    sign = -1.0 if name == "accuracy" and info.higher_is_better else 1.0
    bare = Axis(
        name=name,
        title=quantity.title or plain(info.metric, 40),
        cue=quantity.cue,
        relative=quantity.relative,
        metric=info.metric,
        sign=sign,
        low=0.0,
        high=1.0,
    )
    # On this axis from 0 to 1 a place is a cost.
    on_scale = [p for p in info.points if not (name == "accuracy" and p.off_scale)]
    spans = [span for p in on_scale if (span := _span(name, p)) is not None]
    costs = [bare.at(end) for span in spans for end in span if math.isfinite(end)]
    low, high = min(costs), max(costs)
    if high - low < 1e-6:
        slack = 1.0 if bare.logarithmic else 0.02 * abs(low) or 0.01
    else:
        slack = _PAD * (high - low)
    axis = replace(bare, low=low - slack, high=high + slack)
    ratios = _ratios(axis, _baseline_value(info, name)) if axis.logarithmic else ()
    return replace(axis, ticks=_ticks(axis), ratios=ratios)


def _baseline_value(info: ParetoInfo, name: str) -> float | None:
    """The baseline's own value; none where several runs have one each."""
    baselines = [] if info.runs else [p for p in info.points if p.is_baseline]
    span = _span(name, baselines[0]) if baselines else None
    return span[0] if span else None


def _ticks(axis: Axis) -> tuple[Place, ...]:
    low, high = sorted((axis.natural(0.0), axis.natural(1.0)))
    ticks: Sequence[float]
    if axis.name == "accuracy":
        ticks = linear_ticks(low, high, _TICKS)
        if (largest := most(axis.metric)) is not None:
            ticks = [tick for tick in ticks if tick <= largest + 1e-9]
        return tuple((axis.at(tick), tick_score(axis.metric, tick, high - low)) for tick in ticks)
    in_bytes = axis.name.endswith("_bytes")
    ticks = binary_ticks(low, high) if in_bytes else log_ticks(low, high)
    if len(ticks) < 2:
        ticks = linear_ticks(low, high, 4)
    return tuple(
        (axis.at(tick), brief(_shown(axis.metric, axis.name, tick)))
        for tick in thinned(ticks, _TICKS)
        if tick > 0
    )


def _ratios(axis: Axis, baseline: float | None) -> tuple[Place, ...]:
    if baseline is None:
        return ()
    places = ((axis.at(baseline / ratio), f"{ratio:g}x") for ratio in _RATIOS)
    return tuple((at, text) for at, text in places if 0 <= at <= 1)


def _shown(metric: str, name: str, value: float) -> str:
    if name == "accuracy":
        return score(metric, value)
    if name == "latency_p50_s":
        return duration(value)
    return size(value) if name.endswith("_bytes") else count(value)
