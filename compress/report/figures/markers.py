"""Markers of a figure's rows: shapes that say the same as colors, sizes, and what is filled.

Knows no drawing library and no HTML. Shapes are corners within one unit of their middle,
with ``y`` downwards: a scale is a radius. Colors are names that a theme or a style sheet knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from compress.formatting import sanitize, size
from compress.report.figures.pareto_data import ParetoInfo, PlotPoint

__all__ = ["CIRCLE", "RING", "LegendBlock", "LegendKey", "Marker"]
__all__ += ["color_of", "corners_of", "legend_of", "marker_of"]

Corners = tuple[tuple[float, float], ...]

_RUNS = 12  # colors that there are for runs
_SHARED = "run-shared"
_SMALLEST = 0.28  # of the largest marker's radius: still shows its shape
_BY_AREA = 0.5  # the power of a size that a radius grows with
_STAR_FACTOR = 1.3  # a star covers less of its circle than the other shapes
_SAME_SIZE, _TOLD_APART = 1.02, 2.0  # ratios of sizes that have keys of their own in the legend
_BEATEN = 0.12  # how much of a beaten row's color is left
_KEY = 0.55  # the radius of markers in the legend
#: How far the ring around the recommended row is from its marker, in radii of the largest marker.
RING = 0.42
#: The reach of a circle, whose corners are none.
CIRCLE = 0.9


def _polygon(corners: int, turn: float, inner: float = 0.0) -> Corners:
    """A regular polygon, or a star whose inner corners are so far from the middle."""
    number = corners * (2 if inner else 1)
    angles = [math.radians(turn) + 2 * math.pi * k / number for k in range(number)]
    reaches = [inner if inner and k % 2 else 1.0 for k in range(number)]
    return tuple((r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, reaches, strict=True))


_A = 0.35
_PLUS = (
    *((-_A, -1), (_A, -1), (_A, -_A), (1, -_A), (1, _A), (_A, _A)),
    *((_A, 1), (-_A, 1), (-_A, _A), (-1, _A), (-1, -_A), (-_A, -_A)),
)
_STAR = _polygon(5, -90, 0.45)
_SHAPES: Mapping[str, Corners] = MappingProxyType(
    {
        "train": (),
        "distill": _polygon(4, 0),
        "quantize": ((-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)),
        "prune": _polygon(3, -90),
        "input": _polygon(6, 0),
    }
)


@dataclass(frozen=True)
class Marker:
    """``radius`` counts radii of the largest marker; ``fill`` is the opacity of its inside.

    ``corners`` are those of its shape, none for a circle. ``ringed``: whether it is recommended.
    """

    color: str
    corners: Corners = ()
    radius: float = _KEY
    fill: float = 1.0
    ringed: bool = False


@dataclass(frozen=True)
class LegendKey:
    """A name with its marker, or with its line: ``step-line`` or ``limit``."""

    name: str
    marker: Marker | None = None
    line: str = ""


LegendBlock = tuple[str, tuple[LegendKey, ...]]


def corners_of(kind: str, is_baseline: bool = False) -> Corners:
    """The shape of a kind of stage; kinds that others wrote share one."""
    return _STAR if is_baseline else _SHAPES.get(kind, _PLUS)


def color_of(kind: str) -> str:
    """The name of the color of a kind of stage."""
    return f"kind-{kind}" if kind in _SHAPES else "kind-other"


def marker_of(info: ParetoInfo, point: PlotPoint) -> Marker:
    """A point's marker; its area grows with the artifact's bytes, its fill with its certainty."""
    factor = _STAR_FACTOR if point.is_baseline else 1.0
    return Marker(
        color=_run_color(point.run) if info.runs else color_of(point.kind),
        corners=corners_of(point.kind, point.is_baseline),
        radius=factor * _radius(info, point.bytes),
        fill=0.3 + 0.7 * point.front_probability if point.on_front else _BEATEN,
        ringed=point.is_recommended,
    )


def _run_color(run: int | None) -> str:
    return _SHARED if run is None else f"run-{run % _RUNS}"


def _radius(info: ParetoInfo, size_bytes: float) -> float:
    """The area grows with the size; more slowly where the smallest would be too small to be seen.

    So no two sizes are drawn alike, however far they are apart.
    """
    sizes = [max(point.bytes, 1) for point in info.points]
    largest, smallest = max(sizes), min(sizes)
    power = _BY_AREA
    if smallest < largest:
        power = min(power, math.log(_SMALLEST) / math.log(smallest / largest))
    return float((max(size_bytes, 1) / largest) ** power)


def legend_of(info: ParetoInfo, *, with_budget: bool) -> list[LegendBlock]:
    """What colors, shapes, sizes and lines mean, in blocks with a title each.

    ``with_budget``: whether lines of a budget are drawn.
    """
    blocks = [("Stage", _kind_keys(info)), ("Artifact size", _size_keys(info))]
    if info.runs:
        blocks.insert(0, ("Run", tuple(_run_keys(info))))
    return [*blocks, ("Marks", tuple(_mark_keys(info, with_budget)))]


def _run_keys(info: ParetoInfo) -> Iterator[LegendKey]:
    drawn = {point.run for point in info.points}
    for run, name in enumerate(info.runs):
        if run in drawn:
            yield LegendKey(sanitize(name, 26), Marker(_run_color(run)))
    if None in drawn:
        yield LegendKey("shared by several runs", Marker(_SHARED))


def _kind_keys(info: ParetoInfo) -> tuple[LegendKey, ...]:
    found = dict.fromkeys((point.kind, point.is_baseline) for point in info.points)
    return tuple(
        LegendKey(
            f"baseline ({sanitize(kind, 16)})" if is_baseline else sanitize(kind, 24),
            Marker("muted" if info.runs else color_of(kind), corners_of(kind, is_baseline)),
        )
        for kind, is_baseline in sorted(found, key=lambda each: not each[1])
    )


def _size_keys(info: ParetoInfo) -> tuple[LegendKey, ...]:
    sizes = [point.bytes for point in info.points]
    low, high = min(sizes), max(sizes)
    middle = [round(math.sqrt(low * high))] if high > _TOLD_APART * low else []
    shown = dict.fromkeys([high, *middle, low] if high > _SAME_SIZE * low else [high])
    return tuple(
        LegendKey(size(each), Marker("muted", (), _radius(info, each), 0.0)) for each in shown
    )


def _mark_keys(info: ParetoInfo, with_budget: bool) -> list[LegendKey]:
    keys = []
    if any(point.on_front for point in info.points):
        keys.append(LegendKey("not beaten by any row", Marker("muted")))
    if any(not point.on_front for point in info.points):
        keys.append(LegendKey("beaten by another row", Marker("muted", fill=_BEATEN)))
    if any(point.is_recommended for point in info.points):
        name = "wins under a budget" if info.runs else "recommended"
        keys.append(LegendKey(name, Marker("muted", (), 0.3, 0.0, ringed=True)))
    if any(point.on_front and not point.off_scale for point in info.points):
        keys.append(LegendKey("best attained", line="step-line"))
    return [*keys, LegendKey("budget", line="limit")] if with_budget else keys
