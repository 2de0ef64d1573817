"""The task ``image-folder``: images of your own, in a folder for each class, or without labels.

::

    FOLDER/cat/*.jpg, FOLDER/dog/*.jpg              one folder for each class; split here
    FOLDER/*.jpg                                    no labels; split here
    FOLDER/train/..., FOLDER/test/...               split already, each part like one of these;
                                                    FOLDER/validation is taken where it is there

Files are decoded once, by Pillow, to bytes in memory; of several frames the first. A file that is
no image, a small file that unfolds to a huge image, and a link that leads out of the folder are
refused by their names.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from compress.config.fields import Flag, Whole
from compress.errors import DataError, RecipeError
from compress.io.files import named, opened
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, split
from compress.tasks.augment import ShiftFlip

__all__ = ["make_task"]

# Decoders that need no other program, by the suffixes of their files.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_MOST_PIXELS = 64 << 20
_MOST_BYTES = 4 << 30
_MOST_FILE_BYTES = 512 << 20
_LARGEST_16_BIT, _STEP_16_BIT = 65_535, 257
_TASK = "task image-folder: "
_SPLIT_SEED = 0
_SHARE_APART = 0.1
_CROP = 8

#: Pixels along one side.
Size = Annotated[Whole, Field(ge=8, le=1024)]


class _Scaled:
    """Images kept as bytes, and given as numbers from -1 to 1."""

    def __init__(self, images: ArrayDataset) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Tensor | tuple[Tensor, Tensor]:
        return _scaled(self._images[index])

    def __getitems__(self, indices: Sequence[int], /) -> Tensor | tuple[Tensor, Tensor]:
        return _scaled(self._images.__getitems__(indices))

    def without_labels(self) -> _Scaled:
        """The images alone, sharing memory."""
        return _Scaled(self._images.without_labels())


def make_task(
    *, folder: Path | None = None, size: Size = 32, grey: Flag = False, augment: Flag = True
) -> Task:
    """The task: a tenth of what is not split already is set apart for validation, and for the test.

    Args:
        folder: see the module's docstring.
        size: images are scaled and cut to ``size`` by ``size`` pixels.
        grey: one channel instead of three.
        augment: shift training images by up to an eighth, and mirror half of them.

    Raises:
        RecipeError: no folder is given.
        DataError: the folder holds no images, or one that cannot be read.
    """
    if folder is None:
        raise RecipeError("task image-folder: give the folder that holds the images (`folder:`).")
    parts = {part for part in ("train", "validation", "test") if os.path.isdir(folder / part)}
    read = _Reader(folder, size, grey)
    if {"train", "test"} <= parts:
        classes = _classes(folder / "train")
        train, test = (read.images(folder / part, classes) for part in ("train", "test"))
    else:
        classes = _classes(folder)
        train, test = split(read.images(folder, classes), _SHARE_APART, seed=_SPLIT_SEED)
    if {"train", "validation"} <= parts:
        validation = read.images(folder / "validation", classes)
    else:
        train, validation = split(train, _SHARE_APART, seed=_SPLIT_SEED)
    return Task(
        name="image-folder",
        train=_Scaled(train),
        validation=_Scaled(validation),
        test=_Scaled(test),
        augment=ShiftFlip(shift=size // _CROP, fill=0.0, flip=True) if augment else None,
        classes=classes,
        outputs="class-scores" if classes else None,
    )


def _classes(folder: Path) -> tuple[str, ...]:
    """The names of the folders that hold images; none where images lie in ``folder`` itself."""
    inner = [path for path in _listed(folder) if os.path.isdir(path) and not _is_image(path)]
    names = tuple(sorted(path.name for path in inner if _files(path)))
    loose = _files(folder)
    if bool(names) == bool(loose):
        found = "both images and folders of images" if names else "no images"
        deeper = [path for path in inner if any(map(_holds_images, _listed(path)))]
        also = f" itself, but {named(deeper[0].name)!r} holds folders of them" if deeper else ""
        raise _refusal(
            folder,
            f"holds {found}{'' if names else also}; give one folder of images for each class, or "
            "images without labels in the folder itself",
        )
    if len(names) == 1:
        raise _refusal(
            folder,
            f"holds the one class {named(names[0])!r}, which leaves nothing to tell apart; for "
            f"images without labels, give {named(folder / names[0])}",
        )
    return names


def _holds_images(path: Path) -> bool:
    return os.path.isdir(path) and bool(_files(path))


def _files(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if _is_image(path)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, in order, less what is hidden."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{_TASK}{named(folder)}: there is no such folder.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{_TASK}{named(folder)}: it cannot be listed ({why}).") from error
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def _refusal(path: Path, problem: str) -> DataError:
    return DataError(f"{_TASK}{named(path)} {problem}.")


class _Reader:
    """Reads images of one size from folders within ``home``."""

    def __init__(self, home: Path, size: int, grey: bool) -> None:
        self._home, self._size, self._grey = home, size, grey
        self._resolved = os.path.realpath(home)

    def images(self, folder: Path, classes: tuple[str, ...]) -> ArrayDataset:
        """The images of a folder that is divided into these classes."""
        if folder != self._home:
            self._check_link(folder)
        own = _classes(folder)
        if own != classes:
            given, wanted = (named(", ".join(each) or "none") for each in (own, classes))
            raise _refusal(
                folder, f"holds the classes {given} and the training images have {wanted}"
            )
        found = [(path, -1) for path in _files(folder)]
        for label, name in enumerate(classes):
            self._check_link(folder / name)
            found += [(path, label) for path in _files(folder / name)]
        size, channels = self._size, 1 if self._grey else 3
        total = len(found) * channels * size * size
        if total > _MOST_BYTES:
            raise DataError(
                f"{_TASK}{len(found):,} images of {size} by {size} pixels would take "
                f"{total / 2**30:.1f} GiB of memory; the limit is {_MOST_BYTES >> 30} GiB: give a "
                "smaller size, or a task of your own that reads them one by one."
            )
        images = torch.empty(len(found), channels, size, size, dtype=torch.uint8)
        for place, (path, _) in enumerate(found):
            self._check_link(path)
            images[place] = _decoded(path, size, self._grey)
        labels = torch.tensor([label for _, label in found]) if classes else None
        return ArrayDataset(images, labels)

    def _check_link(self, path: Path) -> None:
        if not os.path.islink(path):
            return
        target = os.path.realpath(path)
        if not target.startswith(os.path.join(self._resolved, "")):
            raise _refusal(
                path,
                f"is a link to {named(target)}, outside of {named(self._home)}; copy what it leads "
                "to, or give a folder that holds both",
            )


def _decoded(path: Path, size: int, grey: bool) -> Tensor:
    """One image, ``(channels, size, size)``: scaled to cover that, and its middle cut out."""
    from PIL import Image, ImageOps

    mode = "L" if grey else "RGB"
    with opened(path, DataError, most_bytes=_MOST_FILE_BYTES, where=_TASK) as stream:
        try:
            with warnings.catch_warnings():
                # Its warning about large images: the limit here is lower, and an error.
                warnings.simplefilter("ignore")
                with Image.open(stream, formats=_FORMATS) as image:
                    if image.width * image.height <= _MOST_PIXELS:
                        image.draft(mode, (size, size))
                        upright = ImageOps.exif_transpose(_in_bytes(image)).convert(mode)
                        fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
                        pixels = np.asarray(fitted, dtype=np.uint8).reshape(size, size, -1)
                        return torch.tensor(pixels).permute(2, 0, 1)
                    pixels_given = f"{image.width} by {image.height}"
        except Exception as error:  # decoders raise errors of every kind on damaged files
            why = named(str(error) or type(error).__name__)
            raise DataError(
                f"{_TASK}{named(path)}: cannot be read as an image ({why}); repair or remove it."
            ) from error
    raise DataError(
        f"{_TASK}{named(path)}: unfolds to {pixels_given} pixels, more than the "
        f"{_MOST_PIXELS >> 20} Mi that are taken for an image; scale it down or remove it."
    )


def _in_bytes(image: Any) -> Any:
    """The image with 8 bits for a channel; Pillow would cut larger numbers off at 255."""
    if image.mode not in ("F", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        return image
    from PIL import Image

    numbers = np.asarray(image)
    if image.mode == "F" or numbers.min() < 0 or numbers.max() > _LARGEST_16_BIT:
        raise ValueError(f"its pixels are {numbers.dtype}, and 8 or 16 bits are taken")
    return Image.fromarray((numbers // _STEP_16_BIT).astype(np.uint8))


def _scaled(batch: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
    if isinstance(batch, tuple):
        return batch[0].float().div_(127.5).sub_(1), batch[1]
    return batch.float().div_(127.5).sub_(1)
