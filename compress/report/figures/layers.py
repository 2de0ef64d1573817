"""Drawing the figure of layers; what it shows is decided in ``layers_data``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from compress.report.figures.canvas import (
    LIGHT,
    WIDTH_IN,
    Theme,
    drawable,
    extent,
    new_figure,
    style,
    words_around,
)
from compress.report.figures.layers_data import Bars, LayersInfo
from compress.report.figures.ticks import thinned

if TYPE_CHECKING:
    from compress.report.figures.canvas import Axes, Figure

__all__ = ["draw_layers"]

_TOP, _BOTTOM = 1.5, 0.75  # inches above and below the bars
_BAR = 0.085  # of one series
_GAP = 0.09  # between layers
_SHARE = 0.45  # of the width, that names may take at most


def draw_layers(info: LayersInfo, theme: Theme = LIGHT) -> Figure:
    """Bars for every layer, a panel for each quantity side by side."""
    series = info.panels[0].series
    row = _BAR * max(2, len(series)) + _GAP
    height = _TOP + _BOTTOM + row * max(len(info.layers), 3)
    with style(theme):
        figure = new_figure(theme, height)
        words_around(figure, info.title, info.subtitle, info.caption, theme)
        panels = figure.subplots(1, len(info.panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(panels, info.panels, strict=True):
            _draw_bars(axes, panel, theme, thickness=_BAR / row)
        first = panels[0]
        first.set_yticks(range(len(info.layers)), [drawable(name) for name in info.layers])
        first.set_ylim(len(info.layers) - 0.45, -0.55)
        first.tick_params(axis="y", length=0, labelsize=8, labelcolor=theme.ink)
        for axes in panels[1:]:
            axes.tick_params(axis="y", length=0)
        widest = max((_width_in(label) for label in first.get_yticklabels()), default=0.0)
        left = min(widest + 0.35, _SHARE * WIDTH_IN)
        figure.subplots_adjust(
            left=left / WIDTH_IN,
            right=1 - 0.25 / WIDTH_IN,
            top=1 - _TOP / height,
            bottom=_BOTTOM / height,
            wspace=0.12,
        )
        figure.legend(
            handles=first.containers,
            labels=[drawable(name) for name in series],
            loc="upper left",
            bbox_to_anchor=(0.2 / WIDTH_IN - 0.005, 1 - 0.68 / height),
            ncols=min(6, len(series)),
            frameon=False,
            fontsize=9,
            borderpad=0.2,
        )
    return figure


def _draw_bars(axes: Axes, panel: Bars, theme: Theme, thickness: float) -> None:
    arrow = "→" if panel.better == "more" else "←"
    words = drawable(f"{panel.title}\n{arrow} {panel.better} is better")
    axes.set_title(words, loc="left", fontsize=9, fontweight="bold", pad=7)
    known = [value for own in panel.values for value in own if value is not None]
    if panel.is_log and known:
        low, high = min(known) / 3, max(known) * 2
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        ticks = thinned([10.0**k for k in decades], 5) or [low]
        axes.set_xticks(ticks, [f"{tick:.0e}" if tick < 0.01 else f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    for number, own in enumerate(panel.values):
        offset = (number - (len(panel.values) - 1) / 2) * thickness
        axes.barh(
            [place + offset for place in range(len(own))],
            [0.0 if value is None else value for value in own],
            height=0.9 * thickness,
            color=theme.colors[f"run-{number % 12}"],
            linewidth=0,
        )
        if panel.intervals:
            for place, ends in enumerate(panel.intervals[number]):
                if ends is not None:
                    axes.hlines(place + offset, *ends, color=theme.ink, linewidth=0.7)
    axes.grid(axis="x", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=8)
    if not panel.is_log:
        axes.axvline(0, color=theme.muted, linewidth=0.8)
        axes.locator_params(axis="x", nbins=5)


def _width_in(text: object) -> float:
    box = extent(text)  # type: ignore[arg-type]
    return (box.x1 - box.x0) / 72
