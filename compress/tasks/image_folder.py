"""The task ``image-folder``: images of your own, in a folder for each class, or without labels.

::

    FOLDER/cat/*.jpg, FOLDER/dog/*.jpg              one folder for each class; split here
    FOLDER/*.jpg                                    no labels; split here
    FOLDER/train/..., FOLDER/test/...               split already, each part like one of these;
                                                    FOLDER/validation is taken where it is there

Files are decoded once, to bytes in memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from compress.config.fields import Flag, Whole
from compress.errors import RecipeError
from compress.io.files import named
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, ScaledImages
from compress.tasks.augment import ShiftFlip
from compress.tasks.image_files import ImageFiles
from compress.tasks.parts import parts_of

__all__ = ["Size", "make_task"]

_TASK = "task image-folder: "
_CROP = 8

#: Pixels along one side.
Size = Annotated[Whole, Field(ge=8, le=1024)]


class _Scaled(ScaledImages):
    """Under the name by which kept results know images of this task."""


def make_task(
    *, folder: Path | None = None, size: Size = 32, grey: Flag = False, augment: Flag = True
) -> Task:
    """The task: a tenth of what is not split already is set apart for validation, and for the test.

    Args:
        folder: with a folder of images for each class, with images alone, or with ``train`` and
            ``test``, each like one of these.
        size: images are scaled and cut to ``size`` by ``size`` pixels.
        grey: one channel instead of three.
        augment: shift training images by up to an eighth, and mirror half of them.

    Raises:
        RecipeError: no folder is given.
        DataError: the folder holds no images, or one that cannot be read.
    """
    if folder is None:
        raise RecipeError("task image-folder: give the folder that holds the images (`folder:`).")
    files = ImageFiles(folder, size, grey, _TASK)
    is_split = all(os.path.isdir(folder / part) for part in ("train", "test"))
    classes = _classes(files, folder / "train" if is_split else folder)
    train, validation, test = parts_of(
        folder, lambda part: _images(files, part, classes), ("validation",)
    )
    return Task(
        name="image-folder",
        train=_Scaled(train),
        validation=_Scaled(validation),
        test=_Scaled(test),
        augment=ShiftFlip(shift=size // _CROP, fill=0.0, flip=True) if augment else None,
        classes=classes,
        outputs="class-scores" if classes else None,
        preprocessing=files.cover,
    )


def _classes(files: ImageFiles, folder: Path) -> tuple[str, ...]:
    """The names of the folders that hold images; none where images lie in ``folder`` itself."""
    inner = [p for p in files.listed(folder) if os.path.isdir(p) and not files.is_image(p)]
    names = tuple(sorted(path.name for path in inner if files.images(path)))
    loose = files.images(folder)
    if bool(names) == bool(loose):
        found = "both images and folders of images" if names else "no images"
        deeper = [p for p in inner if any(_holds_images(files, one) for one in files.listed(p))]
        also = f" itself, but {named(deeper[0].name)!r} holds folders of them" if deeper else ""
        raise files.refusal(
            folder,
            f"holds {found}{'' if names else also}; give one folder of images for each class, or "
            "images without labels in the folder itself",
        )
    if len(names) == 1:
        raise files.refusal(
            folder,
            f"holds the one class {named(names[0])!r}, which leaves nothing to tell apart; for "
            f"images without labels, give {named(folder / names[0])}",
        )
    return names


def _holds_images(files: ImageFiles, path: Path) -> bool:
    return os.path.isdir(path) and bool(files.images(path))


def _images(files: ImageFiles, folder: Path, classes: tuple[str, ...]) -> ArrayDataset:
    """The images of a folder that is divided into these classes."""
    if folder != files.home:
        files.check_link(folder)
    own = _classes(files, folder)
    if own != classes:
        given, wanted = (named(", ".join(each) or "none") for each in (own, classes))
        raise files.refusal(
            folder, f"holds the classes {given} and the training images have {wanted}"
        )
    found = [(path, -1) for path in files.images(folder)]
    for label, name in enumerate(classes):
        files.check_link(folder / name)
        found += [(path, label) for path in files.images(folder / name)]
    images = files.room(len(found))
    for place, (path, _) in enumerate(found):
        files.check_link(path)
        images[place] = files.covering(path)
    labels = torch.tensor([label for _, label in found]) if classes else None
    return ArrayDataset(images, labels)
