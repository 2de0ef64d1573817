"""How rows follow their controls, as inline SVG panels and the table of the same numbers."""

from __future__ import annotations

from collections.abc import Iterator

from compress.formatting import sanitize
from compress.report.figures.controls_data import (
    TEACHER,
    ControlLine,
    ControlPanel,
    ControlsInfo,
    controls_info,
)
from compress.report.page.markup import DataTable, Markup, element
from compress.report.page.plots.panels import DrawnPanel, PanelFigure
from compress.report.page.target import TargetReport

__all__ = ["controls_data"]

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 8, 36
_KEY = 16  # the height of a line of the legend


def controls_data(target: TargetReport) -> PanelFigure | None:
    """The figure of a target's rows; ``None`` where nets have no controls."""
    info = controls_info(target.record, target.name)
    if info is None:
        return None
    panels = [
        DrawnPanel(f"{panel.title}, over {panel.control}", "↑ is nearer", _drawing(panel, info))
        for panel in info.panels
    ]
    return PanelFigure(info.title, panels, f"{info.subtitle}. {info.caption}", _table(info))


def _drawing(panel: ControlPanel, info: ControlsInfo) -> Markup:
    low, high = panel.ends
    first, last = panel.span

    def place(value: float, db: float) -> tuple[float, float]:
        share = (value - first) / (last - first) if last > first else 0.5
        across = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        return across, _TOP + (high - db) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts: list[Markup] = []
    for tick in panel.ticks:
        y = place(first, tick)[1]
        path = f"M{_LEFT},{y:.1f}H{_WIDTH - _RIGHT}"
        parts.append(element("path", {"class": "line", "d": path}))
        look = {"class": "end", "x": _LEFT - 6, "y": f"{y + 4:.1f}"}
        parts.append(element("text", look, f"{tick:g}"))
    for value in panel.values:
        ends = {first: "start", last: "end"}
        look = {"x": f"{place(value, low)[0]:.1f}", "y": _HEIGHT - _BOTTOM + 16}
        parts.append(
            element("text", {**look, "text-anchor": ends.get(value, "middle")}, f"{value:.4g}")
        )
    for line in panel.lines:
        points = [place(*point) for point in line.points]
        intervals = [(place(first, lo)[1], place(first, hi)[1]) for lo, hi in line.intervals]
        parts += _line(points, intervals, _look(line, info))
    under = {"x": (_LEFT + _WIDTH - _RIGHT) / 2, "y": _HEIGHT - 4, "class": "middle"}
    parts.append(element("text", under, panel.control))
    parts += _legend(panel, info)
    height = _HEIGHT + _KEY * len(panel.lines) + 6
    frame = {"class": "step follow", "viewBox": f"0 0 {_WIDTH} {height}", "role": "img"}
    return element("svg", {**frame, "aria-label": sanitize(panel.alt, 2000)}, *parts)


def _look(line: ControlLine, info: ControlsInfo) -> str:
    return TEACHER if line.name == TEACHER else f"run-{info.names.index(line.name) % 12}"


def _line(
    points: list[tuple[float, float]], intervals: list[tuple[float, float]], look: str
) -> Iterator[Markup]:
    said = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield element("polyline", {"class": f"curve-of {look}", "points": said})
    for (x, y), (low, high) in zip(points, intervals, strict=False):
        yield element("path", {"class": f"bars {look}", "d": f"M{x:.1f},{low:.1f}V{high:.1f}"})
        dot = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": 3}
        yield element("circle", {"class": f"mark {look}", **dot})


def _legend(panel: ControlPanel, info: ControlsInfo) -> Iterator[Markup]:
    for number, line in enumerate(panel.lines):
        y = _HEIGHT + _KEY * number + 10
        key = {"class": f"curve-of {_look(line, info)}", "points": f"{_LEFT},{y} {_LEFT + 22},{y}"}
        yield element("polyline", key)
        yield element("text", {"x": _LEFT + 30, "y": y + 4}, line.name)


def _table(info: ControlsInfo) -> DataTable:
    heads, lines = ["row"], {name: [name] for name in (*info.names, TEACHER)}
    for panel in info.panels:
        short = "to teacher" if panel.title.startswith("dB to the teacher") else "to input"
        heads += [f"{short}, {panel.control} {value:g}" for value in panel.values]
        known = {line.name: dict(line.points) for line in panel.lines}
        for name, cells in lines.items():
            own = known.get(name, {})
            cells += [f"{own[value]:.2f}" if value in own else "-" for value in panel.values]
    return DataTable(heads, list(lines.values()), "PSNR in dB at each value of the controls")
