"""Training curves as inline SVG, drawn with the page's own colours; no library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = ["Curve", "curves_of", "svg_of"]

_WIDTH, _HEIGHT = 320, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 22
_VALIDATION = ("validation", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Curve:
    """One quantity over epochs; ``points`` are ``(epoch, value)``, finite, in order."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def alt(self) -> str:
        """The curve in words."""
        (first, start), (last, end) = self.points[0], self.points[-1]
        return f"{self.name}: {start:.4g} at epoch {first:g}, {end:.4g} at epoch {last:g}"


def curves_of(history: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The loss and, where it was followed, the validation; what is no number is left out."""
    found = []
    for name in ("loss", *_VALIDATION):
        points = [
            (epoch, value)
            for number, entry in enumerate(history, start=1)
            if (value := _number(entry.get(name))) is not None
            and (epoch := _number(entry.get("epoch", number))) is not None
        ]
        if points:
            found.append(Curve(name.replace("_", " "), tuple(points)))
    return found


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def svg_of(curve: Curve) -> str:
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
    texts = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
        for x, y, anchor, text in labels
    )
    return (
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(curve.alt)}">'
        f'<path class="axis" d="M{_LEFT},{_TOP}V{ground}H{_WIDTH - _RIGHT}"/>'
        f'<polyline points="{line}"/><circle cx="{end_x}" cy="{end_y}" r="3"/>{texts}</svg>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
