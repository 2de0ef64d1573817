"""Marks of the page's figures: shapes that say the same as colors, as SVG paths, and the legend.

Paths are drawn within one unit of their middle, so that a scale is a radius. Colors are classes:
the style sheet knows them, for light and dark.
"""

from __future__ import annotations

import math

from compress.report.figures.pareto_data import ParetoInfo, PlotPoint
from compress.report.page.markup import Markup, element

__all__ = ["color_class", "legend", "look_of", "radius_of", "shape_path"]

Key = tuple[Markup, str]

_RUNS = 6  # colors that the style sheet has for runs
_LARGEST, _SMALLEST = 12.0, 5.5  # radii in pixels
_STAR = 1.3  # a star covers less of its circle than the other shapes


def _polygon(corners: int, turn: float, inner: float = 0.0) -> str:
    """A regular polygon, or a star whose inner corners are so far from the middle."""
    number = corners * (2 if inner else 1)
    points = []
    for k in range(number):
        angle = math.radians(turn) + 2 * math.pi * k / number
        reach = inner if inner and k % 2 else 1.0
        points.append(f"{reach * math.cos(angle):.3f},{reach * math.sin(angle):.3f}")
    return f"M{'L'.join(points)}Z"


_CIRCLE = "M-.9,0A.9,.9 0 1 1 .9,0A.9,.9 0 1 1 -.9,0Z"
_PLUS = "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z"
_STAR_PATH = _polygon(5, -90, 0.45)
_PATHS = {
    "train": _CIRCLE,
    "distill": _polygon(4, 0),
    "quantize": "M-.82,-.82H.82V.82H-.82Z",
    "prune": _polygon(3, -90),
    "input": _polygon(6, 0),
}


def shape_path(kind: str, is_baseline: bool = False) -> str:
    """The path of a kind of stage; kinds that others wrote share one."""
    return _STAR_PATH if is_baseline else _PATHS.get(kind, _PLUS)


def color_class(kind: str) -> str:
    """The class with the color of a kind of stage."""
    return f"kind-{kind}" if kind in _PATHS else "kind-other"


def look_of(info: ParetoInfo, point: PlotPoint) -> str:
    """The class with a point's color: its stage's, or its run's where several are overlaid."""
    return f"run-{point.run % _RUNS}" if info.runs else color_class(point.kind)


def radius_of(info: ParetoInfo, point: PlotPoint) -> float:
    """A mark's radius in pixels; its area grows with the artifact's bytes."""
    return _radius(info, point.bytes) * (_STAR if point.is_baseline else 1.0)


def _radius(info: ParetoInfo, size_bytes: float) -> float:
    largest = max(max(p.bytes for p in info.points), 1)
    return max(_SMALLEST, _LARGEST * math.sqrt(max(size_bytes, 0) / largest))


def legend(info: ParetoInfo, *, with_choice: bool) -> list[Key]:
    """What shapes, colors and lines of a plot mean: a drawing and its name each."""
    keys = [_mark(_CIRCLE, f"run-{k % _RUNS}", name) for k, name in enumerate(info.runs)]
    for kind, is_baseline in dict.fromkeys((p.kind, p.is_baseline) for p in info.points):
        look = "run-none" if info.runs else color_class(kind)
        name = f"baseline ({kind})" if is_baseline else kind
        keys.append(_mark(shape_path(kind, is_baseline), look, name))
    if any(not p.on_front for p in info.points):
        keys.append(_mark(_CIRCLE, "run-none beaten", "beaten by another row"))
    if with_choice:
        keys.append(_mark(_CIRCLE, "ringed", "best under your budget"))
    line = element("path", {"class": "step-line", "d": "M-9,5H0V-5H9"})
    return [*keys, (_key(line), "best attained")]


def _mark(path: str, look: str, name: str) -> Key:
    drawn = {"class": f"mark {look}", "transform": "scale(6.5)", "d": path}
    return _key(element("path", drawn)), name


def _key(drawn: Markup) -> Markup:
    return element(
        "svg", {"class": "key", "viewBox": "-10 -10 20 20", "aria-hidden": "true"}, drawn
    )
