"""What each stage bought, as inline SVG panels and the table of the same numbers."""

from __future__ import annotations

from collections.abc import Iterator

from compress.formatting import sanitize
from compress.measure.quantities import quantity_named
from compress.report.figures.markers import color_of, corners_of
from compress.report.figures.stages_data import Panel, PanelPoint, StagesInfo, stages_info
from compress.report.page.markup import DataTable, Markup, element
from compress.report.page.plots.markers import shape_path
from compress.report.page.plots.panels import DrawnPanel, PanelFigure
from compress.report.page.target import TargetReport

__all__ = ["steps_data", "steps_panels", "steps_table"]

# In pixels, for a phone's width; panels stand beside one another where there is room.
_WIDTH, _LINE, _TOP = 360, 30, 8
_LEFT, _RIGHT = 104, 212  # between these are the bars
_NAME = 15  # letters that fit before them


def steps_data(target: TargetReport) -> PanelFigure:
    """What each stage bought, drawn and as a table."""
    info = stages_info(target.record, target.name)
    how_to_read = f"{sanitize(info.legend, 1000)} {sanitize(info.caption, 1000)}."
    return PanelFigure("What each stage bought", steps_panels(info), how_to_read, steps_table(info))


def steps_panels(info: StagesInfo) -> list[DrawnPanel]:
    """A panel for each quantity that was measured: bars from row to row, with words."""
    return [_panel(info, panel) for panel in info.panels if panel.points]


def steps_table(info: StagesInfo) -> DataTable:
    """Every number of the panels."""
    shown = [panel for panel in info.panels if panel.points]
    heads = ["row", *(head for p in shown for head in (_short(p), "vs row before", "vs baseline"))]
    lines = []
    for position, label in enumerate(info.labels):
        cells = [label]
        for panel in shown:
            point = next((p for p in panel.points if p.position == position), None)
            cells += [point.text, point.step or "-", point.note] if point else ["-", "-", "-"]
        lines.append(cells)
    return DataTable(
        heads,
        lines,
        caption="What each stage bought: the value, its change against the row before, and against "
        "the baseline. Ratios are the older value over the newer; ≈ marks what is not shown to "
        "differ.",
    )


def _short(panel: Panel) -> str:
    if panel.name == "accuracy":
        return panel.title.lower()
    return quantity_named(panel.name).short or panel.title.lower()


def _panel(info: StagesInfo, panel: Panel) -> DrawnPanel:
    height = _TOP + _LINE * len(info.labels) + 6
    said = ", ".join(f"{info.labels[p.position]} {p.text} ({p.note})" for p in panel.points)
    parts: list[Markup] = []
    if panel.baseline is not None:
        x = _across(panel.share(panel.baseline))
        parts.append(element("path", {"class": "base", "d": f"M{x:.1f},{_TOP - 4}V{height - 6}"}))
    for k, label in enumerate(info.labels):
        place = {"class": "end", "x": _LEFT - 14, "y": _middle(k) + 4}
        parts.append(element("text", place, sanitize(label, _NAME)))
    for point in panel.points:
        parts += _bar(panel, point)
    frame = {
        "class": "step",
        "viewBox": f"0 0 {_WIDTH} {height}",
        "role": "img",
        "aria-label": sanitize(f"{panel.title}: {said}", 2000),
    }
    arrow = "higher is better →" if panel.better == "higher" else "← lower is better"
    return DrawnPanel(panel.title, arrow, element("svg", frame, *parts))


def _middle(position: int) -> int:
    return _TOP + _LINE * position + _LINE // 2


def _bar(panel: Panel, point: PanelPoint) -> Iterator[Markup]:
    """The step from the row before, the value with its interval, and the words beside it."""
    y = _middle(point.position)
    x = _across(panel.share_of(point))
    if point.previous is not None:
        yield from _step(_across(panel.share(point.previous)), x, y, point.step_verdict)
    if point.off_scale:
        turn = "M4,-6L-6,0L4,6Z" if panel.better == "higher" else "M-4,-6L6,0L-4,6Z"
        at = f"translate({x:.1f},{y})"
        yield element("path", {"class": "arrow", "transform": at, "d": turn})
    else:
        low, high = sorted(_across(panel.share(end)) for end in point.ci95)
        yield element("path", {"class": "bars", "d": f"M{low:.1f},{y}H{high:.1f}"})
        look, shape = f"mark {color_of(point.kind)}", shape_path(corners_of(point.kind))
        at = f"translate({x:.1f},{y}) scale(5)"
        yield element("path", {"class": look, "d": shape, "transform": at})
    words = f"{point.text}, off scale" if point.off_scale else f"{point.text} {point.note}"
    yield element("text", {"x": _RIGHT + 14, "y": y + 4}, sanitize(words, 40))


def _step(start: float, end: float, y: int, verdict: str) -> Iterator[Markup]:
    """A bar from where the row before stands."""
    low, high = sorted((start, end))
    kind = {"better": "good", "worse": "bad"}.get(verdict, "open")
    yield element("path", {"class": "link", "d": f"M{start:.1f},{y - _LINE}V{y}"})
    place = {"x": f"{low:.1f}", "y": y - 7, "width": f"{max(high - low, 0.5):.1f}", "height": 14}
    yield element("rect", {"class": f"bar {kind}", **place})


def _across(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)
