"""The task ``digits``: 8x8 grey images of handwritten digits, 1,797 of them.

They come with scikit-learn (the test half of Alpaydin and Kaynak 1998, "Optical Recognition of
Handwritten Digits", UCI repository), so that this task needs no download and trains in seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from compress.config.fields import Flag
from compress.preprocessing import ImagePreprocessing
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, split
from compress.tasks.augment import ShiftFlip

__all__ = ["digit_splits", "make_task"]

_TEST_SAMPLES, _VALIDATION_SAMPLES = 450, 270
_SPLIT_SEED = 0
_HIGHEST = 16
# Pixels are 0 to 16; mean and deviation are those of the whole set.
_FORM = ImagePreprocessing(
    8, 8, channels=1, upright=False, highest=_HIGHEST, mean=(4.884,), std=(6.017,)
)


def make_task(*, augment: Flag = False) -> Task:
    """The task: 1,077 images to train on, 270 for validation, 450 to test on.

    Args:
        augment: shift training images by up to one pixel.
    """
    train, validation, test = (
        ArrayDataset(part.inputs.sub(_FORM.mean[0]).div_(_FORM.std[0]), part.labels)
        for part in _splits()
    )
    return Task(
        name="digits",
        train=train,
        validation=validation,
        test=test,
        augment=ShiftFlip(shift=1, fill=_FORM.darkest, flip=False) if augment else None,
        classes=tuple("0123456789"),
        outputs="class-scores",
        preprocessing=_FORM,
    )


def digit_splits() -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The images ``(n, 8, 8)``, from 0 to 1, and classes ``(n,)`` of each of the three splits."""
    return [
        (part.inputs[:, 0].double().div_(_HIGHEST).numpy(), torch.as_tensor(part.labels).numpy())
        for part in _splits()
    ]


def _splits() -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """To train on, for validation and to test on: pixels from 0 to 16."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)
    everything = ArrayDataset(images, torch.tensor(labels, dtype=torch.int64))
    rest, test = split(everything, _TEST_SAMPLES, seed=_SPLIT_SEED)
    train, validation = split(rest, _VALIDATION_SAMPLES, seed=_SPLIT_SEED)
    return train, validation, test
