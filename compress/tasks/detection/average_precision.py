"""Mean average precision of a detector over a data set, as COCO defines it.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context": in each image the boxes found, from
the highest score on, are matched with the true box of their class that they overlap most and that
no other has; the precision at 101 levels of recall is averaged, then over classes, and over the
overlaps that a match needs. The numbers are those of ``pycocotools``. Images are matched once; a
resample of the images counts each match as often as its image was drawn. Numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.errors import DataError
from compress.tasks.detection.boxes import Cells, Detections, detections, overlaps

__all__ = ["MeanAveragePrecision"]

Array = np.ndarray[Any, Any]

_OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_LEVELS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class MeanAveragePrecision:
    """The mean average precision of a detector, for a task's ``metric``.

    It is 0 where nothing is found, and 1 where all boxes are found before any that is none.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        overlap: that a match needs, as intersection over union; ``None`` for the mean over 0.5,
            0.55, ..., 0.95.
        boxes: the name of the output, and of the labels, that has the boxes.
        scores: the name of those that have the classes.
    """

    height: int
    width: int
    overlap: float | None = None
    boxes: str = "boxes"
    scores: str = "scores"
    higher_is_better: bool = True

    @property
    def __name__(self) -> str:
        return "map" if self.overlap is None else f"map-{100 * self.overlap:g}"

    def __call__(self, outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> float:
        """The value over all images.

        Args:
            outputs: of the detector, by name (:mod:`compress.tasks.detection`).
            labels: by name.

        Raises:
            DataError: outputs or labels of other names or shapes.
        """
        counted = self.by_counts(outputs, labels)
        return float(counted(np.ones((1, len(labels[self.boxes])), np.int64))[0])

    def by_counts(
        self, outputs: Mapping[str, Array], labels: Mapping[str, Array]
    ) -> Callable[[Array], Array]:
        """A function of how often each image counts, ``(b, n)``, that gives the values, ``(b,)``.

        Raises:
            DataError: outputs or labels of other names or shapes.
        """
        for what, parts in (("outputs", outputs), ("labels", labels)):
            self._check(what, parts)
        found_boxes, found_scores = outputs[self.boxes], outputs[self.scores]
        cells = Cells.of(self.height, self.width, found_boxes.shape[1])
        found = detections(found_boxes, found_scores, cells)
        needed = np.array(_OVERLAPS if self.overlap is None else (self.overlap,))
        classes = found_scores.shape[2]
        tallies = _tallies(found, labels[self.boxes], labels[self.scores], needed, classes)
        return lambda counts: _mean_known([_average_precision(t, counts) for t in tallies])

    def _check(self, what: str, parts: Mapping[str, Array]) -> None:
        axes = {self.boxes: 3, self.scores: 3 if what == "outputs" else 2}
        is_named = isinstance(parts, Mapping) and axes.keys() <= parts.keys()
        if is_named and all(parts[name].ndim == count for name, count in axes.items()):
            return
        given = f"{type(parts).__name__}"
        if isinstance(parts, Mapping):
            given = ", ".join(f"{name} {tuple(part.shape)}" for name, part in parts.items())
        wanted = (
            f"{self.boxes} (n, cells, 4) and {self.scores} (n, cells, classes)"
            if what == "outputs"
            else f"{self.boxes} (n, most, 4) and {self.scores} (n, most)"
        )
        raise DataError(f"metric {self.__name__}: {what} must be {wanted}; got {given}.")


@dataclass(frozen=True)
class _Tally:
    """The boxes of one class, of all images, from the highest score on.

    Args:
        image: that each found box is in, ``(k,)``.
        is_match: of each found box, for each overlap that a match needs, ``(overlaps, k)``.
        true: how many true boxes each image has, ``(n,)``.
    """

    image: Array
    is_match: Array
    true: Array


def _tallies(
    found: Sequence[Detections], boxes: Array, labels: Array, needed: Array, classes: int
) -> list[_Tally]:
    """A tally for each class that has a true box."""
    known = (labels >= 0) & ~np.isnan(boxes).any(axis=-1)
    matches = [
        _matches(one, boxes[row][known[row]], labels[row][known[row]], needed)
        for row, one in enumerate(found)
    ]
    image = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    scores = np.concatenate([one.scores for one in found])
    of_class = np.concatenate([one.classes for one in found])
    is_match = np.concatenate(matches, axis=1)
    order = np.argsort(-scores, kind="stable")
    tallies = []
    for number in range(classes):
        true = (known & (labels == number)).sum(axis=1)
        if true.any():
            own = order[of_class[order] == number]
            tallies.append(_Tally(image[own], is_match[:, own], true))
    return tallies


def _matches(found: Detections, boxes: Array, labels: Array, needed: Array) -> Array:
    """Which found boxes of an image have a true one, for each overlap, ``(overlaps, k)``."""
    matched = np.zeros((len(needed), len(found.scores)), bool)
    if not len(boxes):
        return matched
    both = overlaps(found.boxes, boxes)
    both[found.classes[:, None] != labels] = -1
    taken = np.zeros((len(needed), len(boxes)), bool)
    rows = np.arange(len(needed))
    for place in range(len(found.scores)):
        free = np.where(taken, -1.0, both[place])
        # Of equal overlaps pycocotools takes the last.
        best = free.shape[1] - 1 - free[:, ::-1].argmax(axis=1)
        is_match = free[rows, best] >= np.minimum(needed, 1 - 1e-10)
        taken[rows, best] |= is_match
        matched[:, place] = is_match
    return matched


def _average_precision(tally: _Tally, counts: Array) -> Array:
    """The precision over 101 levels of recall, ``(b,)``, the mean over overlaps.

    NaN where a resample has no true box of the class.
    """
    true = (counts @ tally.true).astype(np.float64)
    weights = counts[:, tally.image]
    found = weights.cumsum(axis=1)
    values = []
    for is_match in tally.is_match:
        # Precision is at its highest where the last box was a match: there alone it is looked at.
        own = np.flatnonzero(is_match)
        values.append(_area(weights[:, own].cumsum(axis=1), found[:, own], true))
    return np.where(true > 0, np.mean(values, axis=0), np.nan)


def _area(matches: Array, found: Array, true: Array) -> Array:
    """The area below precision over recall, from the counts at each match, ``(b, matches)``."""
    precision = matches / np.maximum(found, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = matches / np.maximum(true, 1)[:, None]
    # Each level of recall takes the precision of the first match that reaches it.
    reached = np.searchsorted(_LEVELS, recall, side="right")
    levels = np.diff(reached, axis=1, prepend=0)
    return np.asarray((precision * levels).sum(axis=1) / len(_LEVELS))


def _mean_known(values: Sequence[Array]) -> Array:
    table = np.stack(values) if values else np.full((1, 1), np.nan)
    known = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, table, 0).sum(axis=0) / known.sum(axis=0))
