"""Scenes: small pictures placed on canvases, with what is known of each of them.

From pictures with a class, such as digits, canvases of several are made, for tasks whose labels are
boxes, masks, several classes, or where something is. All of it is drawn from a seed and worked out
in numpy, so that no version of a library changes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["BORDER", "Canvas", "Scenes", "make_scenes"]

Array = np.ndarray[Any, Any]

#: The label of pixels at the edge of a picture, where nobody can say what they are.
BORDER = 255
_TRIES = 20
_DIAGONAL = 2**0.5
# Shares of a picture's full strength: what is ink, and what is neither ink nor ground.
_INK, _EDGE = 0.5, 0.25
_MOST_COVERED = 0.05  # of the smaller of two boxes
_GROUND, _STRENGTH, _NOISE = (0, 70), (110, 180), 10.0  # of 255


@dataclass(frozen=True)
class Canvas:
    """What canvases look like.

    Args:
        size: side in pixels.
        most: pictures on one canvas; each number from 1 on is as frequent.
        sides: the smallest and the largest side of a picture, as shares of the canvas's.
        turn: the largest angle by which a picture is turned either way, in radians.
    """

    size: int
    most: int
    sides: tuple[float, float]
    turn: float


@dataclass(frozen=True)
class Scenes:
    """Canvases, and what is on them.

    Args:
        images: ``(n, 1, size, size)``, in bytes.
        boxes: corners ``x0, y0, x1, y1`` in pixels, ``(n, most, 4)``; NaN where there is none.
        classes: of the boxes, ``(n, most)``; -1 where there is none.
        masks: the class at each pixel and 1 more, 0 for the ground and 255 for edges, ``(n, size,
            size)``, in bytes.
        positions: the center of each picture, x and y from -1 to 1, ``(n, most, 2)``, or NaN.
        turns: its angle as a share of the largest, from -1 to 1, ``(n, most)``, or NaN.
    """

    images: Array
    boxes: Array
    classes: Array
    masks: Array
    positions: Array
    turns: Array


def make_scenes(pictures: Array, classes: Array, count: int, canvas: Canvas, seed: int) -> Scenes:
    """Canvases with pictures that are drawn at random.

    Args:
        pictures: square, ``(m, side, side)``, from 0 to 1.
        classes: of the pictures, ``(m,)``.
        count: canvases to make.
        canvas: what they look like.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2)))
    scenes = _empty(count, canvas)
    for place in range(count):
        ink = np.zeros((canvas.size, canvas.size))
        placed = 0
        for _ in range(int(rng.integers(1, canvas.most + 1))):
            which = int(rng.integers(len(pictures)))
            found = _placed(padded[which], scenes.boxes[place, :placed], canvas, rng)
            if found is not None:
                scenes.boxes[place, placed] = found.box
                scenes.classes[place, placed] = classes[which]
                scenes.positions[place, placed] = found.position
                scenes.turns[place, placed] = found.turn
                mask, canvas_ink = scenes.masks[place][found.window], ink[found.window]
                _draw(mask, canvas_ink, found.ink, int(classes[which]) + 1)
                placed += 1
        scenes.images[place, 0] = _exposed(ink, rng)
    return scenes


@dataclass(frozen=True)
class _Placed:
    """A picture at its place: ``ink`` is what is drawn in the ``window`` of the canvas."""

    window: tuple[slice, ...]
    ink: Array
    box: Array
    position: Array
    turn: float


def _empty(count: int, canvas: Canvas) -> Scenes:
    def unknown(*axes: int) -> Array:
        return np.full((count, canvas.most, *axes), np.nan, np.float32)

    shape = (count, canvas.size, canvas.size)
    return Scenes(
        images=np.zeros((count, 1, *shape[1:]), np.uint8),
        boxes=unknown(4),
        classes=np.full((count, canvas.most), -1, np.int64),
        masks=np.zeros(shape, np.uint8),
        positions=unknown(2),
        turns=unknown(),
    )


def _placed(
    picture: Array, boxes: Array, canvas: Canvas, rng: np.random.Generator
) -> _Placed | None:
    """A picture where it covers none of the boxes; ``None`` where no such place was found."""
    for _ in range(_TRIES):
        side = canvas.size * rng.uniform(*canvas.sides)
        turn = rng.uniform(-1, 1)
        center = rng.uniform(side / 2, canvas.size - side / 2, 2)
        window = tuple(_reach(place, side, canvas.size) for place in center[::-1])
        ink = _drawn(picture, window, side, center, turn * canvas.turn)
        box = _box(ink, window)
        if all(_covered(box, other) <= _MOST_COVERED for other in boxes):
            return _Placed(window, ink, box, 2 * center / canvas.size - 1, turn)
    return None


def _reach(center: float, side: float, size: int) -> slice:
    """The pixels along one axis that a turned picture may reach, with those around it."""
    half = side * _DIAGONAL / 2 + 1
    return slice(max(0, int(center - half)), min(size, int(center + half) + 1))


def _drawn(
    picture: Array, window: tuple[slice, ...], side: float, center: Array, angle: float
) -> Array:
    """The picture scaled, turned and moved, by bilinear interpolation, in a window of a canvas.

    The picture has two empty pixels at each edge, into which all places outside of it fall.
    """
    count = len(picture) - 4
    y, x = (np.arange(axis.start, axis.stop) + 0.5 for axis in window)
    x, y = x[None, :] - center[0], y[:, None] - center[1]
    scale, middle = count / side, (len(picture) - 1) / 2
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    across = np.clip(x * cosine + y * sine + middle, 0, len(picture) - 1.001)
    down = np.clip(y * cosine - x * sine + middle, 0, len(picture) - 1.001)
    left, top = across.astype(int), down.astype(int)
    right, low = across - left, down - top
    pixels, corner, row = picture.reshape(-1), top * len(picture) + left, len(picture)
    upper = pixels.take(corner) * (1 - right) + pixels.take(corner + 1) * right
    lower = pixels.take(corner + row) * (1 - right) + pixels.take(corner + row + 1) * right
    return np.asarray(upper * (1 - low) + lower * low)


def _box(ink: Array, window: tuple[slice, ...]) -> Array:
    """The corners around what is ink, on the canvas."""
    rows, columns = (np.flatnonzero((ink >= _INK).any(axis)) for axis in (1, 0))
    top, left = (axis.start for axis in window)
    edges = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
    return np.array(edges, np.float32)


def _covered(box: Array, other: Array) -> float:
    """The share of the smaller of two boxes that is in the other."""
    both = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    areas = [(each[2:] - each[:2]).prod() for each in (box, other)]
    return float(both.prod() / min(areas))


def _draw(mask: Array, canvas: Array, ink: Array, label: int) -> None:
    """Add a picture to a canvas and to its mask."""
    is_above = ink > canvas
    mask[is_above & (ink >= _EDGE)] = BORDER
    mask[is_above & (ink >= _INK)] = label
    np.maximum(canvas, ink, out=canvas)


def _exposed(ink: Array, rng: np.random.Generator) -> Array:
    """The canvas in bytes: a ground of some grey, ink that is lighter, and noise."""
    ground, strength = rng.uniform(*_GROUND), rng.uniform(*_STRENGTH)
    noise = rng.normal(0, _NOISE, ink.shape)
    return np.clip(np.rint(ground + strength * ink + noise), 0, 255).astype(np.uint8)
