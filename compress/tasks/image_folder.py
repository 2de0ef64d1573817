"""The task ``image-folder``: images of your own, in a folder for each class, or without labels.

::

    FOLDER/cat/*.jpg, FOLDER/dog/*.jpg              one folder for each class; split here
    FOLDER/*.jpg                                    no labels; split here
    FOLDER/train/..., FOLDER/test/...               split already, each part like one of these;
                                                    validation, valid or val beside train is taken
                                                    for that, with test or without

Files are decoded once, to bytes in memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from compress.config.fields import LARGEST_FACTOR, Flag, Names, Number, Whole
from compress.errors import DataError, RecipeError
from compress.io.files import named
from compress.preprocessing import ImagePreprocessing
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, FormedImages, ScaledImages
from compress.tasks.augment import ShiftFlip
from compress.tasks.image_files import ImageFiles
from compress.tasks.parts import VALIDATION, parts_of

__all__ = ["TASK", "Size", "classes_of", "make_task", "normalization", "training_folder"]

#: Begins the sentences of this task.
TASK = "task image-folder: "
_CROP = 8

#: Pixels along one side.
Size = Annotated[Whole, Field(ge=8, le=1024)]
#: A number for each channel, or one for all, as shares of the brightest byte.
_Share = Annotated[Number, Field(ge=-LARGEST_FACTOR, le=LARGEST_FACTOR)]
_Shares = _Share | Annotated[tuple[_Share, ...], Field(min_length=1, max_length=3)]


class _Scaled(ScaledImages):
    """Under the name by which kept results know images of this task."""


def make_task(
    *,
    folder: Path | None = None,
    size: Size = 32,
    grey: Flag = False,
    augment: Flag = True,
    mean: _Shares | None = None,
    std: _Shares | None = None,
    classes: Names | None = None,
) -> Task:
    """The task: a tenth of what is not split already is set apart for validation, and for the test.

    Args:
        folder: with a folder of images for each class, with images alone, or with ``train`` and
            ``test``, each like one of these.
        size: images are scaled and cut to ``size`` by ``size`` pixels.
        grey: one channel instead of three.
        augment: shift training images by up to an eighth, and mirror half of them.
        mean: of pixels from 0 to 1, for each channel or one for all, as torchvision's ``Normalize``
            has it: what a net was trained with. Without it, pixels are from -1 to 1.
        std: the deviation, likewise.
        classes: names of the folders in the order of the net's outputs, and of classes without one;
            where not given, the folders by their names.

    Raises:
        RecipeError: no folder is given, or numbers of which there is not one for each channel.
        DataError: the folder holds no images, or one that cannot be read.
    """
    if folder is None:
        raise RecipeError("task image-folder: give the folder that holds the images (`folder:`).")
    files = ImageFiles(folder, size, grey, TASK)
    form = normalization(files, mean, std)
    home = training_folder(folder)
    found = classes_of(files, home)
    named_classes = found if classes is None else _in_order(files, home, found, classes)
    parts = parts_of(folder, lambda part: _images(files, part, found, named_classes))
    # Without a mean under the name by which kept results know images of this task.
    train, validation, test = (
        _Scaled(part) if mean is std is None else FormedImages(part, form) for part in parts
    )
    return Task(
        name="image-folder",
        train=train,
        validation=validation,
        test=test,
        augment=ShiftFlip(shift=size // _CROP, fill=0.0, flip=True) if augment else None,
        classes=named_classes,
        outputs="class-scores" if named_classes else None,
        preprocessing=form,
    )


def training_folder(folder: Path) -> Path:
    """Where the images to train on are: in ``train``, where there is a part beside it."""
    parts = ("test", *VALIDATION)
    is_split = os.path.isdir(folder / "train") and any(os.path.isdir(folder / p) for p in parts)
    return folder / "train" if is_split else folder


def normalization(
    files: ImageFiles, mean: _Shares | None, std: _Shares | None
) -> ImagePreprocessing:
    """What makes numbers of the images.

    Raises:
        RecipeError: not one number for each channel, or one for all.
    """
    if mean is None and std is None:
        return files.cover
    for name, given in (("mean", mean), ("std", std)):
        if wide := [value for value in _each(given, 0.0) if value > 1]:
            raise RecipeError(
                f"{TASK}{name}: {wide[0]:g} is for pixels from 0 to 255, and these are from 0 to "
                f"1; write {wide[0] / 255:.3g}."
            )
    try:
        return replace(
            files.cover,
            highest=1.0,
            mean=_each(mean, 0.0),
            std=_each(std, 1.0),
        )
    except DataError as error:
        raise RecipeError(
            f"{TASK}{str(error).removeprefix('preprocessing of images: ')}"
        ) from error


def _each(given: _Shares | None, otherwise: float) -> tuple[float, ...]:
    if given is None:
        return (otherwise,)
    return given if isinstance(given, tuple) else (given,)


def classes_of(files: ImageFiles, folder: Path) -> tuple[str, ...]:
    """The names of the folders that hold images; none where images lie in ``folder`` itself."""
    inner = [p for p in files.listed(folder) if os.path.isdir(p) and not files.is_image(p)]
    names = tuple(sorted(path.name for path in inner if files.images(path)))
    empty = [path for path in inner if path.name not in names]
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
    if names and empty:
        raise files.refusal(
            empty[0],
            f"lies beside {len(names)} folder{'s' * (len(names) > 1)} with images of a class, and "
            f"{_inside(files, empty[0])}; put images of its class there, or move it elsewhere",
        )
    if len(names) == 1:
        raise files.refusal(
            folder,
            f"holds the one class {named(names[0])!r}, which leaves nothing to tell apart; for "
            f"images without labels, give {named(folder / names[0])}",
        )
    return names


def _inside(files: ImageFiles, folder: Path) -> str:
    """What a folder without images holds."""
    found = files.listed(folder)
    if not found:
        return "is empty"
    return f"holds no image by its name, but {named(found[0].name)}"


def _holds_images(files: ImageFiles, path: Path) -> bool:
    return os.path.isdir(path) and bool(files.images(path))


def _in_order(
    files: ImageFiles, folder: Path, found: tuple[str, ...], given: Sequence[str]
) -> tuple[str, ...]:
    """The classes as they are given."""
    if len(set(given)) < len(given) or not found or not set(found) <= set(given):
        raise files.refusal(
            folder,
            f"holds the classes {named(', '.join(found) or 'none')}, and `classes` names "
            f"{named(', '.join(given))}; it has to name each of them once",
        )
    return tuple(given)


def _images(
    files: ImageFiles, folder: Path, expected: tuple[str, ...], classes: tuple[str, ...]
) -> ArrayDataset:
    """The images of a folder that is divided into the ``expected`` ones of the classes."""
    if folder != files.home:
        files.check_link(folder)
    own = classes_of(files, folder)
    if own != expected:
        given, wanted = (named(", ".join(each) or "none") for each in (own, expected))
        raise files.refusal(
            folder, f"holds the classes {given} and the training images have {wanted}"
        )
    found = [(path, -1) for path in files.images(folder)]
    for name in expected:
        label = classes.index(name)
        files.check_link(folder / name)
        found += [(path, label) for path in files.images(folder / name)]
    images = files.room(len(found))
    for place, (path, _) in enumerate(found):
        files.check_link(path)
        images[place] = files.covering(path)
    labels = torch.tensor([label for _, label in found]) if classes else None
    return ArrayDataset(images, labels)
