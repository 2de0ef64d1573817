"""Drawing the Pareto figure with matplotlib; where everything lies is decided in the layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compress.formatting import sanitize
from compress.report.figures.canvas import (
    LARGEST,
    LIGHT,
    POINT,
    Theme,
    draw_legends,
    draw_marker,
    drawable,
    extent,
    new_figure,
    plate,
    style,
    words_around,
)
from compress.report.figures.labels import Box
from compress.report.figures.markers import LegendBlock, legend_of
from compress.report.figures.pareto_data import ParetoInfo
from compress.report.figures.pareto_layout import Frame, ParetoLayout, layout_of, place_labels

if TYPE_CHECKING:
    from compress.report.figures.canvas import Axes, Figure, Text

__all__ = ["draw_pareto"]

_HEIGHT, _BELOW, _ABOVE = 6.2, 1.1, 1.32  # in inches
_LINE, _TITLE_LINES = 0.205, 1.3  # of a legend
_LEFT, _RIGHT = 0.085, 0.775


def draw_pareto(info: ParetoInfo, theme: Theme = LIGHT) -> Figure:
    """The metric against latency: front as steps, intervals, budget, sizes, labeled rows."""
    with style(theme):
        layout = layout_of(info) if info.points else None
        blocks = legend_of(info, with_budget=layout.has_limits) if layout else []
        tall = _height(blocks)
        figure = new_figure(theme, tall)
        caption = " · ".join([info.caption, *_footnotes(info, layout)])
        words_around(figure, info.title, info.subtitle, caption, theme)
        above = _ABOVE if layout and layout.across.ratios else 0.95  # room for the axis of ratios
        height = (tall - _BELOW - above) / tall
        axes = figure.add_axes((_LEFT, _BELOW / tall, _RIGHT - _LEFT, height))
        if layout is None:
            words = "No row has both a score and a latency."
            axes.set_axis_off()
            axes.text(0.5, 0.5, words, ha="center", va="center", color=theme.muted, fontsize=11)
            return figure
        _draw_axes(axes, layout, theme)
        _draw_step_line(axes, layout, theme)
        taken = _draw_limits(axes, layout, theme)
        taken += _draw_curves(axes, layout, theme)
        _draw_points(axes, layout, theme)
        _draw_labels(axes, layout, theme, taken)
        draw_legends(figure, axes, blocks, theme)
    return figure


def _height(blocks: Sequence[LegendBlock]) -> float:
    """The figure's height in inches: for many runs as much as their legend needs."""
    lines = sum(len(keys) + _TITLE_LINES for _, keys in blocks)
    return max(_HEIGHT, _BELOW + _ABOVE + _LINE * lines)


def _footnotes(info: ParetoInfo, layout: ParetoLayout | None) -> list[str]:
    notes = list(info.missing)
    if not info.runs and any(point.ties for point in info.points):
        notes.insert(0, f"≈: cannot be told apart in {sanitize(info.metric, 40)} and speed")
    if layout and not all(layout.named):
        notes.append("rows without a label are in the table")
    for axis in (layout.across, layout.up) if layout else ():
        quantity = axis.quantity
        limit = info.limits.get(quantity.name)
        if limit is not None and axis.limit is None:
            words = quantity.unit.shown(limit)
            notes.append(f"the {quantity.title} budget, {words}, is beyond the scale")
    return notes


def _draw_axes(axes: Axes, layout: ParetoLayout, theme: Theme) -> None:
    """Data coordinates are the layout's shares: 0 is left and up."""
    x, y = layout.across, layout.up
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_xticks([at for at, _ in x.ticks], [words for _, words in x.ticks])
    axes.set_yticks([at for at, _ in y.ticks], [words for _, words in y.ticks])
    axes.set_xlabel(drawable(f"← {x.cue} · {x.title}"), fontsize=10, labelpad=6)
    axes.set_ylabel(drawable(f"{y.title} · {y.cue} →"), fontsize=10, labelpad=6)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, labelsize=9)
    if not x.ratios:
        return
    places = [at for at, _ in x.ratios]
    axes.vlines(places, 0, 1, theme.grid, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.6)
    top = axes.secondary_xaxis("top")
    top.set_xticks(places, [words for _, words in x.ratios])
    top.tick_params(length=3, labelsize=9)
    top.spines["top"].set(visible=True, color=theme.grid)
    top.set_xlabel(x.relative, fontsize=9, color=theme.muted, labelpad=5)


def _draw_step_line(axes: Axes, layout: ParetoLayout, theme: Theme) -> None:
    line = layout.step_line()
    if line:
        axes.fill(*zip(*line, (1, 1), strict=True), color=theme.muted, alpha=0.06, linewidth=0)
        axes.plot(*zip(*line, strict=True), color=theme.muted, linewidth=1.3, zorder=2)


def _draw_limits(axes: Axes, layout: ParetoLayout, theme: Theme) -> list[Box]:
    """Limits as dashed lines, what lies beyond them hatched; returns the boxes of their names."""
    beyond: dict[str, Any] = {"facecolor": "none", "hatch": "////", "edgecolor": theme.grid}
    line: dict[str, Any] = {"color": theme.ink, "linewidth": 1.0, "linestyle": (0, (5, 3))}
    name: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5}
    right = layout.affordable[0]
    names = []
    if layout.across.limit:
        axes.axvspan(right, 1, linewidth=0, zorder=0.5, **beyond)
        axes.axvline(right, **line)
        words = drawable(f"budget {layout.across.limit[1]}")
        places: list[_Place] = [((right, y), (-4, 0), "right", va) for y, va in _DOWN]
        places += [((right, y), (4, 0), "left", va) for y, va in _DOWN]
        names.append(_limit_name(axes, layout, words, places, {**name, "rotation": 90}))
    if layout.up.limit:
        down, words = layout.up.limit
        axes.fill_between([0, right], down, 1, linewidth=0, zorder=0.5, **beyond)
        axes.axhline(down, **line)
        words = drawable(f"budget {words}")
        places = [((x, down), (4 - 8 * x, 3), ha, "bottom") for x, ha in _ACROSS]
        places += [((x, down), (4 - 8 * x, -3), ha, "top") for x, ha in _ACROSS]
        names.append(_limit_name(axes, layout, words, places, name))
    return [_from_corner(axes, extent(each)) for each in names]


def _draw_curves(axes: Axes, layout: ParetoLayout, theme: Theme) -> list[Box]:
    """Curves with what is chosen on each as a cross; returns the boxes of their names."""
    names = []
    for curve, line in zip(layout.info.curves, layout.curve_lines(), strict=True):
        *places, (x, y) = line
        color = theme.colors["kind-other"]
        axes.plot(*zip(*places, strict=True), color=color, linewidth=1.8, zorder=2.5)
        axes.plot([x], [y], marker="X", markersize=9, color=color, markeredgecolor=theme.ink)
        look: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": 9.5, "zorder": 6}
        words = axes.annotate(
            drawable(curve.label),
            (x, y),
            (7, -6),
            textcoords="offset points",
            bbox=plate(theme),
            **look,
        )
        names.append(_from_corner(axes, extent(words)))
    return names


#: Where along a budget's line its name may stand, the best place first.
_ACROSS = ((1.0, "right"), (0.0, "left"), (0.5, "center"), (0.75, "center"), (0.25, "center"))
_DOWN = ((0.0, "top"), (1.0, "bottom"), (0.5, "center"), (0.25, "center"), (0.75, "center"))
_Place = tuple[tuple[float, float], tuple[float, float], str, str]


def _limit_name(
    axes: Axes, layout: ParetoLayout, words: str, places: Sequence[_Place], look: Mapping[str, Any]
) -> Text:
    """The name of a budget's line at the first of ``places`` that covers no marker."""
    area = axes.get_window_extent()
    frame = Frame(0, 0, area.width * POINT, area.height * POINT, LARGEST)
    markers = layout.marker_boxes(frame)
    shown = None
    for at, offset, ha, va in places:
        if shown is not None:
            shown.remove()
        shown = axes.annotate(words, at, offset, ha=ha, va=va, **look)
        box = _from_corner(axes, extent(shown))
        if all(box.overlap(marker) == 0 for marker in markers):
            break
    assert shown is not None
    return shown


def _from_corner(axes: Axes, box: Box) -> Box:
    """A box of the figure in points from the frame's upper left corner, downwards."""
    corner = axes.get_window_extent()
    x0, y1 = corner.x0 * POINT, corner.y1 * POINT
    return Box(box.x0 - x0, y1 - box.y1, box.x1 - x0, y1 - box.y0)


def _draw_points(axes: Axes, layout: ParetoLayout, theme: Theme) -> None:
    for (x, y), marker in zip(layout.shown, layout.markers, strict=True):
        color = theme.colors[marker.color]
        axes.hlines(y.at, x.lo, x.hi, color, linewidth=1.0, zorder=3)
        axes.vlines(x.at, y.lo, y.hi, color, linewidth=1.0, zorder=3)
        draw_marker(axes, (x.at, y.at), marker, theme)


def _draw_labels(axes: Axes, layout: ParetoLayout, theme: Theme, taken: list[Box]) -> None:
    """Labels are placed in points from the frame's upper left corner."""
    area = axes.get_window_extent()
    frame = Frame(0, 0, area.width * POINT, area.height * POINT, LARGEST)
    named = [number for number, has_label in enumerate(layout.named) if has_label]
    texts = [_label(axes, layout, number, theme) for number in named]
    boxes = [extent(text) for text in texts]
    sizes = [(box.x1 - box.x0, box.y1 - box.y0) for box in boxes]
    placed = place_labels(layout, frame, sizes, taken, named)
    for text, spot in zip(texts, placed, strict=True):
        text.set_position((spot.box.x0 / frame.right, spot.box.y1 / frame.bottom))
        if spot.leader is not None:
            ends = [(x / frame.right, y / frame.bottom) for x, y in spot.leader]
            axes.plot(*zip(*ends, strict=True), color=theme.ink, linewidth=0.6, zorder=3.5)


def _label(axes: Axes, layout: ParetoLayout, number: int, theme: Theme) -> Text:
    """The text of a point's label, whose place is still open."""
    point, words = layout.info.points[number], layout.full_labels[number]
    ship = (" (wins)" if layout.info.runs else " (ship)") if point.is_recommended else ""
    lines = drawable("\n".join([f"{words}{ship}", *point.notes]))
    text = axes.text(0, 0, lines, fontsize=9.5, zorder=6, va="bottom", bbox=plate(theme))
    text.set_gid(f"label-{number}")
    text.set_fontweight("bold" if ship else "normal")
    return text
