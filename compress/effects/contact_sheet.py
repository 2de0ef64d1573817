"""A contact sheet: images under the names of their columns, as small a file as a page can hold."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.formatting import sanitize

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["Strip", "drawn_sheet"]

Array = np.ndarray[Any, Any]

# The heights of images, tried until the file is small enough.
_SIDES = (256, 224, 192, 160, 144, 128, 112, 96, 80, 64, 48, 32)
_GAP, _LINE, _FONT = 4, 16, 12
_PAPER, _INK = (255, 255, 255), (27, 32, 38)


@dataclass(frozen=True)
class Strip:
    """Images side by side.

    Args:
        images: ``(height, width, 3)`` in bytes, of one size; ``None`` leaves a place empty.
        words: lines of text in the first place, where that is empty.
    """

    images: Sequence[Array | None]
    words: Sequence[str] = ()


def drawn_sheet(heads: Sequence[Sequence[str]], strips: Sequence[Strip], most_bytes: int) -> bytes:
    """The sheet as PNG, with images as large as they are, or smaller where the file has to be.

    Args:
        heads: lines of text above each column.
        strips: from the top, as many images in each as there are columns.
        most_bytes: of the file, which it keeps but for images of 32 pixels.
    """
    first = next(image for image in strips[0].images if image is not None)
    height, width = first.shape[:2]
    content = b""
    for side in [min(height, _SIDES[0]), *(side for side in _SIDES if side < height)]:
        size = max(1, round(width * side / height)), side
        content = _encoded(_drawn(heads, strips, size))
        if len(content) <= most_bytes:
            break
    return content


def _encoded(picture: Picture) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _drawn(
    heads: Sequence[Sequence[str]], strips: Sequence[Strip], size: tuple[int, int]
) -> Picture:
    from PIL import Image, ImageDraw, ImageFont

    across, down = size
    top = _GAP + _LINE * max(map(len, heads))
    box = (_GAP + (across + _GAP) * len(heads), top + _GAP + (down + _GAP) * len(strips))
    sheet = Image.new("RGB", box, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)

    def write(lines: Sequence[str], left: int, y: int) -> None:
        for number, line in enumerate(lines):
            draw.text((left, y + _LINE * number), _fitting(line, across, font), _INK, font)

    for column, lines in enumerate(heads):
        write(lines, _GAP + column * (across + _GAP), _GAP)
    for row, strip in enumerate(strips):
        y = top + _GAP + row * (down + _GAP)
        write(strip.words, _GAP, y)
        for column, image in enumerate(strip.images):
            if image is not None:
                tile = Image.fromarray(image).resize(size, Image.Resampling.BOX)
                sheet.paste(tile, (_GAP + column * (across + _GAP), y))
    return sheet


def _fitting(line: str, width: int, font: FreeTypeFont | ImageFont) -> str:
    """A line of letters that the font has, cut where the column ends."""
    plain = sanitize(line, 80).encode("ascii", "replace").decode()
    while len(plain) > 1 and font.getlength(plain) > width:
        plain = plain[:-1]
    return plain
