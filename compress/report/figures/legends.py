"""What marks mean: markers, their areas, and the legends beside the Pareto figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from compress.formatting import sanitize, size
from compress.report.figures.canvas import (
    POINT,
    Theme,
    color_of,
    line_handle,
    marker_handle,
    shape_of,
)
from compress.report.figures.pareto_data import ParetoInfo, PlotPoint

if TYPE_CHECKING:
    from compress.report.figures.canvas import Axes, Figure, Line2D

__all__ = ["area_of", "draw_legends", "marker_of"]

_BASELINE_SHAPE = "*"
# Marker areas in square points: the largest artifact, and the smallest that still shows its shape.
_LARGEST, _SMALLEST = 300.0, 40.0
_STAR = 1.5  # a star covers less of its square than the other shapes
_LEFT = 0.795  # of the figure's width


def marker_of(info: ParetoInfo, point: PlotPoint, theme: Theme) -> tuple[str, str]:
    """Shape and color of a point: by stage, or colored by run where several are overlaid."""
    shape = _BASELINE_SHAPE if point.is_baseline else shape_of(point.kind)
    if info.runs:
        return shape, theme.runs[point.run % len(theme.runs)]
    return shape, color_of(point.kind, theme)


def area_of(info: ParetoInfo, point: PlotPoint) -> float:
    """A marker's area in square points; it grows with the artifact's bytes."""
    return _area_of_size(info, point.bytes) * (_STAR if point.is_baseline else 1.0)


def _area_of_size(info: ParetoInfo, size_bytes: float) -> float:
    return max(_SMALLEST, _LARGEST * size_bytes / max(max(p.bytes for p in info.points), 1))


def draw_legends(figure: Figure, axes: Axes, info: ParetoInfo, theme: Theme) -> None:
    """Three legends in a column on the right: stages (or runs), sizes, what the marks mean."""
    blocks = [
        ("Run", _run_handles(info, theme)) if info.runs else None,
        ("Stage", _kind_handles(info, theme)),
        ("Artifact size", _size_handles(info, theme)),
        ("Marks", _mark_handles(info, theme)),
    ]
    top = axes.get_position().y1
    for block in blocks:
        if block is None:
            continue
        title, handles = block
        legend = figure.legend(
            handles=handles,
            title=title,
            loc="upper left",
            bbox_to_anchor=(_LEFT, top),
            frameon=False,
            fontsize=9,
            title_fontproperties={"weight": "bold", "size": 9},
            alignment="left",
            labelspacing=0.9 if title == "Artifact size" else 0.55,
            handletextpad=0.5,
            borderpad=0.2,
        )
        box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        top -= (box.height + 5 / POINT) / figure.bbox.height


def _run_handles(info: ParetoInfo, theme: Theme) -> list[Line2D]:
    colors = theme.runs
    return [
        marker_handle(sanitize(name, 26), "o", colors[k % len(colors)], "none")
        for k, name in enumerate(info.runs)
    ]


def _kind_handles(info: ParetoInfo, theme: Theme) -> list[Line2D]:
    handles = []
    kinds = dict.fromkeys(p.kind for p in info.points if not p.is_baseline)
    if any(p.is_baseline for p in info.points):
        kind = next(p.kind for p in info.points if p.is_baseline)
        face = theme.muted if info.runs else color_of(kind, theme)
        handles.append(
            marker_handle(f"baseline ({sanitize(kind, 16)})", _BASELINE_SHAPE, face, "none", 110)
        )
    for kind in kinds:
        face = theme.muted if info.runs else color_of(kind, theme)
        handles.append(marker_handle(sanitize(kind, 24), shape_of(kind), face, "none"))
    return handles


def _size_handles(info: ParetoInfo, theme: Theme) -> list[Line2D]:
    sizes = [p.bytes for p in info.points]
    low, high = min(sizes), max(sizes)
    shown = dict.fromkeys([high, round(math.sqrt(low * high)), low] if high > low else [high])
    return [marker_handle(size(b), "o", "none", theme.muted, _area_of_size(info, b)) for b in shown]


def _mark_handles(info: ParetoInfo, theme: Theme) -> list[Line2D]:
    handles = [marker_handle("not beaten by any row", "o", theme.muted, "none")]
    if any(not p.on_front for p in info.points):
        handles.append(marker_handle("beaten", "o", theme.face, theme.muted))
    handles.append(line_handle("front attained", theme.muted, 1.3))
    if info.latency_limit_s is not None or info.score_limit is not None:
        handles.append(line_handle("budget", theme.ink, 1.0, dashed=True))
    return handles
