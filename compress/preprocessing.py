"""Preprocessing: how a picture, a text or numbers become what a model is fed, as plain data.

A task says it once (:attr:`compress.task.Task.preprocessing`): its own reading of files goes by it,
and ``ship/run.py`` does the same without this package. No torch and no numpy.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from compress.errors import DataError

__all__ = [
    "ArrayPreprocessing",
    "Control",
    "ImagePreprocessing",
    "Preprocessing",
    "TextPreprocessing",
]

#: ``cover``: scaled until the image covers the size, and the middle cut out. ``contain``: scaled to
#: fit into the size, in its first corner. ``stretch``: each side by itself.
Fit = Literal["cover", "contain", "stretch"]

_BYTE = 255
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Control:
    """A number that a model takes beside an image, as an input ``(n, 1)`` of this name.

    Args:
        name: of the input.
        low: its lowest value.
        high: its highest.
        default: where nobody says another; the highest without one.

    Raises:
        DataError: a name that is no word, or a range that is none.
    """

    name: str
    low: float
    high: float
    default: float | None = None

    def __post_init__(self) -> None:
        if self.default is None:
            object.__setattr__(self, "default", self.high)
        assert self.default is not None
        ends = (self.low, self.default, self.high)
        if not self.name.isidentifier() or not all(map(math.isfinite, ends)):
            raise DataError(
                f"preprocessing of images: a control has a word for its name, and finite numbers "
                f"for its range; got {self.name!r}, from {self.low} to {self.high}."
            )
        if not self.low <= self.default <= self.high or self.low == self.high:
            raise DataError(
                f"preprocessing of images: the control {self.name} is from {self.low:g} to "
                f"{self.high:g}, and {self.default:g} where nobody says another: the first has to "
                "be less than the second, and the third between them."
            )


@dataclass(frozen=True)
class ImagePreprocessing:
    """An image file as one input ``(channels, height, width)``.

    It is decoded to bytes, scaled (bilinear, with all pixels that a result is made of, as Pillow
    and torchvision do with antialiasing), and then ``(byte * highest / 255 - mean) / std``.

    Args:
        height: of the input, in pixels.
        width: of the input, in pixels.
        channels: 3 for red, green and blue, 1 for grey.
        fit: how an image of another size is brought to this one: ``cover``, ``contain``,
            ``stretch``.
        resize: with ``cover``, what the shorter side is scaled to before the middle is cut out, as
            torchvision's ``Resize(256), CenterCrop(224)`` do; ``None`` for no more than is needed.
        upright: turn images as their EXIF data say.
        draft: decode large JPEG files at a part of their size, as Pillow's ``draft`` does.
        highest: what the brightest byte, 255, is before mean and deviation.
        mean: for each channel, or one for all; ``(0.5, 0.5, 0.5)``.
        std: the deviation, likewise.
        fill: the byte around an image that does not fill the size.
        layout: ``chw`` or ``hwc``: whether the channels come first or last.
        controls: numbers that the model takes beside the image, each an input of its own.

    Raises:
        DataError: a value that cannot be meant.
    """

    height: int
    width: int
    channels: int = 3
    fit: Fit = "cover"
    resize: int | None = None
    upright: bool = True
    draft: bool = False
    highest: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    fill: int = 127
    layout: Literal["chw", "hwc"] = "chw"
    controls: tuple[Control, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name)
            values = (given,) if isinstance(given, (int, float)) else tuple(map(float, given))
            object.__setattr__(self, name, values)
        for problem in self._problems():
            raise DataError(f"preprocessing of images: {problem}.")

    def _problems(self) -> list[str]:
        size, means = self.resize or min(self.height, self.width), (1, self.channels)
        checks = {
            f"height and width are pixels, 1 or more; got {self.height} and {self.width}": min(
                self.height, self.width
            )
            >= 1,
            f"channels is 1 (grey) or 3 (red, green, blue); got {self.channels}": self.channels
            in _CHANNELS,
            f"fit is cover, contain or stretch; got {self.fit!r}": self.fit
            in ("cover", "contain", "stretch"),
            f"layout is chw or hwc; got {self.layout!r}": self.layout in ("chw", "hwc"),
            f"resize is the shorter side before a crop of {self.height} by {self.width} pixels, "
            f"with fit: cover; got {self.resize}": size >= min(self.height, self.width)
            and (self.resize is None or self.fit == "cover"),
            f"mean and std are one number, or one for each of {self.channels} channels; got "
            f"{len(self.mean)} and {len(self.std)}": len(self.mean) in means
            and len(self.std) in means,
            f"std and highest are above 0, and all numbers finite; got mean {self.mean}, std "
            f"{self.std}, highest {self.highest}": all(map(math.isfinite, self.mean))
            and all(0 < one < math.inf for one in (*self.std, self.highest)),
            f"fill is a byte, 0 to 255; got {self.fill}": 0 <= self.fill <= _BYTE,
        }
        return [problem for problem, holds in checks.items() if not holds]

    @property
    def divisor(self) -> float:
        """What bytes are divided by before mean and deviation."""
        return _BYTE / self.highest

    @property
    def darkest(self) -> float:
        """What black becomes, in the first channel."""
        return -self.mean[0] / self.std[0]

    def to_json(self) -> dict[str, Any]:
        """Its fields as ``model.json`` has them."""
        return {"kind": "image", **asdict(self), "controls": [asdict(one) for one in self.controls]}


@dataclass(frozen=True)
class TextPreprocessing:
    """A text as ids of tokens, of one length.

    Args:
        tokenizer: ``tokenizer.json``, or the folder that has it; ``None`` where ``characters`` are
            the tokens.
        length: tokens of an input; what is longer is cut, what is shorter is padded behind.
        pad_id: the token behind the end.
        characters: the names of all tokens, by id, where each character is one.
        unknown_id: of a character that is none of them.
        begin_id: a token that comes before every text; ``None`` for none but the tokenizer's own.
        keep: which part of a longer text stays, ``first`` or ``last``.

    Raises:
        DataError: neither a tokenizer nor characters, both, or no length.
    """

    tokenizer: Path | None = None
    length: int = 0
    pad_id: int = 0
    characters: tuple[str, ...] = ()
    unknown_id: int = 0
    begin_id: int | None = None
    keep: Literal["first", "last"] = "first"

    def __post_init__(self) -> None:
        if self.tokenizer is not None:
            object.__setattr__(self, "tokenizer", Path(self.tokenizer))
        if (self.tokenizer is None) == (not self.characters):
            raise DataError(
                "preprocessing of texts: give the tokenizer (a tokenizer.json, or its folder) or "
                "the characters that are tokens, one of them."
            )
        if self.length < 1 or self.keep not in ("first", "last"):
            raise DataError(
                "preprocessing of texts: length is the tokens of an input, 1 or more, and keep is "
                f"first or last; got {self.length} and {self.keep!r}."
            )

    @property
    def file(self) -> Path | None:
        """The tokenizer's file, where there is one."""
        if self.tokenizer is None or self.tokenizer.is_file():
            return self.tokenizer
        return self.tokenizer / "tokenizer.json"

    def to_json(self) -> dict[str, Any]:
        """Its fields as ``model.json`` has them: the tokenizer lies beside it."""
        file = None if self.tokenizer is None else "tokenizer.json"
        return {"kind": "text", **asdict(self), "tokenizer": file}


@dataclass(frozen=True)
class ArrayPreprocessing:
    """Numbers as they are.

    Args:
        features: the names of the numbers of an input that is a vector, in their order.
    """

    features: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its fields as ``model.json`` has them."""
        return {"kind": "array", **asdict(self)}


#: How an input is made. Without any, arrays are fed as they are.
Preprocessing = ImagePreprocessing | TextPreprocessing | ArrayPreprocessing
