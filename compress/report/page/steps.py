"""What each stage bought, as inline SVG panels and the table of the same numbers."""

from __future__ import annotations

import math

from compress.formatting import sanitize
from compress.measure.quantities import quantity_named
from compress.report.figures.stages_data import Panel, PanelPoint, StagesInfo
from compress.report.page.markers import color_class, shape_path
from compress.report.page.markup import data_table, text

__all__ = ["steps_figure", "steps_table"]

# In pixels, for a phone's width; panels stand beside one another where there is room.
_WIDTH, _LINE, _TOP = 360, 30, 8
_LEFT, _RIGHT = 104, 212  # between these are the bars
_NAME = 15  # letters that fit before them


def steps_figure(info: StagesInfo) -> str:
    """A panel for each quantity that was measured: bars from row to row, with words."""
    panels = "".join(_panel(info, panel) for panel in info.panels if panel.points)
    return (
        f'<figure class="steps"><div class="panels">{panels}</div>'
        f"<figcaption>{text(info.legend, 1000)} {text(info.caption, 1000)}.</figcaption></figure>"
    )


def steps_table(info: StagesInfo) -> str:
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
    return data_table(
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


def _panel(info: StagesInfo, panel: Panel) -> str:
    height = _TOP + _LINE * len(info.labels) + 6
    said = ", ".join(f"{info.labels[p.position]} {p.text} ({p.note})" for p in panel.points)
    arrow = "higher is better →" if panel.better == "higher" else "← lower is better"
    baseline = ""
    if panel.baseline is not None:
        x = _across(panel, panel.baseline)
        baseline = f'<path class="base" d="M{x:.1f},{_TOP - 4}V{height - 6}"/>'
    names = "".join(
        f'<text class="end" x="{_LEFT - 14}" y="{_middle(k) + 4}">{text(label, _NAME)}</text>'
        for k, label in enumerate(info.labels)
    )
    return (
        f"<div><h4>{text(panel.title)} <small>{arrow}</small></h4>"
        f'<svg class="step" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{text(f"{panel.title}: {said}", 2000)}">'
        f"{baseline}{names}{''.join(_bar(panel, point) for point in panel.points)}</svg></div>"
    )


def _middle(position: int) -> int:
    return _TOP + _LINE * position + _LINE // 2


def _bar(panel: Panel, point: PanelPoint) -> str:
    y = _middle(point.position)
    x = float(_end(panel)) if point.off_scale else _across(panel, point.value)
    parts = []
    if point.previous is not None:
        start = _across(panel, point.previous)
        low, high = sorted((start, x))
        kind = {"better": "good", "worse": "bad"}.get(point.step_verdict, "open")
        parts.append(f'<path class="link" d="M{start:.1f},{y - _LINE}V{y}"/>')
        parts.append(
            f'<rect class="bar {kind}" x="{low:.1f}" y="{y - 7}" '
            f'width="{max(high - low, 0.5):.1f}" height="14"/>'
        )
    words = f"{point.text} {point.note}"
    if point.off_scale:
        turn = "M4,-6L-6,0L4,6Z" if _end(panel) == _LEFT else "M-4,-6L6,0L-4,6Z"
        parts.append(f'<path class="arrow" transform="translate({x:.1f},{y})" d="{turn}"/>')
        words = f"{point.text}, off scale"
    else:
        ends = sorted(_across(panel, end) for end in point.ci95)
        parts.append(f'<path class="bars" d="M{ends[0]:.1f},{y}H{ends[1]:.1f}"/>')
        parts.append(
            f'<path class="mark {color_class(point.kind)}" d="{shape_path(point.kind)}" '
            f'transform="translate({x:.1f},{y}) scale(5)"/>'
        )
    parts.append(f'<text x="{_RIGHT + 14}" y="{y + 4}">{text(sanitize(words, 40))}</text>')
    return "".join(parts)


def _end(panel: Panel) -> int:
    """The edge at which what is off the scale stands: only scores are, and always the worst."""
    return _LEFT if panel.better == "higher" else _RIGHT


def _across(panel: Panel, value: float) -> float:
    """Where a value lies between the panel's edges; beyond them it stands at the edge."""
    ends = [e for p in panel.points if not p.off_scale for e in (*p.ci95, p.value)]
    if panel.name != "accuracy":
        ends, value = [math.log2(max(e, 1e-12)) for e in ends], math.log2(max(value, 1e-12))
    finite = [end for end in ends if math.isfinite(end)]
    low, high = min(finite), max(finite)
    slack = 0.06 * (high - low) or 1.0
    share = (value - low + slack) / (high - low + 2 * slack)
    if not math.isfinite(share):
        share = 0.5
    return _LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT)
