"""Image files of strangers: found within one folder, and decoded to bytes of one size by Pillow.

A file that is no image, a small file that unfolds to a huge image, and a link that leads out of the
folder are refused by their names. Of several frames the first is taken.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from compress.errors import DataError
from compress.io.files import named, opened
from compress.preprocessing import ImagePreprocessing
from compress.tasks.arrays import scaled

__all__ = ["ImageFiles", "Placed"]

# Decoders that need no other program, by the suffixes of their files.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_MOST_PIXELS = 64 << 20
_MOST_BYTES = 4 << 30
_MOST_FILE_BYTES = 512 << 20
_LARGEST_16_BIT, _STEP_16_BIT = 65_535, 257

Array = np.ndarray[Any, Any]
_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True)
class Placed:
    """An image that was scaled to fit into a square, with its first pixel in the first corner.

    Args:
        pixels: ``(channels, size, size)``, in bytes; grey where there is no image.
        width: in pixels, before.
        height: in pixels, before.
        across: of the square that the image covers, in pixels.
        down: of the square that it covers, in pixels.
    """

    pixels: Tensor
    width: int
    height: int
    across: int
    down: int


@dataclass(frozen=True)
class ImageFiles:
    """The images in and below a folder.

    Args:
        home: the folder.
        size: side in pixels of what images are brought to.
        grey: one channel instead of three.
        task: begins sentences: ``task image-folder: ``.
    """

    home: Path
    size: int
    grey: bool
    task: str

    @property
    def channels(self) -> int:
        """Of each image."""
        return 1 if self.grey else 3

    @property
    def cover(self) -> ImagePreprocessing:
        """What :meth:`covering` makes of a file, and then :class:`.arrays.ScaledImages`."""
        square = (self.size, self.size)
        return scaled(*square, self.channels, "cover", upright=True, draft=True)

    @property
    def contain(self) -> ImagePreprocessing:
        """What :meth:`placed` makes of a file, and then :class:`.arrays.ScaledImages`."""
        return scaled(self.size, self.size, self.channels)

    def listed(self, folder: Path) -> list[Path]:
        """What is in a folder, in order, less what is hidden.

        Raises:
            DataError: it cannot be listed.
        """
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.isfile(folder):
                raise DataError(
                    f"{self.task}{named(folder)}: it is a file, and a folder is asked for."
                ) from error
            raise DataError(
                f"{self.task}{named(folder)}: there is no such folder{_looked_in(folder)}."
            ) from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError(f"{self.task}{named(folder)}: it cannot be listed ({why}).") from error
        return [folder / name for name in sorted(names) if not name.startswith(".")]

    def images(self, folder: Path) -> list[Path]:
        """The files of a folder that are images by their names, in order."""
        return [path for path in self.listed(folder) if self.is_image(path)]

    def is_image(self, path: Path) -> bool:
        """Whether a file is one by its name."""
        return path.suffix.lower() in _SUFFIXES

    def refusal(self, path: Path, problem: str) -> DataError:
        """What is raised of a file or a folder, as a sentence."""
        return DataError(f"{self.task}{named(path)} {problem}.")

    def check_link(self, path: Path) -> None:
        """Check that a path is no link that leads out of the folder.

        Raises:
            DataError: it is one.
        """
        if os.path.islink(path):
            self.check_inside(path)

    def check_inside(self, path: Path) -> None:
        """Check that a path leads into the folder, whatever links are on its way.

        Raises:
            DataError: it leads elsewhere.
        """
        target = os.path.realpath(path)
        if not target.startswith(os.path.join(os.path.realpath(self.home), "")):
            raise self.refusal(
                path,
                f"is a link to {named(target)}, outside of {named(self.home)}; copy what it leads "
                "to, or give a folder that holds both",
            )

    def room(self, count: int) -> Tensor:
        """Room for so many images, ``(count, channels, size, size)``, in bytes.

        Raises:
            DataError: they would take more memory than is taken.
        """
        total = count * self.channels * self.size**2
        if total > _MOST_BYTES:
            raise DataError(
                f"{self.task}{count:,} images of {self.size} by {self.size} pixels would take "
                f"{total / 2**30:.1f} GiB of memory; the limit is {_MOST_BYTES >> 30} GiB: give a "
                "smaller size, or a task of your own that reads them one by one."
            )
        return torch.empty(count, self.channels, self.size, self.size, dtype=torch.uint8)

    def extent(self, path: Path) -> tuple[int, int]:
        """Width and height of an image in pixels, as its file says them.

        Raises:
            DataError: it cannot be read, or unfolds to more than is taken.
        """
        return self._decoded(path, lambda image: (int(image.width), int(image.height)))

    def whole(self, path: Path, longest: int) -> Array:
        """One image, upright and in color, ``(height, width, 3)`` in bytes.

        Args:
            path: of the file.
            longest: what its longer side is scaled down to, where that is more.

        Raises:
            DataError: it cannot be read, or unfolds to more than is taken.
        """
        from PIL import Image, ImageOps

        def fitted(image: Image.Image) -> Array:
            upright = ImageOps.exif_transpose(_in_bytes(image)).convert("RGB")
            upright.thumbnail((longest, longest), Image.Resampling.BILINEAR, reducing_gap=None)
            return np.array(upright, dtype=np.uint8)

        return self._decoded(path, fitted)

    def covering(self, path: Path) -> Tensor:
        """One image, upright, scaled to cover the square, and its middle cut out.

        Raises:
            DataError: it cannot be read, or unfolds to more than is taken.
        """
        return self.formed(path, self.cover)

    def formed(self, path: Path, form: ImagePreprocessing) -> Tensor:
        """One image in the size of a form, ``(channels, height, width)``, in bytes.

        Raises:
            DataError: it cannot be read, or unfolds to more than is taken.
        """
        from PIL import Image, ImageOps

        def fitted(image: Image.Image) -> Tensor:
            if form.draft:
                image.draft(self._mode, (form.width, form.height))
            given = _in_bytes(image)
            upright = ImageOps.exif_transpose(given) if form.upright else given
            return _tensor(_sized(upright.convert(self._mode), form))

        return self._decoded(path, fitted)

    def placed(self, path: Path) -> Placed:
        """One image, as its file has it, scaled to fit into the square.

        Raises:
            DataError: it cannot be read, or unfolds to more than is taken.
        """
        from PIL import Image

        form = self.contain

        def fitted(image: Image.Image) -> Placed:
            across, down = self._fitting(image)
            given = _in_bytes(image).convert(self._mode)
            resized = _tensor(given.resize((across, down), Image.Resampling.BILINEAR))
            shape = (form.channels, form.height, form.width)
            pixels = torch.full(shape, form.fill, dtype=torch.uint8)
            pixels[:, :down, :across] = resized
            return Placed(pixels, image.width, image.height, across, down)

        return self._decoded(path, fitted)

    def mask(self, path: Path, around: int) -> tuple[Array, tuple[int, int]]:
        """The numbers at the pixels of an image, scaled by nearest neighbor, and its size before.

        Args:
            path: of a file with one channel, or with a palette, whose indices are the numbers.
            around: the number where there is no image.

        Raises:
            DataError: it cannot be read, or has colors in place of numbers.
        """
        from PIL import Image

        def fitted(image: Image.Image) -> tuple[Array, tuple[int, int]]:
            if image.mode not in ("1", "L", "P"):
                raise ValueError(
                    f"its pixels are {image.mode}, and a mask has one number of 8 bits for each"
                )
            across, down = self._fitting(image)
            numbers = image.convert("L") if image.mode == "1" else image
            scaled = np.asarray(numbers.resize((across, down), Image.Resampling.NEAREST))
            found = np.full((self.size, self.size), around, np.uint8)
            found[:down, :across] = scaled > 0 if image.mode == "1" else scaled
            return found, (image.width, image.height)

        return self._decoded(path, fitted)

    @property
    def _mode(self) -> str:
        return "L" if self.grey else "RGB"

    def _fitting(self, image: Any) -> tuple[int, int]:
        longest = max(image.width, image.height)
        across, down = (max(1, round(self.size * s / longest)) for s in (image.width, image.height))
        return across, down

    def _decoded(self, path: Path, use: Callable[[Any], _Decoded]) -> _Decoded:
        from PIL import Image

        with opened(path, DataError, most_bytes=_MOST_FILE_BYTES, where=self.task) as stream:
            try:
                with warnings.catch_warnings():
                    # Its warning about large images: the limit here is lower, and an error.
                    warnings.simplefilter("ignore")
                    with Image.open(stream, formats=_FORMATS) as image:
                        if image.width * image.height <= _MOST_PIXELS:
                            return use(image)
                        pixels_given = f"{image.width} by {image.height}"
            except Exception as error:  # decoders raise errors of every kind on damaged files
                why = named(str(error) or type(error).__name__)
                if type(error).__name__ == "UnidentifiedImageError":  # which names the stream
                    why = "it is in no format of images that is known"
                raise DataError(
                    f"{self.task}{named(path)}: cannot be read as an image ({why}); repair or "
                    "remove it."
                ) from error
        raise DataError(
            f"{self.task}{named(path)}: unfolds to {pixels_given} pixels, more than the "
            f"{_MOST_PIXELS >> 20} Mi that are taken for an image; scale it down or remove it."
        )


def _sized(image: Any, form: ImagePreprocessing) -> Any:
    """An image in the size of a form, by what the form says of images of another size."""
    from PIL import Image, ImageOps

    across, down = size = (form.width, form.height)
    bilinear = Image.Resampling.BILINEAR
    if form.fit == "stretch":
        return image.resize(size, bilinear)
    if form.fit == "contain":
        scale = min(across / image.width, down / image.height)
        sides = [max(1, round(scale * side)) for side in (image.width, image.height)]
        whole = Image.new(image.mode, size, (form.fill,) * len(image.getbands()))
        whole.paste(image.resize((min(sides[0], across), min(sides[1], down)), bilinear), (0, 0))
        return whole
    if form.resize is None:
        return ImageOps.fit(image, size, bilinear)
    scale = form.resize / min(image.width, image.height)
    sides = [max(form.resize, int(scale * side)) for side in (image.width, image.height)]
    left, top = (round((own - wanted) / 2) for own, wanted in zip(sides, size, strict=True))
    return image.resize(tuple(sides), bilinear).crop((left, top, left + across, top + down))


def _tensor(image: Any) -> Tensor:
    pixels = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    return torch.tensor(pixels).permute(2, 0, 1)


def _in_bytes(image: Any) -> Any:
    """The image with 8 bits for a channel; Pillow would cut larger numbers off at 255."""
    if image.mode not in ("F", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        return image
    from PIL import Image

    numbers = np.asarray(image)
    if image.mode == "F" or numbers.min() < 0 or numbers.max() > _LARGEST_16_BIT:
        raise ValueError(f"its pixels are {numbers.dtype}, and 8 or 16 bits are taken")
    return Image.fromarray((numbers // _STEP_16_BIT).astype(np.uint8))


def _looked_in(folder: Path) -> str:
    """Where a relative path leads from, as a clause; nothing where that folder itself is gone."""
    try:
        return "" if folder.is_absolute() else f" in {named(os.getcwd())}"
    except OSError:
        return ""
