"""Markers and legends of the page's plots as SVG; the style sheet knows the colors by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from compress.report.figures.markers import CIRCLE, RING, LegendBlock, LegendKey, Marker
from compress.report.page.markup import Markup, element

__all__ = ["LARGEST", "legend", "marker_parts", "shape_path"]

#: The radius of the largest marker, in pixels.
LARGEST = 12.0
_LINES = {"step-line": "M-9,5H0V-5H9", "limit": "M-11,0H11"}


def shape_path(corners: Sequence[tuple[float, float]]) -> str:
    """The path of a shape, within one unit of its middle."""
    if not corners:
        half = f"A{CIRCLE},{CIRCLE} 0 1 1 "
        return f"M-{CIRCLE},0{half}{CIRCLE},0{half}-{CIRCLE},0Z"
    return f"M{'L'.join(f'{round(x, 3):g},{round(y, 3):g}' for x, y in corners)}Z"


def marker_parts(marker: Marker, classes: str = "mark") -> Iterator[Markup]:
    """A marker around the origin, in the ring that tells the recommended row."""
    radius = LARGEST * marker.radius
    yield element("circle", {"class": "ring", "r": f"{radius + LARGEST * RING:.1f}"})
    look = {
        "class": classes,
        "transform": f"scale({radius:.2f})",
        "fill-opacity": f"{marker.fill:.2f}",
        "d": shape_path(marker.corners),
    }
    yield element("path", look)


def legend(blocks: Iterable[LegendBlock]) -> list[tuple[str, list[tuple[Markup, str]]]]:
    """The blocks of a legend with their titles: a drawing and its name for every key."""
    return [(title, [(_key(key), key.name) for key in keys]) for title, keys in blocks]


def _key(key: LegendKey) -> Markup:
    look = "key"
    if key.marker is None:
        parts = [element("path", {"class": key.line, "d": _LINES[key.line]})]
    else:
        parts = list(marker_parts(key.marker, f"mark {key.marker.color}"))
        look += " ship" * key.marker.ringed
    box = {"class": look, "viewBox": "-12 -12 24 24", "aria-hidden": "true"}
    return element("svg", box, *parts)
