"""The task ``image-folder``: images of your own, in a folder for each class, or without labels.

::

    FOLDER/cat/*.jpg, FOLDER/dog/*.jpg              one folder for each class; split here
    FOLDER/*.jpg                                    no labels; split here
    FOLDER/train/..., FOLDER/test/...               split already, each part like one of these;
                                                    FOLDER/validation is taken where it is there

Files are decoded once, by Pillow, to bytes in memory; a file that is no image, or a small file that
unfolds to a huge image, is refused by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.errors import DataError, RecipeError
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
_SPLIT_SEED = 0
_SHARE_APART = 0.1
_CROP = 8


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
    *, folder: Path | None = None, size: int = 32, grey: bool = False, augment: bool = True
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
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        classes = _classes(folder / "train")
        train, test = (_images(folder / part, classes, size, grey) for part in ("train", "test"))
    else:
        classes = _classes(folder)
        train, test = split(_images(folder, classes, size, grey), _SHARE_APART, seed=_SPLIT_SEED)
    if (folder / "train").is_dir() and (folder / "validation").is_dir():
        validation = _images(folder / "validation", classes, size, grey)
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
    if not folder.is_dir():
        raise DataError(f"task image-folder: {folder}: there is no such folder.")
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and _files(p)))
    loose = _files(folder)
    if bool(names) == bool(loose):
        found = "both images and folders of images" if names else "no images"
        raise DataError(
            f"task image-folder: {folder} holds {found}; give one folder of images for each class, "
            "or images without labels in the folder itself."
        )
    if len(names) == 1:
        raise DataError(
            f"task image-folder: {folder} holds the one class {names[0]!r}, which leaves nothing "
            f"to tell apart; for images without labels, give {folder / names[0]}."
        )
    return names


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )


def _images(folder: Path, classes: tuple[str, ...], size: int, grey: bool) -> ArrayDataset:
    own = _classes(folder)
    if own != classes:
        raise DataError(
            f"task image-folder: {folder} holds the classes {', '.join(own) or 'none'} and the "
            f"training images have {', '.join(classes) or 'none'}."
        )
    found = [(path, -1) for path in _files(folder)]
    for label, name in enumerate(classes):
        found += [(path, label) for path in _files(folder / name)]
    channels = 1 if grey else 3
    total = len(found) * channels * size * size
    if total > _MOST_BYTES:
        raise DataError(
            f"task image-folder: {len(found):,} images of {size} by {size} pixels would take "
            f"{total / 2**30:.1f} GiB of memory; the limit is {_MOST_BYTES >> 30} GiB: give a "
            "smaller size, or a task of your own that reads them one by one."
        )
    images = torch.empty(len(found), channels, size, size, dtype=torch.uint8)
    for place, (path, _) in enumerate(found):
        images[place] = _decoded(path, size, grey)
    return ArrayDataset(images, torch.tensor([label for _, label in found]) if classes else None)


def _decoded(path: Path, size: int, grey: bool) -> Tensor:
    """One image, ``(channels, size, size)``: scaled to cover that, and its middle cut out."""
    from PIL import Image, ImageOps

    mode = "L" if grey else "RGB"
    try:
        with warnings.catch_warnings():
            # Its warning about large images: the limit here is lower, and an error.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height <= _MOST_PIXELS:
                    image.draft(mode, (size, size))
                    upright = ImageOps.exif_transpose(image).convert(mode)
                    fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
                    pixels = np.asarray(fitted, dtype=np.uint8).reshape(size, size, -1)
                    return torch.tensor(pixels).permute(2, 0, 1)
                pixels_given = f"{image.width} by {image.height}"
    except Exception as error:  # decoders raise errors of every kind on damaged files
        raise DataError(
            f"task image-folder: {path}: cannot be read as an image ({error}); repair or remove it."
        ) from error
    raise DataError(
        f"task image-folder: {path}: unfolds to {pixels_given} pixels, more than the "
        f"{_MOST_PIXELS >> 20} Mi that are taken for an image; scale it down or remove it."
    )


def _scaled(batch: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
    if isinstance(batch, tuple):
        return batch[0].float().div_(127.5).sub_(1), batch[1]
    return batch.float().div_(127.5).sub_(1)
