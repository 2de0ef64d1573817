"""Axes of the Pareto figure: where every value lies between best (0) and worst (1).

On either axis 0 is the good end, so that up and left are better whatever is chosen. All arithmetic
is done here; what draws multiplies these shares by a width or a height and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.measure.quantities import quantities_of
from compress.measure.quantity import Estimate, Quantity
from compress.metrics import most
from compress.report.figures.pareto_data import SHOWN_FIRST, ParetoInfo, PlotPoint
from compress.report.figures.ticks import (
    binary_ticks,
    brief,
    linear_ticks,
    log_ticks,
    thinned,
    tick_score,
)

__all__ = ["PlotAxis", "Spot", "axes_of", "axis_of", "spot_of"]

_TICKS = 6
_PAD = 0.12  # of the span, free at either end
_LEAST_SPAN = 1.0  # of a log scale: a factor of two, so that noise does not look like a difference
# Limits that are so far beyond the values leave the scale as it is: a ratio, and so many spans.
_FARTHEST = math.log2(3), 2.0
_RATIOS = (0.1, 0.2, 0.5, *(2**k for k in range(10)))
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
    ``limit`` is the budget's, where that is in sight.
    """

    quantity: Quantity
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[Place, ...] = ()
    ratios: tuple[Place, ...] = ()
    limit: Place | None = None

    @property
    def title(self) -> str:
        """What it shows, and on which scale."""
        return (
            f"{self.quantity.title} (log scale)"
            if self.quantity.logarithmic
            else self.quantity.title
        )

    @property
    def cue(self) -> str:
        """What its good end is."""
        return self.quantity.gains[0]

    @property
    def relative(self) -> str:
        """What its ratios are multiples of; empty where it has none."""
        return f"how many times {self.cue} than the baseline" if self.ratios else ""

    @property
    def _sign(self) -> float:
        return -1.0 if self.quantity.higher_is_better else 1.0

    def at(self, value: float) -> float:
        """Where ``value`` lies; below 0 and above 1 it is beyond the ends."""
        least = self.quantity.unit.least
        cost = math.log2(max(value, least)) if self.quantity.logarithmic else self._sign * value
        return (cost - self.low) / (self.high - self.low)

    def inside(self, value: float) -> float:
        """Where ``value`` lies; at the nearer end where it is beyond."""
        return min(1.0, max(0.0, self.at(value)))

    def natural(self, at: float) -> float:
        """The value that lies there."""
        cost = self.low + at * (self.high - self.low)
        return 2.0**cost if self.quantity.logarithmic else self._sign * cost


def axes_of(info: ParetoInfo) -> dict[str, PlotAxis]:
    """Every axis that some of the figure's points can be put on, by name."""
    return {
        quantity.name: _axis(info, quantity)
        for quantity in quantities_of(info)
        if any(_value(quantity, point) is not None for point in info.points)
    }


def spot_of(axis: PlotAxis, point: PlotPoint) -> Spot | None:
    """Where ``point`` lies on ``axis``, inside; ``None`` if that was not measured."""
    found = _value(axis.quantity, point)
    if found is None:
        return None
    text = axis.quantity.unit.shown(found.value)
    if axis.quantity.name == "accuracy" and point.off_scale:
        return Spot(_EDGE, _EDGE, _EDGE, text, off_scale=True)
    at = axis.inside(found.value)
    ends = [axis.inside(end) if math.isfinite(end) else at for end in (found.lo, found.hi)]
    return Spot(at, min(at, *ends), max(at, *ends), text)


def _value(quantity: Quantity, point: PlotPoint) -> Estimate | None:
    """A point's value in one quantity; a log scale has no place for an exact nothing."""
    found = point.values.get(quantity.name)
    if found is None or (quantity.logarithmic and found.hi <= 0):
        return None
    return found


def _axis(info: ParetoInfo, quantity: Quantity) -> PlotAxis:
    on_scale = [p for p in info.points if not (quantity.name == "accuracy" and p.off_scale)]
    known = [found for p in on_scale if (found := _value(quantity, p)) is not None]
    known += [Estimate(value, value, value) for value in _on_curves(info, quantity)]
    axis = axis_of(quantity, info.metric, known, info.limits.get(quantity.name))
    return replace(axis, ratios=_ratios(axis, info.baseline.get(quantity.name)))


def _on_curves(info: ParetoInfo, quantity: Quantity) -> list[float]:
    """The values of the figure's curves on one of its two first axes."""
    if quantity.name not in SHOWN_FIRST:
        return []
    which = SHOWN_FIRST.index(quantity.name)
    return [place[which] for curve in info.curves for place in (*curve.places, curve.chosen)]


def axis_of(
    quantity: Quantity, metric: str, known: Sequence[Estimate], limit: float | None = None
) -> PlotAxis:
    """The axis that shows the estimates that are known of a quantity, and a limit if near them."""
    # On this axis from 0 to 1 a place is a cost.
    bare = PlotAxis(quantity)
    if limit is not None and not _in_sight(bare, limit, [each.value for each in known]):
        limit = None
    low, high = _ends(bare, known, limit)
    axis = replace(bare, low=low, high=high)
    place = None if limit is None else (axis.at(limit), quantity.unit.shown(limit))
    return replace(axis, ticks=_ticks(axis, metric), limit=place)


def _in_sight(bare: PlotAxis, limit: float, values: Sequence[float]) -> bool:
    """Whether a limit is near enough to the values for the scale to reach it."""
    costs = [bare.at(value) for value in values]
    reach = _FARTHEST[0] if bare.quantity.logarithmic else _FARTHEST[1] * (max(costs) - min(costs))
    return min(costs) - reach <= bare.at(limit) <= max(costs) + reach


def _ends(bare: PlotAxis, known: Sequence[Estimate], limit: float | None) -> tuple[float, float]:
    """The costs at the ends of an axis that shows all values, and a limit."""
    ends = [end for each in known for end in (each.value, each.lo, each.hi)]
    ends += [] if limit is None else [limit]
    shown = [
        end for end in ends if math.isfinite(end) and (end > 0 or not bare.quantity.logarithmic)
    ]
    costs = [bare.at(end) for end in shown] or [0.0]
    low, high = min(costs), max(costs)
    slack = _PAD * (high - low)
    if bare.quantity.logarithmic:
        slack = max(slack, (_LEAST_SPAN - (high - low)) / 2)
    elif high - low <= 1e-9 * max(abs(low), abs(high)):
        slack = 0.02 * abs(low) or 0.01
    return low - slack, high + slack


def _ticks(axis: PlotAxis, metric: str) -> tuple[Place, ...]:
    low, high = sorted((axis.natural(0.0), axis.natural(1.0)))
    ticks: Sequence[float]
    unit = axis.quantity.unit
    if not axis.quantity.logarithmic:
        ticks = linear_ticks(low, high, _TICKS)
        if (largest := most(metric)) is not None:
            ticks = [tick for tick in ticks if tick <= largest + 1e-9]
        return tuple((axis.at(tick), tick_score(metric, tick, high - low)) for tick in ticks)
    ticks = binary_ticks(low, high) if unit.binary else log_ticks(low, high)
    return tuple(
        (axis.at(tick), brief(unit.shown(tick)))
        for tick in thinned(ticks, _TICKS)
        if tick >= unit.least
    )


def _ratios(axis: PlotAxis, baseline: float | None) -> tuple[Place, ...]:
    if baseline is None or baseline <= 0 or not axis.quantity.logarithmic:
        return ()
    places = ((axis.at(baseline / ratio), f"{ratio:g}x") for ratio in _RATIOS)
    return tuple((at, text) for at, text in places if 0 <= at <= 1)
