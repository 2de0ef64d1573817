"""The task ``digit-scenes``: handwritten digits placed on canvases, made on the spot.

One to four of scikit-learn's digits, of different sizes and slightly turned, on a noisy ground.
What is asked of them is a choice:

- ``boxes``: where each digit is, and which, for a detector;
- ``mask``: the class of each pixel: 0 for the ground, then the digits; 255, which does not count,
  between;
- ``digits``: which digits there are: a yes or no for each;
- ``pose``: of one digit, the center as ``position``, from -1 to 1, and the ``angle``, as a share of
  60°.

No digit of a test canvas is on one to train on, and equal options give equal canvases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from compress.config.fields import Whole
from compress.errors import RecipeError
from compress.task import MetricOn, Task
from compress.tasks.arrays import ArrayDataset, ScaledImages, scaled
from compress.tasks.detection import DetectionLoss, MeanAveragePrecision
from compress.tasks.digits import digit_splits
from compress.tasks.scenes import BORDER, Canvas, Scenes, make_scenes
from compress.tasks.segmentation import SegmentationLoss

__all__ = ["make_task"]

Array = np.ndarray[Any, Any]

#: What a canvas is asked for.
Label = Literal["boxes", "mask", "digits", "pose"]

_DIGITS = tuple("0123456789")
_MOST = 4
_SIDES = (0.25, 0.5)
_TURN, _TURN_OF_POSE = math.radians(15), math.radians(60)
_CELL = 8
_SHARE_APART = 8  # one canvas for validation, and one for the test, for so many to train on


class _Splits(NamedTuple):
    train: ScaledImages
    validation: ScaledImages
    test: ScaledImages


def make_task(
    *,
    label: Label = "boxes",
    size: Annotated[Whole, Field(ge=32, le=256)] = 64,
    samples: Annotated[Whole, Field(ge=32, le=50_000)] = 4000,
) -> Task:
    """The task; validation and the test have an eighth as many canvases each as training.

    Args:
        label: what is asked of a canvas: where each digit is (``boxes``), the class of each pixel
            (``mask``), which digits there are (``digits``), or how one digit lies (``pose``).
        size: side of a canvas in pixels, a multiple of 8.
        samples: canvases to train on.

    Raises:
        RecipeError: a size that is no multiple of 8.
    """
    if size % _CELL:
        raise RecipeError(
            f"task digit-scenes: size must be a multiple of {_CELL}, by which nets divide it; got "
            f"{size}."
        )
    kind = _KINDS[label]
    apart = samples // _SHARE_APART
    splits = [
        ScaledImages(_labeled(kind, make_scenes(*digits, count, kind.canvas(size), seed)))
        for seed, (digits, count) in enumerate(
            zip(digit_splits(), (samples, apart, apart), strict=True)
        )
    ]
    return replace(kind.task(_Splits(*splits), size), preprocessing=scaled(size, size, 1))


def _labeled(kind: _Kind, scenes: Scenes) -> ArrayDataset:
    return ArrayDataset(scenes.images, kind.labels(scenes))


def _detection(splits: _Splits, size: int) -> Task:
    return Task(
        "digit-scenes-boxes",
        *splits,
        metric=MeanAveragePrecision(size, size),
        further_metrics=(MeanAveragePrecision(size, size, overlap=0.5),),
        loss=DetectionLoss(size, size),
        classes=_DIGITS,
        outputs={"boxes": "values", "scores": "independent-logits"},
    )


def _segmentation(splits: _Splits, _: int) -> Task:
    return Task(
        "digit-scenes-mask",
        *splits,
        metric="mean-iou",
        loss=SegmentationLoss(),
        classes=("ground", *_DIGITS),
        outputs="class-scores",
        ignore_index=BORDER,
    )


def _which_digits(splits: _Splits, _: int) -> Task:
    return Task(
        "digit-scenes-digits",
        *splits,
        metric="f1",
        further_metrics=("auroc",),
        classes=_DIGITS,
        outputs="independent-logits",
    )


def _pose(splits: _Splits, _: int) -> Task:
    return Task(
        "digit-scenes-pose",
        *splits,
        metric=MetricOn("r2", "position"),
        further_metrics=(MetricOn("r2", "angle"),),
        outputs={"position": "values", "angle": "values"},
    )


def _present(scenes: Scenes) -> Array:
    """Which digits are on each canvas, ``(n, 10)``, 0 or 1."""
    digits = np.arange(len(_DIGITS))
    return np.asarray((scenes.classes[:, :, None] == digits).any(axis=1), dtype=np.int64)


class _Kind(NamedTuple):
    """What is asked of a canvas: its labels, and the task that has them."""

    labels: Callable[[Scenes], Array | Mapping[str, Array]]
    task: Callable[[_Splits, int], Task]
    most: int = _MOST
    turn: float = _TURN

    def canvas(self, size: int) -> Canvas:
        return Canvas(size=size, most=self.most, sides=_SIDES, turn=self.turn)


_KINDS: Mapping[Label, _Kind] = MappingProxyType(
    {
        "boxes": _Kind(lambda of: {"boxes": of.boxes, "scores": of.classes}, _detection),
        "mask": _Kind(lambda of: of.masks, _segmentation),
        "digits": _Kind(_present, _which_digits),
        "pose": _Kind(
            lambda of: {"position": of.positions[:, 0], "angle": of.turns},
            _pose,
            most=1,
            turn=_TURN_OF_POSE,
        ),
    }
)
