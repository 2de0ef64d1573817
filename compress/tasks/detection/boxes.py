"""Boxes: from what a detector returns for each cell to the boxes of an image. Numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.errors import DataError

__all__ = ["Cells", "Detections", "detections", "overlaps"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cells:
    """How an image is divided into cells.

    Args:
        rows: of cells.
        columns: of cells.
        stride: the side of a cell in pixels.
    """

    rows: int
    columns: int
    stride: int

    @classmethod
    def of(cls, height: int, width: int, count: int) -> Cells:
        """The division of an image of ``height`` by ``width`` pixels into ``count`` square cells.

        Raises:
            DataError: there is none.
        """
        stride = max(1, round(math.sqrt(height * width / max(count, 1))))
        cells = cls(-(-height // stride), -(-width // stride), stride)
        if cells.rows * cells.columns != count:
            raise DataError(
                f"detection: {count} cells do not divide an image of {height} by {width} pixels "
                "into squares; the detector needs an output for each cell, in the order of rows."
            )
        return cells

    def centers(self) -> Array:
        """The center of each cell, ``(cells, 2)``: x and y in pixels."""
        x, y = (self.stride * (np.arange(count) + 0.5) for count in (self.columns, self.rows))
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)

    def corners(self, distances: Array) -> Array:
        """The corners ``x0, y0, x1, y1`` in pixels of boxes ``(..., cells, 4)`` as a net has them.

        A box whose edges have changed places has no area.
        """
        centers, scaled = self.centers(), self.stride * distances
        first = centers - scaled[..., :2]
        return np.concatenate([first, np.maximum(centers + scaled[..., 2:], first)], axis=-1)


@dataclass(frozen=True)
class Detections:
    """The boxes found in one image, those of the highest scores first.

    Args:
        boxes: their corners ``x0, y0, x1, y1``, ``(k, 4)``.
        scores: from 0 to 1, ``(k,)``.
        classes: ``(k,)``.
    """

    boxes: Array
    scores: Array
    classes: Array


def detections(
    boxes: Array,
    scores: Array,
    cells: Cells,
    *,
    least_score: float = 0.05,
    most_overlap: float = 0.5,
    most: int = 100,
) -> list[Detections]:
    """What a detector found in each image.

    Of boxes of one class that overlap by more than ``most_overlap`` (intersection over union), the
    one of the highest score is kept: greedy non-maximum suppression (Girshick et al. 2014).

    Args:
        boxes: as the net returns them, ``(n, cells, 4)``.
        scores: logits, ``(n, cells, classes)``. What is not finite is found nowhere.
        cells: of the images.
        least_score: below it nothing is found.
        most_overlap: of two boxes of one class.
        most: boxes in an image.
    """
    corners = cells.corners(boxes)
    finite = np.isfinite(corners).all(axis=-1, keepdims=True) & np.isfinite(scores)
    logits = np.where(finite, scores, -np.inf)
    least = math.log(least_score / (1 - least_score))
    return [
        _suppressed(*each, least, most_overlap, most) for each in zip(corners, logits, strict=True)
    ]


def _suppressed(
    corners: Array, logits: Array, least: float, most_overlap: float, most: int
) -> Detections:
    place, found = np.nonzero(logits >= least)
    values = logits[place, found]
    # Suppression looks at pairs: an untrained net finds something everywhere.
    order = np.argsort(-values, kind="stable")[: 4 * most]
    place, found, values = place[order], found[order], values[order].astype(np.float64)
    boxes = corners[place]
    rivals = (overlaps(boxes, boxes) > most_overlap) & (found[:, None] == found)
    kept = np.ones(len(order), bool)
    for row in range(len(order)):
        if kept[row]:
            kept[row + 1 :] &= ~rivals[row, row + 1 :]
    chosen = np.flatnonzero(kept)[:most]
    return Detections(boxes[chosen], 1 / (1 + np.exp(-values[chosen])), found[chosen])


def overlaps(some: Array, others: Array) -> Array:
    """The intersection over union of each pair of boxes, ``(len(some), len(others))``."""
    some, others = some.astype(np.float64), others.astype(np.float64)
    first = np.maximum(some[:, None, :2], others[None, :, :2])
    last = np.minimum(some[:, None, 2:], others[None, :, 2:])
    both = np.clip(last - first, 0, None).prod(axis=-1)
    areas = [(part[:, 2:] - part[:, :2]).prod(axis=-1) for part in (some, others)]
    either = areas[0][:, None] + areas[1] - both
    shares: Array = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return shares
