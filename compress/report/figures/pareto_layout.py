"""The layout of the Pareto figure, which whatever draws only multiplies by a width and a height.

    ParetoInfo ── layout_of ──> ParetoLayout ─┬─> page/plots/pareto.py: SVG, data of the script
    what is shown               where it is   └─> figures/pareto.py: matplotlib

Places are shares of the frame: 0 is left or up, the better end, and 1 right or down. Knows neither
a drawing library nor HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compress.report.figures.axes import PlotAxis, Spot, axes_of, spot_of
from compress.report.figures.labels import Box, Label, Placement, place
from compress.report.figures.markers import RING, Marker, marker_of
from compress.report.figures.pareto_data import SHOWN_FIRST, ParetoInfo

__all__ = ["Frame", "ParetoLayout", "layout_of", "place_labels"]

Xy = tuple[float, float]

_MOST_LABELS = 14  # of rows of several runs, before only those that matter have one


@dataclass(frozen=True)
class ParetoLayout:
    """``spots`` has, for each of the figure's points, a place on every axis that fits it.

    ``labels`` and ``markers`` are those of the points. Where no axes are named, ``across`` and
    ``up`` are meant, which the figure starts with.
    """

    info: ParetoInfo
    axes: Mapping[str, PlotAxis]
    spots: tuple[Mapping[str, Spot], ...]
    labels: tuple[str, ...]
    markers: tuple[Marker, ...]

    @property
    def across(self) -> PlotAxis:
        """The axis that the figure has across at first."""
        return self.axes[SHOWN_FIRST[0]]

    @property
    def up(self) -> PlotAxis:
        """The axis that the figure has upwards at first."""
        return self.axes[SHOWN_FIRST[1]]

    @property
    def shown(self) -> list[tuple[Spot, Spot]]:
        """Every point's place across and down at first."""
        across, up = SHOWN_FIRST
        return [(spots[across], spots[up]) for spots in self.spots]

    @property
    def full_labels(self) -> list[str]:
        """Labels that name the score of points which are off the scale."""
        return [
            f"{label} ↓ {y.text}" if y.off_scale else label
            for label, (_, y) in zip(self.labels, self.shown, strict=True)
        ]

    @property
    def named(self) -> list[bool]:
        """Which points have a label where none can wait for a pointer: of many runs the best."""
        points = self.info.points
        is_crowd = bool(self.info.runs) and len(points) > _MOST_LABELS
        return [
            not is_crowd or point.on_front or point.is_recommended or point.is_baseline
            for point in points
        ]

    @property
    def has_limits(self) -> bool:
        """Whether a line of the budget is in sight at first."""
        return self.across.limit is not None or self.up.limit is not None

    @property
    def affordable(self) -> Xy:
        """How far across and down the budget allows, as far as it is in sight."""
        across, up = self.across.limit, self.up.limit
        return (across[0] if across else 1.0, up[0] if up else 1.0)

    def keeps_limits(self, spots: tuple[Spot, Spot]) -> bool:
        """Whether a point lies within what is in sight of the budget."""
        return all(spot.at <= most for spot, most in zip(spots, self.affordable, strict=True))

    def marker_boxes(self, frame: Frame) -> list[Box]:
        """Where the markers are, with their rings."""
        return [
            Box(*frame.at(x.at, y.at), *frame.at(x.at, y.at)).grown(_reach(frame, marker))
            for (x, y), marker in zip(self.shown, self.markers, strict=True)
        ]

    def corners(self, across: str = SHOWN_FIRST[0], up: str = SHOWN_FIRST[1]) -> list[int]:
        """Which points the best attained line turns at, from the best on the axis ``across`` on.

        Members are the points of the front that have a place on both axes. The line between two
        stays at the worse one's height: no straight line claims a model that does not exist.
        """
        members = sorted(
            (spots[across].at, spots[up].at, number)
            for number, (point, spots) in enumerate(zip(self.info.points, self.spots, strict=True))
            if point.on_front and {across, up} <= spots.keys()
            if not (spots[across].off_scale or spots[up].off_scale)
        )
        found, best = [], math.inf
        for _, down, number in members:
            if down < best:
                found.append(number)
                best = down
        return found

    def step_line(self) -> list[Xy]:
        """The best attained line from the lower edge to the right one; empty without a corner."""
        line: list[Xy] = []
        for number in self.corners():
            x, y = self.shown[number]
            line += [(x.at, line[-1][1] if line else 1.0), (x.at, y.at)]
        return [*line, (1.0, line[-1][1])] if line else []

    def curve_lines(self) -> list[list[Xy]]:
        """The places of each curve, across and down at first; what is chosen comes last."""
        return [
            [
                (self.across.inside(seconds), self.up.inside(score))
                for seconds, score in (*curve.places, curve.chosen)
            ]
            for curve in self.info.curves
        ]


@dataclass(frozen=True)
class Frame:
    """Where what draws has the frame: the edges in its own unit, with ``y`` downwards.

    ``largest`` is the radius of the largest marker in that unit.
    """

    left: float
    top: float
    right: float
    bottom: float
    largest: float

    def at(self, across: float, down: float) -> Xy:
        """The place of two shares."""
        width, height = self.right - self.left, self.bottom - self.top
        return self.left + across * width, self.top + down * height

    def box(self, start: Xy, end: Xy) -> Box:
        """The rectangle between two places that are given in shares."""
        (x0, y0), (x1, y1) = self.at(*start), self.at(*end)
        return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def layout_of(info: ParetoInfo) -> ParetoLayout:
    """The layout of a figure that has points."""
    axes = axes_of(info)
    spots = tuple(
        {name: spot for name, axis in axes.items() if (spot := spot_of(axis, point)) is not None}
        for point in info.points
    )
    # Names of rows of several runs are long, and most rows tie: the page's facts have the ties.
    labels = tuple(_label(p.label, () if info.runs else p.ties) for p in info.points)
    return ParetoLayout(info, axes, spots, labels, tuple(marker_of(info, p) for p in info.points))


def _label(name: str, ties: Sequence[str]) -> str:
    if not ties:
        return name
    few = ", ".join(tie.split(" ")[0] for tie in ties)
    return f"{name} ≈ {few if len(ties) < 4 else f'{len(ties)} others'}"


def _reach(frame: Frame, marker: Marker) -> float:
    return frame.largest * (marker.radius + (RING if marker.ringed else 0.0))


def place_labels(
    layout: ParetoLayout,
    frame: Frame,
    sizes: Sequence[Xy],
    taken: Sequence[Box] = (),
    named: Sequence[int] | None = None,
) -> list[Placement]:
    """Where the labels go, whose widths and heights are ``sizes``, off the boxes that are taken.

    ``named`` are the points that have labels, by their places; all where it is not given.

    They stay off markers and one another, and out of what is over the budget unless their own row
    is; off intervals, the best attained line and the budget where that costs little.
    """
    places = range(len(layout.shown)) if named is None else named
    inside = frame.box((0, 0), (1, 1)).grown(-3)
    within = frame.box((0, 0), layout.affordable).grown(-3)
    labels, frames = [], []
    for number, (width, height) in zip(places, sizes, strict=True):
        x, y = layout.shown[number]
        reach = _reach(frame, layout.markers[number])
        labels.append(Label(frame.at(x.at, y.at), reach, width, height))
        frames.append(within if layout.keeps_limits((x, y)) else inside)
    markers = layout.marker_boxes(frame)
    others = [box for number, box in enumerate(markers) if number not in set(places)]
    return place(labels, [*taken, *others], inside, _lines(layout, frame), frames)


def _lines(layout: ParetoLayout, frame: Frame) -> list[Box]:
    """Thin boxes around the best attained line, the budget and the intervals."""
    segments = list(pairwise(layout.step_line()))
    if layout.across.limit:
        segments.append(((layout.across.limit[0], 0.0), (layout.across.limit[0], 1.0)))
    if layout.up.limit:
        segments.append(((0.0, layout.up.limit[0]), (1.0, layout.up.limit[0])))
    for line in layout.curve_lines():
        segments += pairwise(line[:-1])
    for x, y in layout.shown:
        segments += [((x.lo, y.at), (x.hi, y.at)), ((x.at, y.lo), (x.at, y.hi))]
    return [frame.box(*segment).grown(1) for segment in segments]
