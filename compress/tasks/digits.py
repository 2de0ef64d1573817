"""The task ``digits``: 8x8 grey images of handwritten digits, 1,797 of them.

They come with scikit-learn (the test half of Alpaydin and Kaynak 1998, "Optical Recognition of
Handwritten Digits", UCI repository), so that this task needs no download and trains in seconds.
"""

from __future__ import annotations

import torch

from compress.config.fields import Flag
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, split
from compress.tasks.augment import ShiftFlip

__all__ = ["make_task"]

_TEST_SAMPLES, _VALIDATION_SAMPLES = 450, 270
_SPLIT_SEED = 0
# Pixels are 0 to 16; mean and deviation are those of the whole set.
_MEAN, _STD = 4.884, 6.017


def make_task(*, augment: Flag = False) -> Task:
    """The task: 1,077 images to train on, 270 for validation, 450 to test on.

    Args:
        augment: shift training images by up to one pixel.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8).sub_(_MEAN).div_(_STD)
    everything = ArrayDataset(images, torch.tensor(labels, dtype=torch.int64))
    rest, test = split(everything, _TEST_SAMPLES, seed=_SPLIT_SEED)
    train, validation = split(rest, _VALIDATION_SAMPLES, seed=_SPLIT_SEED)
    return Task(
        name="digits",
        train=train,
        validation=validation,
        test=test,
        augment=ShiftFlip(shift=1, fill=-_MEAN / _STD, flip=False) if augment else None,
        classes=tuple("0123456789"),
        outputs="class-scores",
    )
