"""Drawing the figure of controls; what it shows is decided in ``controls_data``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.report.figures.canvas import (
    LIGHT,
    WIDTH_IN,
    Theme,
    drawable,
    new_figure,
    style,
    words_around,
)
from compress.report.figures.controls_data import TEACHER, ControlPanel, ControlsInfo

if TYPE_CHECKING:
    from compress.report.figures.canvas import Axes, Figure

__all__ = ["draw_controls"]

_ROW, _TOP, _BOTTOM = 2.7, 1.35, 1.0  # inches: of a control's panels, above and below them


def draw_controls(info: ControlsInfo, theme: Theme = LIGHT) -> Figure:
    """Two panels for each control: PSNR against the teacher, and against the input."""
    count = len(info.panels) // 2
    height = _TOP + _BOTTOM + _ROW * count
    with style(theme):
        figure = new_figure(theme, height)
        words_around(figure, info.title, info.subtitle, info.caption, theme)
        grid = figure.subplots(count, 2, squeeze=False)
        figure.subplots_adjust(
            left=0.6 / WIDTH_IN,
            right=1 - 0.25 / WIDTH_IN,
            top=1 - _TOP / height,
            bottom=_BOTTOM / height,
            wspace=0.16,
            hspace=0.55,
        )
        for axes, panel in zip(grid.flat, info.panels, strict=True):
            _draw_panel(axes, panel, info, theme)
        handles, labels = grid[0][1].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.2 / WIDTH_IN, 1 - 0.68 / height),
            ncols=4,
            frameon=False,
            fontsize=8.5,
            borderpad=0,
            borderaxespad=0,
        )
    return figure


def _draw_panel(axes: Axes, panel: ControlPanel, info: ControlsInfo, theme: Theme) -> None:
    axes.set_title(drawable(panel.title), loc="left", fontsize=9.5, fontweight="bold", pad=7)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylim(*panel.ends)
    axes.set_yticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
    axes.set_xticks(panel.values, [f"{value:.4g}" for value in panel.values])
    axes.set_xlabel(drawable(panel.control), fontsize=9)
    for line in panel.lines:
        across, up = zip(*line.points, strict=True)
        if line.name == TEACHER:
            dashes = (0, (4, 3))
            axes.plot(across, up, color=theme.muted, linestyle=dashes, linewidth=1.2, label=TEACHER)
            continue
        color = theme.colors[f"run-{info.names.index(line.name) % 12}"]
        axes.plot(across, up, color=color, linewidth=1.5, marker="o", markersize=3.5,
                  label=drawable(line.name))  # fmt: skip
        for value, (low, high) in zip(across, line.intervals, strict=True):
            axes.vlines(value, low, high, color=color, linewidth=0.8, alpha=0.6)
