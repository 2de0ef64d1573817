"""The Pareto figure on the page: its section, an SVG that needs no script, and data for the script.

Where everything lies is decided in the layout. The script moves the elements made here when axes or
sizes change: a row of the plot is one ``<g>`` that keyboards can reach, whose parts are placed
relative to its middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any

from compress.formatting import sanitize, times
from compress.measure.quantities import quantities_of
from compress.report.figures.axes import PlotAxis, Spot
from compress.report.figures.labels import Placement
from compress.report.figures.markers import legend_of
from compress.report.figures.pareto_data import SHOWN_FIRST, ParetoInfo, PlotPoint
from compress.report.figures.pareto_layout import Frame, ParetoLayout, Xy, place_labels
from compress.report.page.markup import Markup, element
from compress.report.page.plots.markers import LARGEST, legend, marker_parts
from compress.report.page.target import TargetReport

__all__ = ["figure_data", "pareto_data", "pareto_script_data", "pareto_svg"]

_WIDTH, _HEIGHT = 760, 440
#: Space around the plot's frame in pixels; the script keeps it at every width.
MARGINS = {"left": 62, "top": 46, "right": 18, "bottom": 50}
_FRAME = Frame(
    left=MARGINS["left"],
    top=MARGINS["top"],
    right=_WIDTH - MARGINS["right"],
    bottom=_HEIGHT - MARGINS["bottom"],
    largest=LARGEST,
)
_LETTER, _LINE = 6.7, 15.0  # of a label, in pixels

Fact = tuple[str, str]


def pareto_data(target: TargetReport) -> dict[str, object]:
    """The plot of a target's rows."""
    return figure_data(target.layout, with_sliders=target.choice is not None)


def figure_data(layout: ParetoLayout | None, *, with_sliders: bool) -> dict[str, object]:
    """A plot, its legend and how to read it; a plot of ``None`` where there is nothing to plot.

    ``with_sliders``: whether there are sliders, which may bring a line of the budget into sight.
    """
    if layout is None:
        return {"plot": None}
    info = layout.info
    return {
        "plot": pareto_svg(layout),
        "legend": legend(legend_of(info, with_budget=with_sliders or layout.has_limits)),
        "how_to_read": info.legend,
        "caption": info.caption,
        "missing": " ".join(f"{words[0].upper()}{words[1:]}." for words in info.missing),
    }


def pareto_script_data(layout: ParetoLayout) -> dict[str, Any]:
    """The plot for the page's script: shares of a width or height, and words.

    ``corners`` has, by the axes across and up, the points at which the best attained line turns.
    """
    corners: dict[str, dict[str, list[int]]] = {name: {} for name in layout.axes}
    for across, up in permutations(layout.axes, 2):
        corners[across][up] = layout.corners(across, up)
    return {
        "margins": MARGINS,
        "shown": list(SHOWN_FIRST),
        "axes": {name: _axis_data(axis) for name, axis in layout.axes.items()},
        "corners": corners,
        "points": [
            {
                "row": point.row,
                "label": label,
                "radius": round(LARGEST * marker.radius, 2),
                "front": point.on_front,
                "facts": _facts(layout.info, point),
                "at": {name: _spot_data(spot) for name, spot in spots.items()},
            }
            for point, label, marker, spots in zip(
                layout.info.points, layout.labels, layout.markers, layout.spots, strict=True
            )
        ],
    }


def _axis_data(axis: PlotAxis) -> dict[str, Any]:
    return {
        "title": axis.title,
        "cue": axis.cue,
        "relative": axis.relative,
        "limit": _share(axis.limit[0]) if axis.limit else None,
        "ticks": [[_share(at), words] for at, words in axis.ticks],
        "ratios": [[_share(at), words] for at, words in axis.ratios],
    }


def _spot_data(spot: Spot) -> list[Any]:
    ends = [_share(spot.at), _share(spot.lo), _share(spot.hi)]
    return [*ends, spot.text] if spot.off_scale else ends


def _share(value: float) -> float:
    return round(value, 4)


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
        baseline_s = info.baseline.get(quantity.name) if quantity.name == "latency_p50_s" else None
        if baseline_s is not None and found.value > 0:
            facts.append(("speed", f"{times(baseline_s / found.value)} the baseline's"))
    front = "not beaten" if point.on_front else "beaten by another row"
    facts.append(
        ("front", f"{front}; not dominated in {100 * point.front_probability:.0f} % of draws")
    )
    if point.ties:
        tied = f"in {sanitize(info.metric, 40)} and speed not told from"
        facts.append((tied, ", ".join(point.ties[:6])))
    return facts


def pareto_svg(layout: ParetoLayout) -> Markup:
    """The figure on its first axes, with text, intervals and budget, at a fixed width."""
    sizes = [(_LETTER * len(label), _LINE) for label in layout.full_labels]
    places = place_labels(layout, _FRAME, sizes)
    step_line = [_FRAME.at(*share) for share in layout.step_line()]
    closed = [*step_line, (_FRAME.right, _FRAME.bottom)] if step_line else []
    frame = {
        "class": "pareto",
        "viewBox": f"0 0 {_WIDTH} {_HEIGHT}",
        "role": "group",
        "aria-label": sanitize(layout.info.title, 200),
    }
    return element(
        "svg",
        frame,
        element("g", {"class": "grid", "aria-hidden": "true"}, *_grid(layout.across, layout.up)),
        _path("shade", _line(closed)),
        _path("step-line", _line(step_line)),
        element("g", {"class": "limits", "aria-hidden": "true"}, "", *_limits(layout)),
        element("g", {"class": "rows"}, *(_row(layout, *each) for each in enumerate(places))),
    )


def _grid(x: PlotAxis, y: PlotAxis) -> Iterator[Markup]:
    left, top, right, bottom = _FRAME.left, _FRAME.top, _FRAME.right, _FRAME.bottom
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
    yield _text((left + right) / 2, _HEIGHT - 8, f"← {x.cue} · {x.title}", "middle title")
    yield _text(6, 15, f"↑ {y.cue} · {y.title}", "start title")


def _across(at: float) -> float:
    return _FRAME.at(at, 0)[0]


def _down(at: float) -> float:
    return _FRAME.at(0, at)[1]


def _path(look: str, path: str) -> Markup:
    return element("path", {"class": look, "d": path})


def _line(places: Iterable[Xy]) -> str:
    pairs = [f"{x:.1f},{y:.1f}" for x, y in places]
    return f"M{'L'.join(pairs)}" if pairs else ""


def _text(x: float, y: float, words: str, look: str) -> Markup:
    place = {"class": look, "x": f"{x:.1f}", "y": f"{y:.1f}"}
    return element("text", place, sanitize(words, 400))


def _limits(layout: ParetoLayout) -> Iterator[Markup]:
    """The lines of the budget, and what lies beyond them."""
    left, top, right, bottom = _FRAME.left, _FRAME.top, _FRAME.right, _FRAME.bottom
    if layout.across.limit:
        x = _across(layout.across.limit[0])
        yield _path("outside", f"M{x:.1f},{top}H{right}V{bottom}H{x:.1f}Z")
        yield _path("limit", f"M{x:.1f},{top}V{bottom}")
    if layout.up.limit:
        y = _down(layout.up.limit[0])
        yield _path("outside", f"M{left},{y:.1f}H{right}V{bottom}H{left}Z")
        yield _path("limit", f"M{left},{y:.1f}H{right}")


def _row(layout: ParetoLayout, number: int, place: Placement) -> Markup:
    """One row: a group at its place, whose parts are relative to its middle."""
    point, marker = layout.info.points[number], layout.markers[number]
    across, down = layout.shown[number]
    x, y = _FRAME.at(across.at, down.at)
    classes = ["row", marker.color] + ["ship"] * marker.ringed
    said = "; ".join(f"{name} {words}" for name, words in _facts(layout.info, point))
    bars = (
        f"M{_across(across.lo) - x:.1f},0H{_across(across.hi) - x:.1f}"
        f"M0,{_down(down.lo) - y:.1f}V{_down(down.hi) - y:.1f}"
    )
    beside = {"class": "name", "x": f"{place.box.x0 - x:.1f}", "y": f"{place.box.y1 - y - 4:.1f}"}
    leaders = [place.leader] if place.leader else []
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
        *(_path("leader", _line(((a - x, b - y), (c - x, d - y)))) for (a, b), (c, d) in leaders),
        *marker_parts(marker),
        element("text", beside, sanitize(layout.full_labels[number], 60)),
    )
