"""Axes of the page's plot: where every value lies between best (0) and worst (1).

On either axis 0 is the good end, so that up and left are better whatever is chosen. All arithmetic
is done here; the page's script multiplies these shares by a width or a height and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.measure.quantities import quantities_of
from compress.measure.quantity import Estimate, Quantity
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

__all__ = ["SHOWN_FIRST", "PlotAxis", "Spot", "axes_of", "spot_of"]

#: The axes that a plot starts with: across, and up.
SHOWN_FIRST = ("latency_p50_s", "accuracy")

_TICKS = 6
_PAD = 0.09  # of the span, free at either end
_RATIOS = (0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)
_EDGE = 0.97  # where points are drawn that are off the scale

Place = tuple[float, str]


@dataclass(frozen=True)
class Spot:
    """A point on one axis, with the ends of its interval; ``text`` is the value in words."""

    at: float
    lo: float
    hi: float
    text: str
    off_scale: bool = False


@dataclass(frozen=True)
class PlotAxis:
    """``low`` and ``high`` are the costs at its good and at its bad end.

    ``ticks`` and ``ratios`` are places with their labels; the latter are multiples of the baseline.
    ``metric`` is that of the record.
    """

    quantity: Quantity
    metric: str
    low: float
    high: float
    ticks: tuple[Place, ...] = ()
    ratios: tuple[Place, ...] = ()

    @property
    def name(self) -> str:
        """The name of its quantity."""
        return self.quantity.name

    @property
    def cue(self) -> str:
        """What its good end is."""
        return self.quantity.gains[0]

    @property
    def relative(self) -> str:
        """What its ratios are multiples of; empty where it has none."""
        return f"how many times {self.cue} than the baseline" if self.ratios else ""

    @property
    def logarithmic(self) -> bool:
        """Whether one step is a ratio; every axis but the metric's."""
        return self.quantity.logarithmic

    @property
    def _sign(self) -> float:
        return -1.0 if self.quantity.higher_is_better else 1.0

    def at(self, value: float) -> float:
        """Where ``value`` lies; below 0 and above 1 it is beyond the ends."""
        cost = math.log2(max(value, 1e-12)) if self.logarithmic else self._sign * value
        return (cost - self.low) / (self.high - self.low)

    def natural(self, at: float) -> float:
        """The value that lies there."""
        cost = self.low + at * (self.high - self.low)
        return 2.0**cost if self.logarithmic else self._sign * cost


def axes_of(info: ParetoInfo) -> dict[str, PlotAxis]:
    """Every axis that some of the figure's points can be put on, by name."""
    return {
        quantity.name: _axis(info, quantity)
        for quantity in quantities_of(info)
        if any(_value(quantity, point) is not None for point in info.points)
    }


def spot_of(axis: PlotAxis, point: PlotPoint) -> Spot | None:
    """Where ``point`` lies on ``axis``; ``None`` if that was not measured."""
    found = _value(axis.quantity, point)
    if found is None:
        return None
    text = axis.quantity.unit.shown(found.value)
    if axis.name == "accuracy" and point.off_scale:
        return Spot(_EDGE, _EDGE, _EDGE, text, off_scale=True)
    at = axis.at(found.value)
    ends = sorted(axis.at(end) if math.isfinite(end) else at for end in (found.lo, found.hi))
    return Spot(at, max(0.0, min(at, ends[0])), min(1.0, max(at, ends[1])), text)


def _value(quantity: Quantity, point: PlotPoint) -> Estimate | None:
    """A point's value in one quantity; a log scale has no place for an exact nothing."""
    found = point.values.get(quantity.name)
    if found is None or (quantity.logarithmic and found.hi <= 0):
        return None
    return found


def _axis(info: ParetoInfo, quantity: Quantity) -> PlotAxis:
    bare = PlotAxis(quantity, info.metric, low=0.0, high=1.0)
    # On this axis from 0 to 1 a place is a cost.
    on_scale = [p for p in info.points if not (quantity.name == "accuracy" and p.off_scale)]
    known = [found for p in on_scale if (found := _value(quantity, p)) is not None]
    ends = [end for each in known for end in (each.value, each.lo, each.hi)]
    costs = [bare.at(end) for end in ends if math.isfinite(end)]
    low, high = min(costs), max(costs)
    if high - low < 1e-6:
        slack = 1.0 if bare.logarithmic else 0.02 * abs(low) or 0.01
    else:
        slack = _PAD * (high - low)
    axis = replace(bare, low=low - slack, high=high + slack)
    ratios = _ratios(axis, _baseline_value(info, quantity)) if axis.logarithmic else ()
    return replace(axis, ticks=_ticks(axis), ratios=ratios)


def _baseline_value(info: ParetoInfo, quantity: Quantity) -> float | None:
    """The baseline's own value; none where several runs have one each."""
    baselines = [] if info.runs else [p for p in info.points if p.is_baseline]
    found = _value(quantity, baselines[0]) if baselines else None
    return found.value if found else None


def _ticks(axis: PlotAxis) -> tuple[Place, ...]:
    low, high = sorted((axis.natural(0.0), axis.natural(1.0)))
    ticks: Sequence[float]
    unit = axis.quantity.unit
    if not axis.logarithmic:
        ticks = linear_ticks(low, high, _TICKS)
        if (largest := most(axis.metric)) is not None:
            ticks = [tick for tick in ticks if tick <= largest + 1e-9]
        return tuple((axis.at(tick), tick_score(axis.metric, tick, high - low)) for tick in ticks)
    ticks = binary_ticks(low, high) if unit.binary else log_ticks(low, high)
    if len(ticks) < 2:
        ticks = linear_ticks(low, high, 4)
    return tuple(
        (axis.at(tick), brief(unit.shown(tick))) for tick in thinned(ticks, _TICKS) if tick > 0
    )


def _ratios(axis: PlotAxis, baseline: float | None) -> tuple[Place, ...]:
    if baseline is None:
        return ()
    places = ((axis.at(baseline / ratio), f"{ratio:g}x") for ratio in _RATIOS)
    return tuple((at, text) for at, text in places if 0 <= at <= 1)
