"""The layers of a net as inline SVG: bars in the page's own colors, light and dark; no library."""

from __future__ import annotations

import math

from compress.report.figures.layers_data import Bars, LayersInfo
from compress.report.figures.ticks import linear_ticks, thinned
from compress.report.page.markup import Markup, element

__all__ = ["layers_svg"]

_WIDTH, _NAMES, _RIGHT, _GAP = 960, 250, 12, 26
_TOP, _BOTTOM = 40, 24
_BAR, _BETWEEN = 7, 7


def layers_svg(info: LayersInfo) -> Markup:
    """The figure of :func:`compress.report.figures.layers.draw_layers`, for the page."""
    series = info.panels[0].series
    row = _BAR * max(1, len(series)) + _BETWEEN
    height = _TOP + row * len(info.layers) + _BOTTOM
    count = len(info.panels)
    width = (_WIDTH - _NAMES - _RIGHT - _GAP * (count - 1)) / count
    names = [
        element(
            "text",
            {"x": _NAMES - 8, "y": f"{_TOP + row * (place + 0.5) + 2:.1f}", "text-anchor": "end"},
            name,
        )
        for place, name in enumerate(info.layers)
    ]
    panels = [
        _panel(panel, _NAMES + number * (width + _GAP), width, row, height)
        for number, panel in enumerate(info.panels)
    ]
    label = f"{info.title}: {info.subtitle}"
    box = {"class": "layers", "viewBox": f"0 0 {_WIDTH} {height}", "role": "img"}
    return element("svg", {**box, "aria-label": label}, *names, *panels)


def _panel(panel: Bars, left: float, width: float, row: int, height: int) -> Markup:
    low, high, ticks = _scale(panel)

    def across(value: float) -> float:
        if panel.is_log:
            value = math.log(max(value, low) / low) / math.log(high / low)
        else:
            value = (value - low) / (high - low)
        return left + min(1.0, max(0.0, value)) * width

    ground, zero = height - _BOTTOM, across(low if panel.is_log else 0.0)
    parts = [element("text", {"class": "title", "x": f"{left:.1f}", "y": 14}, panel.title)]
    arrow = "→" if panel.better == "more" else "←"
    said = f"{arrow} {panel.better} is better"
    parts.append(element("text", {"x": f"{left:.1f}", "y": 30}, said))
    for tick in ticks:
        at = f"{across(tick):.1f}"
        parts.append(element("path", {"class": "line", "d": f"M{at},{_TOP - 4}V{ground}"}))
        words = {"x": at, "y": ground + 16, "text-anchor": "middle"}
        parts.append(element("text", words, f"{tick:.4g}"))
    for number, own in enumerate(panel.values):
        for place, value in enumerate(own):
            if value is None:
                continue
            top = _TOP + row * place + _BETWEEN / 2 + _BAR * number
            ends = sorted((zero, across(value)))
            box = {"x": f"{ends[0]:.1f}", "y": f"{top:.1f}", "height": _BAR - 1}
            look = {"class": f"bar run-{number % 12}", "width": f"{ends[1] - ends[0]:.1f}"}
            parts.append(element("rect", {**look, **box}))
            interval = panel.intervals[number][place] if panel.intervals else None
            if interval is not None:
                start, end = map(across, interval)
                path = f"M{start:.1f},{top + (_BAR - 1) / 2:.1f}H{end:.1f}"
                parts.append(element("path", {"class": "ends", "d": path}))
    parts.append(element("path", {"class": "frame", "d": f"M{zero:.1f},{_TOP - 4}V{ground}"}))
    return element("g", {}, *parts)


def _scale(panel: Bars) -> tuple[float, float, list[float]]:
    known = [value for own in panel.values for value in own if value is not None]
    known += [end for own in panel.intervals for ends in own if ends for end in ends]
    if panel.is_log:
        positive = [value for value in known if value > 0] or [1.0]
        low, high = min(positive) / 3, max(positive) * 2
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        return low, high, thinned([10.0**k for k in range(first, last + 1)], 4)
    low, high = min([0.0, *known]), max([0.0, *known])
    high = high if high > low else low + 1.0
    return low, high, linear_ticks(low, high, 4)
