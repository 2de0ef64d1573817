"""Pictures as arrays: read from a file, a part of one at another size, written as a sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import DataError
from compress.io.atomic import write_atomically
from compress.io.files import named

__all__ = ["part_at_size", "read_square", "write_sheet"]

Array = np.ndarray[Any, Any]


def read_square(path: Path, side: int) -> Array:
    """A picture's middle as ``(side, side, 3)`` bytes.

    Raises:
        DataError: it cannot be read as an image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            fitted = ImageOps.fit(upright, (side, side), Image.Resampling.BILINEAR)
            return np.array(fitted, dtype=np.uint8)
    except Exception as error:  # decoders raise errors of every kind on damaged files
        raise DataError(
            f"{named(path)}: cannot be read as an image ({named(str(error))}); repair it, or give "
            "another."
        ) from error


def part_at_size(pixels: Array, left: int, top: int, side: int, size: int) -> Array:
    """A square part of an image of bytes, as ``(size, size, 3)`` bytes.

    Args:
        pixels: ``(height, width, 3)``.
        left: of the part.
        top: of the part.
        side: of the part, all of which lies in the image.
        size: that it is brought to, bilinear, with all pixels that a result is made of.
    """
    from PIL import Image

    part = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.array(part.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def write_sheet(path: Path, rows: Sequence[Sequence[Array]]) -> None:
    """A contact sheet as PNG: images of one size in rows and columns; one image is a sheet of one.

    Args:
        path: where to.
        rows: images ``(height, width, 3)`` in bytes.

    Raises:
        StorageError: the disk refused.
    """
    from PIL import Image

    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG")
    write_atomically(path, content.getvalue())
