"""The task ``mask-folder``: images of your own, and a mask with the class of each of their pixels.

::

    FOLDER/images/*.jpg, FOLDER/masks/*.png         a mask for each image, of its name; split here
    FOLDER/train/images/*.jpg, ...                  split already: train and test, and validation,
                                                    valid or val where it is there

A mask has one number for each pixel: PNG in grey, or with a palette, whose indices are the classes.
Both are scaled to fit into a square; what is around them does not count, nor do pixels of 255.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from compress.config.fields import Flag, Names, Whole
from compress.errors import RecipeError
from compress.io.files import named
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, ScaledImages
from compress.tasks.image_files import ImageFiles
from compress.tasks.parts import parts_of
from compress.tasks.segmentation import SegmentationLoss

__all__ = ["make_task", "read_masks"]

_TASK = "task mask-folder: "
_IGNORED = 255
_CELL = 8


def make_task(
    *,
    folder: Path | None = None,
    size: Annotated[Whole, Field(ge=32, le=1024)] = 128,
    grey: Flag = False,
    classes: Names | None = None,
) -> Task:
    """The task: a tenth of what is not split already is set apart for validation, and for the test.

    Args:
        folder: with ``images`` and ``masks``, or with ``train`` and ``test``.
        size: images are scaled to fit into ``size`` by ``size`` pixels, a multiple of 8.
        grey: one channel instead of three.
        classes: their names, in the order of the numbers in masks; numbered where not given.

    Raises:
        RecipeError: no folder is given, or a size that is no multiple of 8.
        DataError: an image without a mask, or a file that cannot be read.
    """
    if folder is None:
        raise RecipeError(f"{_TASK}give the folder that holds images and masks (`folder:`).")
    if size % _CELL:
        raise RecipeError(f"{_TASK}size must be a multiple of {_CELL}; got {size}.")
    files = ImageFiles(folder, size, grey, _TASK)
    train, validation, test = parts_of(
        folder, lambda part: read_masks(files, part, len(classes or ()))
    )
    return Task(
        name="mask-folder",
        train=ScaledImages(train),
        validation=ScaledImages(validation),
        test=ScaledImages(test),
        metric="mean-iou",
        loss=SegmentationLoss(),
        classes=classes or _numbered(train),
        outputs="class-scores",
        ignore_index=_IGNORED,
        preprocessing=files.contain,
    )


def _numbered(train: ArrayDataset) -> tuple[str, ...]:
    masks = torch.as_tensor(train.labels)
    known = masks[masks != _IGNORED]
    highest = int(known.max()) if len(known) else 0
    return tuple(f"class {number}" for number in range(highest + 1))


def read_masks(files: ImageFiles, folder: Path, classes: int) -> ArrayDataset:
    """The images of a folder, with their masks.

    Args:
        files: that it is among.
        folder: with ``images`` and ``masks``.
        classes: how many there are; 0 where that is not known.

    Raises:
        DataError: an image without a mask, a class that is none, or a file that cannot be read.
    """
    if folder != files.home:
        files.check_link(folder)
    for name in ("images", "masks"):
        files.check_link(folder / name)
    images = files.images(folder / "images")
    masks = {path.stem: path for path in files.images(folder / "masks")}
    if not images:
        raise files.refusal(folder / "images", "holds no images")
    pixels = files.room(len(images))
    labels = torch.empty(len(images), files.size, files.size, dtype=torch.uint8)
    for place, path in enumerate(images):
        mask = masks.get(path.stem)
        if mask is None:
            raise files.refusal(
                path,
                f"has no mask of its name in {named(folder / 'masks')}; give one, or remove it",
            )
        for one in (path, mask):
            files.check_link(one)
        image = files.placed(path)
        numbers, sides = files.mask(mask, _IGNORED)
        if sides != (image.width, image.height):
            raise files.refusal(
                mask,
                f"has {sides[0]} by {sides[1]} pixels, and its image {image.width} by "
                f"{image.height}",
            )
        pixels[place], labels[place] = image.pixels, torch.from_numpy(numbers)
        _check_classes(files, mask, labels[place], classes)
    return ArrayDataset(pixels, labels)


def _check_classes(files: ImageFiles, path: Path, mask: torch.Tensor, classes: int) -> None:
    known = mask[mask != _IGNORED]
    if classes and len(known) and int(known.max()) >= classes:
        raise files.refusal(
            path,
            f"has the class {int(known.max())}, and {classes} classes are named, the first of "
            "which is 0",
        )
