"""Drawing the stages figure; what it shows is decided in ``stages_info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.formatting import sanitize
from compress.measure.quantities import quantity_named
from compress.report.figures.canvas import (
    LIGHT,
    WIDTH_IN,
    Theme,
    color_of,
    drawable,
    new_figure,
    plate,
    shape_of,
    style,
    words_around,
)
from compress.report.figures.stages_data import Panel, PanelPoint, StagesInfo
from compress.report.figures.ticks import binary_ticks, brief, log_ticks, thinned, tick_score

if TYPE_CHECKING:
    from compress.report.figures.canvas import Axes, Figure

__all__ = ["draw_stages"]


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
            _draw_panel(axes, panel, info, theme)
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


def _draw_panel(axes: Axes, panel: Panel, info: StagesInfo, theme: Theme) -> None:
    arrow = "↑" if panel.better == "higher" else "↓"
    axes.set_title(
        drawable(f"{panel.title}  {arrow} {panel.better} is better"),
        loc="left",
        fontsize=9.5,
        fontweight="bold",
        pad=7,
    )
    axes.tick_params(axis="x", length=0)
    if not panel.points:
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=theme.muted
        )
        return
    _set_panel_scale(axes, panel, info.metric)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    if panel.baseline is not None:
        axes.axhline(panel.baseline, color=theme.muted, linewidth=1, linestyle=(0, (5, 3)))
    for point in panel.points:
        _draw_panel_point(axes, point, theme)


def _draw_panel_point(axes: Axes, point: PanelPoint, theme: Theme) -> None:
    color = color_of(point.kind, theme)
    low, high = axes.get_ylim()
    # One that is off the scale stands at the edge, as an arrow that points to where it is.
    value = low + 0.17 * (high - low) if point.off_scale else point.value
    if point.previous is not None:
        start = min(max(point.previous, low), high)
        axes.hlines(start, point.position - 1, point.position, color=theme.muted, linewidth=0.6)
        axes.vlines(point.position, start, value, color=color, linewidth=6, alpha=0.35)
    if not point.off_scale:
        below, above = max(0.0, value - point.ci95[0]), max(0.0, point.ci95[1] - value)
        axes.errorbar(
            point.position,
            value,
            yerr=[[below], [above]],
            fmt="none",
            ecolor=color,
            elinewidth=1.2,
        )
    marker = "v" if point.off_scale else shape_of(point.kind)
    axes.scatter(
        [point.position], [value], s=48, marker=marker, color=color, zorder=4, clip_on=False
    )
    off = ", off the scale" if point.off_scale else ""
    axes.annotate(
        drawable(f"{point.text}{off}\n{point.note}"),
        (point.position, value),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        zorder=5,
        bbox=plate(theme),
    )


def _set_panel_scale(axes: Axes, panel: Panel, metric: str) -> None:
    on_scale = [p for p in panel.points if not p.off_scale]
    ends = [end for p in on_scale for end in (*p.ci95, p.value)]
    low, high = min(ends), max(ends)
    if panel.name == "accuracy":
        pad = 0.25 * (high - low) or 0.02 * abs(high) or 0.01
        axes.set_ylim(low - pad, high + pad)
        span = high - low + 2 * pad
        axes.yaxis.set_major_formatter(lambda value, _: tick_score(metric, value, span))
        axes.locator_params(axis="y", nbins=4)
        return
    low, high = max(low, 1e-9), max(high, 1e-9)
    pad = max((high / low) ** 0.25, 1.3)
    axes.set_yscale("log")
    axes.set_ylim(low / pad, high * pad)
    unit = quantity_named(panel.name).unit
    ticks = thinned((binary_ticks if unit.binary else log_ticks)(low / pad, high * pad), 4)
    axes.set_yticks(ticks, [brief(unit.shown(tick)) for tick in ticks])
    axes.minorticks_off()
