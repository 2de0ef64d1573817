"""Training curves as inline SVG, drawn with the page's own colors; no library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.formatting import sanitize
from compress.report.page.markup import Markup, element

__all__ = ["Curve", "curves_of", "svg_of"]

_WIDTH, _HEIGHT = 320, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 22
# Left of zero, for numbers of up to nine characters, such as -1.23e-05.
_ROOM = 20
_VALIDATION = ("validation", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Curve:
    """One quantity over epochs; ``points`` are ``(epoch, value)``, finite, in order.

    ``is_part``: whether it is one of several losses, before its weight, and not their sum.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    is_part: bool = False

    @property
    def alt(self) -> str:
        """The curve in words."""
        (first, start), (last, end) = self.points[0], self.points[-1]
        return f"{self.name}: {start:.4g} at epoch {first:g}, {end:.4g} at epoch {last:g}"


def curves_of(history: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The loss, the validation where it was followed, and where there are several losses each.

    What is no number is left out. The epochs of a stage that trained several times, as one that
    looks for the largest cut within a bound does, are counted through.
    """
    epochs = [entry.get("epoch", number) for number, entry in enumerate(history, start=1)]
    counted = [epoch for epoch in epochs if isinstance(epoch, int)]
    if len(set(counted)) < len(counted):
        epochs = list(range(1, len(epochs) + 1))
    parts = [_losses(entry) for entry in history]
    whole = [
        Curve(name.replace("_", " "), _points(epochs, [entry.get(name) for entry in history]))
        for name in ("loss", *_VALIDATION)
    ]
    each = [
        Curve(f"loss: {name}", _points(epochs, [part.get(name) for part in parts]), is_part=True)
        for name in dict.fromkeys(name for part in parts for name in part)
    ]
    # A single loss is the sum but for its weight.
    return [curve for curve in (*whole, *(each if len(each) > 1 else ())) if curve.points]


def _points(epochs: Sequence[object], values: Sequence[object]) -> tuple[tuple[float, float], ...]:
    return tuple(
        (epoch, value)
        for epoch, value in zip(map(_number, epochs), map(_number, values), strict=True)
        if epoch is not None and value is not None
    )


def _losses(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("losses")
    return found if isinstance(found, Mapping) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def svg_of(curve: Curve) -> Markup:
    """The curve as an ``<svg>`` element with a text alternative."""
    low_x, high_x = _range([x for x, _ in curve.points])
    low_y, high_y = _range([y for _, y in curve.points])

    def place(x: float, y: float) -> str:
        across = (x - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - low_y) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{_LEFT + across:.1f},{_HEIGHT - _BOTTOM - up:.1f}"

    line = " ".join(place(x, y) for x, y in curve.points)
    end_x, end_y = place(*curve.points[-1]).split(",")
    ground = _HEIGHT - _BOTTOM
    labels = (
        (_LEFT - 5, _TOP + 4, "end", f"{high_y:.3g}"),
        (_LEFT - 5, ground + 4, "end", f"{low_y:.3g}"),
        (_LEFT, _HEIGHT - 6, "start", f"epoch {curve.points[0][0]:g}"),
        (_WIDTH - _RIGHT, _HEIGHT - 6, "end", f"{curve.points[-1][0]:g}"),
    )
    box = f"-{_ROOM} 0 {_ROOM + _WIDTH} {_HEIGHT}"
    return element(
        "svg",
        {"class": "curve", "viewBox": box, "role": "img", "aria-label": sanitize(curve.alt, 400)},
        element("path", {"class": "axis", "d": f"M{_LEFT},{_TOP}V{ground}H{_WIDTH - _RIGHT}"}),
        element("polyline", {"points": line}),
        element("circle", {"cx": end_x, "cy": end_y, "r": 3}),
        *(
            element("text", {"x": x, "y": y, "text-anchor": anchor}, said)
            for x, y, anchor, said in labels
        ),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
