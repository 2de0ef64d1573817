"""Drawing the stages figure; what it shows is decided in ``stages_info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.formatting import sanitize
from compress.report.figures.canvas import (
    LIGHT,
    WIDTH_IN,
    Theme,
    draw_marker,
    drawable,
    new_figure,
    plate,
    style,
    words_around,
)
from compress.report.figures.markers import Marker, color_of, corners_of
from compress.report.figures.stages_data import Panel, PanelPoint, StagesInfo

if TYPE_CHECKING:
    from compress.report.figures.canvas import Axes, Figure

__all__ = ["draw_stages"]

_RADIUS = 0.45  # of a marker
_SPARE = 0.2  # of a panel's height, above and below its scale
# Points that are off the scale.
_DOWN = ((-0.87, -0.5), (0.87, -0.5), (0.0, 1.0))
_UP = ((-0.87, 0.5), (0.87, 0.5), (0.0, -1.0))


def draw_stages(info: StagesInfo, theme: Theme = LIGHT) -> Figure:
    """Four panels over the stages: score, latency, peak memory, size, against the baseline."""
    rows = max(len(info.labels), 1)
    width, height = max(WIDTH_IN, 0.95 * rows), 8.0
    with style(theme):
        figure = new_figure(theme, height, width)
        words_around(figure, info.title, info.subtitle, info.caption, theme)
        panels = figure.subplots(len(info.panels), 1, sharex=True, squeeze=False)[:, 0]
        figure.subplots_adjust(
            left=0.95 / width,
            right=1 - 0.25 / width,
            top=1 - 1.1 / height,
            bottom=1.05 / height,
            hspace=0.42,
        )
        for axes, panel in zip(panels, info.panels, strict=True):
            _draw_panel(axes, panel, theme)
        panels[-1].set_xticks(range(len(info.labels)), _stage_ticks(info, width))
        panels[-1].set_xlim(-0.55, rows - 0.25)
        panels[-1].tick_params(axis="x", length=0, labelsize=9, labelcolor=theme.ink)
    return figure


def _stage_ticks(info: StagesInfo, width_in: float) -> list[str]:
    """Stage names and what they made of the weights, each line cut to its share of the width."""
    columns = max(6, int(width_in * 11 / max(len(info.labels), 1)))
    return [
        drawable("\n".join(sanitize(line, columns) for line in lines))
        for lines in ((label, *marks) for label, marks in zip(info.labels, info.marks, strict=True))
    ]


def _draw_panel(axes: Axes, panel: Panel, theme: Theme) -> None:
    arrow = "↑" if panel.better == "higher" else "↓"
    axes.set_title(
        drawable(f"{panel.title}  {arrow} {panel.better} is better"),
        loc="left",
        fontsize=9.5,
        fontweight="bold",
        pad=7,
    )
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([at for at, _ in panel.ticks], [words for _, words in panel.ticks])
    if not panel.points:
        axes.text(
            0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=theme.muted
        )
        return
    axes.set_ylim(-_SPARE, 1 + _SPARE)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    if panel.baseline is not None:
        level = panel.share(panel.baseline)
        axes.axhline(level, color=theme.muted, linewidth=1, linestyle=(0, (5, 3)))
    for point in panel.points:
        _draw_panel_point(axes, panel, point, theme)


def _draw_panel_point(axes: Axes, panel: Panel, point: PanelPoint, theme: Theme) -> None:
    name, arrow = color_of(point.kind), _DOWN if panel.better == "higher" else _UP
    color, position = theme.colors[name], point.position
    # One that is off the scale stands at the edge, as an arrow that points to where it is.
    value = panel.share_of(point)
    if point.previous is not None:
        start = panel.share(point.previous)
        axes.hlines(start, position - 1, position, color=theme.muted, linewidth=0.6)
        axes.vlines(position, start, value, color=color, linewidth=6, alpha=0.35)
    if not point.off_scale:
        low, high = map(panel.share, point.ci95)
        axes.vlines(position, low, high, color=color, linewidth=1.2)
    marker = Marker(name, arrow if point.off_scale else corners_of(point.kind), _RADIUS)
    draw_marker(axes, (position, value), marker, theme)
    off = ", off the scale" if point.off_scale else ""
    axes.annotate(
        drawable(f"{point.text}{off}\n{point.note}"),
        (position, value),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        zorder=5,
        bbox=plate(theme),
    )
