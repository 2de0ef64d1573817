"""The page's plot of rows, as data for its script and as an SVG that needs none.

The script moves the elements made here when axes or sizes change: a row of the plot is one ``<g>``
that keyboards can reach, whose parts are placed relative to its middle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from compress.formatting import sanitize, times
from compress.measure.quantities import quantities_of
from compress.report.figures.axes import SHOWN_FIRST, PlotAxis, Spot, axes_of, spot_of
from compress.report.figures.labels import Box, Label, Placement, place
from compress.report.figures.pareto_data import ParetoInfo, PlotPoint
from compress.report.page.markers import look_of, radius_of, shape_path
from compress.report.page.markup import Markup, element

__all__ = ["Plot", "plot_data", "plot_of", "plot_svg"]

_WIDTH, _HEIGHT = 760, 440
#: Space around the plot's frame in pixels; the script keeps it at every width.
MARGINS = {"left": 62, "top": 46, "right": 18, "bottom": 50}
_LETTER, _LINE = 6.7, 15.0  # of a label, in pixels

Fact = tuple[str, str]


@dataclass(frozen=True)
class Plot:
    """``spots`` has, for each of the figure's points, a place on every axis that fits it."""

    info: ParetoInfo
    axes: Mapping[str, PlotAxis]
    spots: tuple[Mapping[str, Spot], ...]


def plot_of(info: ParetoInfo) -> Plot:
    """The plot of a figure that has points."""
    axes = axes_of(info)
    spots = tuple(
        {name: spot for name, axis in axes.items() if (spot := spot_of(axis, point)) is not None}
        for point in info.points
    )
    return Plot(info, axes, spots)


def plot_data(plot: Plot) -> dict[str, Any]:
    """The plot for the page's script: shares of a width or height, and words."""
    return {
        "margins": MARGINS,
        "shown": list(SHOWN_FIRST),
        "axes": {name: _axis_data(axis) for name, axis in plot.axes.items()},
        "points": [
            {
                "row": point.row,
                "label": _label(point),
                "radius": round(radius_of(plot.info, point), 2),
                "front": point.on_front,
                "facts": _facts(plot.info, point),
                "at": {name: _spot_data(spot) for name, spot in spots.items()},
            }
            for point, spots in zip(plot.info.points, plot.spots, strict=True)
        ],
    }


def _axis_data(axis: PlotAxis) -> dict[str, Any]:
    return {
        "title": _title(axis),
        "cue": axis.cue,
        "relative": axis.relative,
        "ticks": [[_share(at), words] for at, words in axis.ticks],
        "ratios": [[_share(at), words] for at, words in axis.ratios],
    }


def _spot_data(spot: Spot) -> list[Any]:
    ends = [_share(spot.at), _share(spot.lo), _share(spot.hi)]
    return [*ends, spot.text] if spot.off_scale else ends


def _share(value: float) -> float:
    return round(value, 4)


def _title(axis: PlotAxis) -> str:
    title = axis.quantity.title
    return f"{title} (log scale)" if axis.logarithmic else title


def _label(point: PlotPoint) -> str:
    if not point.ties:
        return point.label
    few = ", ".join(tie.split(" ")[0] for tie in point.ties)
    return f"{point.label} ≈ {few if len(point.ties) < 4 else f'{len(point.ties)} others'}"


def _facts(info: ParetoInfo, point: PlotPoint) -> list[Fact]:
    """What a reader learns who points at a row."""
    facts = []
    for quantity in quantities_of(info):
        found = point.values.get(quantity.name)
        if found is None:
            continue
        value, low, high = map(quantity.unit.shown, (found.value, found.lo, found.hi))
        ends = "" if found.lo == found.hi else f" ({low} to {high})"
        facts.append((quantity.title, f"{value}{ends}"))
        if quantity.name == "latency_p50_s" and info.baseline_s is not None and found.value > 0:
            facts.append(("speed", f"{times(info.baseline_s / found.value)} the baseline's"))
    front = "not beaten" if point.on_front else "beaten by another row"
    facts.append(
        ("front", f"{front}; not dominated in {100 * point.front_probability:.0f} % of draws")
    )
    if point.ties:
        tied = f"in {sanitize(info.metric, 40)} and speed not told from"
        facts.append((tied, ", ".join(point.ties[:6])))
    return facts


def plot_svg(plot: Plot) -> Markup:
    """The plot on its first axes, with text and intervals, at a fixed width."""
    x, y = (plot.axes[name] for name in SHOWN_FIRST)
    shown = [(spots[x.name], spots[y.name]) for spots in plot.spots]
    labels = _place_labels(plot, shown)
    rows = [
        _row(plot.info, number, point, spots, labels[number])
        for number, (point, spots) in enumerate(zip(plot.info.points, shown, strict=True))
    ]
    step_line, shade = _step_line(plot, shown)
    frame = {
        "class": "pareto",
        "viewBox": f"0 0 {_WIDTH} {_HEIGHT}",
        "role": "group",
        "aria-label": sanitize(plot.info.title, 200),
    }
    return element(
        "svg",
        frame,
        element("g", {"class": "grid", "aria-hidden": "true"}, *_grid(x, y)),
        element("path", {"class": "shade", "d": shade}),
        element("path", {"class": "step-line", "d": step_line}),
        element("g", {"class": "limits", "aria-hidden": "true"}, ""),
        element("g", {"class": "rows"}, *rows),
    )


def _across(at: float) -> float:
    return MARGINS["left"] + at * (_WIDTH - MARGINS["left"] - MARGINS["right"])


def _down(at: float) -> float:
    return MARGINS["top"] + at * (_HEIGHT - MARGINS["top"] - MARGINS["bottom"])


def _grid(x: PlotAxis, y: PlotAxis) -> Iterator[Markup]:
    left, right, top, bottom = _across(0), _across(1), _down(0), _down(1)
    yield _path("frame", f"M{left},{top}V{bottom}H{right}")
    for at, words in x.ticks:
        yield _path("tick", f"M{_across(at):.1f},{bottom}v5")
        yield _text(_across(at), bottom + 19, words, "middle")
    for at, words in y.ticks:
        yield _path("line", f"M{left},{_down(at):.1f}H{right}")
        yield _text(left - 8, _down(at) + 4, words, "end")
    for at, words in x.ratios:
        yield _path("ratio", f"M{_across(at):.1f},{top}V{bottom}")
        yield _text(_across(at), top - 6, words, "middle")
    for at, words in y.ratios:
        yield _path("ratio", f"M{left},{_down(at):.1f}H{right}")
        yield _text(right - 4, _down(at) - 4, words, "end")
    yield _text((left + right) / 2, _HEIGHT - 8, f"← {x.cue} · {_title(x)}", "middle title")
    yield _text(6, 15, f"↑ {y.cue} · {_title(y)}", "start title")


def _path(look: str, path: str) -> Markup:
    return element("path", {"class": look, "d": path})


def _text(x: float, y: float, words: str, look: str) -> Markup:
    place = {"class": look, "x": f"{x:.1f}", "y": f"{y:.1f}"}
    return element("text", place, sanitize(words, 400))


def _step_line(plot: Plot, shown: list[tuple[Spot, Spot]]) -> tuple[str, str]:
    """The best attained up to each place across, as a line and as the area that it dominates."""
    members = sorted(
        (x.at, y.at)
        for point, (x, y) in zip(plot.info.points, shown, strict=True)
        if point.on_front and not y.off_scale
    )
    path, lowest = "", math.inf
    for across, down in members:
        if down < lowest:
            start = f"M{_across(across):.1f},{_down(1):.1f}" if not path else ""
            path += f"{start}H{_across(across):.1f}V{_down(down):.1f}"
            lowest = down
    if not path:
        return "", ""
    path += f"H{_across(1):.1f}"
    return path, f"{path}V{_down(1):.1f}Z"


def _row(
    info: ParetoInfo, number: int, point: PlotPoint, spots: tuple[Spot, Spot], label: Placement
) -> Markup:
    """One row: a group at its place, whose parts are relative to its middle."""
    x, y = _across(spots[0].at), _down(spots[1].at)
    classes = ["row", look_of(info, point)]
    classes += ["beaten"] * (not point.on_front) + ["ship"] * point.is_recommended
    said = "; ".join(f"{name} {words}" for name, words in _facts(info, point))
    bars = (
        f"M{_across(spots[0].lo) - x:.1f},0H{_across(spots[0].hi) - x:.1f}"
        f"M0,{_down(spots[1].lo) - y:.1f}V{_down(spots[1].hi) - y:.1f}"
    )
    words = _label(point) + (f" ↓ {spots[1].text}" if spots[1].off_scale else "")
    beside = f"{label.box.x0 - x:.1f}", f"{-label.box.y0 - y - 4:.1f}"
    return element(
        "g",
        {
            "class": " ".join(classes),
            "tabindex": 0,
            "role": "img",
            "data-point": number,
            "aria-label": sanitize(f"Row {point.label}: {said}", 800),
            "transform": f"translate({x:.1f},{y:.1f})",
        },
        _path("bars", bars),
        *_leader(label, x, y),
        *_mark(info, point),
        element("text", {"class": "name", "x": beside[0], "y": beside[1]}, sanitize(words, 60)),
    )


def _leader(label: Placement, x: float, y: float) -> Iterator[Markup]:
    """The line from a mark in ``(x, y)`` to a label that stands apart from it."""
    if label.leader is not None:
        (x0, y0), (x1, y1) = label.leader
        yield _path("leader", f"M{x0 - x:.1f},{-y0 - y:.1f}L{x1 - x:.1f},{-y1 - y:.1f}")


def _mark(info: ParetoInfo, point: PlotPoint) -> Iterator[Markup]:
    """The mark, the paler the less surely it is on the front, in the ring that tells the choice."""
    radius = radius_of(info, point)
    opacity = 0.3 + 0.7 * point.front_probability if point.on_front else 0.12
    yield element("circle", {"class": "ring", "r": f"{radius + 5:.1f}"})
    look = {
        "class": "mark",
        "transform": f"scale({radius:.2f})",
        "fill-opacity": f"{opacity:.2f}",
        "d": shape_path(point.kind, point.is_baseline),
    }
    yield element("path", look)


def _place_labels(plot: Plot, shown: list[tuple[Spot, Spot]]) -> list[Placement]:
    """Where labels go; in the placer's world up is positive."""
    labels = []
    for point, (x, y) in zip(plot.info.points, shown, strict=True):
        words = _label(point) + (f" ↓ {y.text}" if y.off_scale else "")
        at = _across(x.at), -_down(y.at)
        labels.append(Label(at, radius_of(plot.info, point) + 5, _LETTER * len(words), _LINE))
    frame = Box(_across(0), -_down(1), _across(1), -_down(0)).grown(-2)
    bars = [
        Box(_across(x.lo), -_down(y.at), _across(x.hi), -_down(y.at)).grown(1) for x, y in shown
    ] + [Box(_across(x.at), -_down(y.hi), _across(x.at), -_down(y.lo)).grown(1) for x, y in shown]
    return place(labels, [], frame, bars)
