"""The effect ``style-transfer``: an image in the style of another, optimized for each image.

Neural neighbor style transfer (Kolkin, Kucera, Paris, Sykora, Shechtman and Shakhnarovich 2022):
every place of the image is given features of those places of the style that it resembles most, and
the image is changed until it has them. The net is EfficientNet-Lite0 in place of VGG, which is ten
times as fast. Matches are means over the nearest places, and each step of the optimization sees the
image shifted by another part of the net's stride (the jitter of Olah, Mordvintsev and Schubert
2017): the same thing looks the same wherever it is. With the Gram matrices of Gatys et al. (2016)
what is made of one place depends on all others, and moves when the camera does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from compress.config.fields import Number, Whole
from compress.effects.lite0_features import BLOCKS, STRIDE, Lite0Features
from compress.effects.photographs import PHOTOGRAPHS, PhotographName, photograph
from compress.errors import RecipeError

__all__ = ["StyleTransfer"]

# The sides of the style image in pixels: strokes are as large as they are at this size.
_STYLE_SIDE = 256
# Of the optimization: the change of a pixel in the first step, and how far gradients are averaged.
_RATE, _BETAS = 0.04, (0.9, 0.99)
# Shifts of the image and of the style, in pixels, in an order without a pattern.
_SHIFTS = [
    divmod(int(one), STRIDE) for one in np.random.RandomState(0).permutation(STRIDE * STRIDE)
]
_IMAGE_SHIFTS, _STYLE_SHIFTS = _SHIFTS[:16], _SHIFTS[:4]

Array = np.ndarray[Any, Any]
_Features = dict[int, Tensor]


class _Places(NamedTuple):
    """What the style has: ``keys`` are compared, ``values`` are taken, a row for each place."""

    mean: Tensor
    keys: Tensor
    values: dict[int, Tensor]
    variance: dict[int, Tensor]


class StyleTransfer:
    """An image in the style of another; it has no controls.

    Args:
        style: the image with the style: a path from the recipe, or the name of a photograph
            that comes with scikit-image or scikit-learn, such as ``flower``.
        iterations: of the optimization of each image; the time grows with it.
        temperature: of the softmax over places of the style: near 0 only the nearest counts.
        smoothness: the weight of the image's total variation (Rudin, Osher and Fatemi 1992): more
            leaves broader areas of one color.
    """

    def __init__(
        self,
        *,
        style: PhotographName | Path = "flower",
        iterations: Annotated[Whole, Field(ge=1, le=10_000)] = 32,
        temperature: Annotated[Number, Field(gt=0, le=10)] = 0.02,
        smoothness: Annotated[Number, Field(ge=0, le=1e6)] = 8.0,
    ) -> None:
        self.style, self.iterations = style, iterations
        self.temperature, self.smoothness = float(temperature), float(smoothness)

    def __call__(self, image: Array, controls: Mapping[str, float]) -> Array:
        """The image in the other's style, ``(height, width, 3)`` in numbers from 0 to 1.

        Raises:
            RecipeError: there are controls, or there is no such style.
            MissingExtra: the net's weights or the photograph are not installed.
        """
        if controls:
            raise RecipeError(
                f"the effect style-transfer has no controls; it was given {', '.join(controls)}."
            )
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            wanted = [self._wanted(pixels, shift) for shift in _IMAGE_SHIFTS[: self.iterations]]
        with torch.enable_grad():
            made = self._optimized(pixels, wanted)
        found: Array = made[0].permute(1, 2, 0).clamp(0, 1).numpy()
        return found

    def _optimized(self, pixels: Tensor, wanted: Sequence[_Features]) -> Tensor:
        made = pixels.clone().requires_grad_()
        optimizer = torch.optim.Adam([made], _RATE, betas=_BETAS)
        for step in range(self.iterations):
            optimizer.param_groups[0]["lr"] = _RATE * (1 - step / self.iterations)
            number = step % len(wanted)
            optimizer.zero_grad()
            features = self._features(_shifted(made, _IMAGE_SHIFTS[number]))
            loss = self._distance(features, wanted[number])
            loss = loss + self.smoothness * _total_variation(made)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return made.detach()

    def _distance(self, features: _Features, wanted: _Features) -> Tensor:
        """The mean square of the features' errors, over the variance that the style's have."""
        variance = self._places.variance
        parts = [(features[b] - wanted[b]).square().mean() / variance[b] for b in BLOCKS]
        return torch.stack(parts).mean()

    def _wanted(self, pixels: Tensor, shift: tuple[int, int]) -> _Features:
        """The features that a shifted image should have, by block."""
        style = self._places
        # Places are compared by the last block.
        features = self._features(_shifted(pixels, shift))[BLOCKS[-1]]
        found = F.normalize(_rows(features) - style.mean, dim=1)
        shares = torch.softmax(found @ style.keys.T / self.temperature, dim=1)
        height, width = features.shape[-2:]
        return {
            block: F.pixel_shuffle(
                (shares @ values).T.reshape(1, -1, height, width), _side_of(block)
            )
            for block, values in style.values.items()
        }

    @cached_property
    def _places(self) -> _Places:
        pixels = _style_pixels(self.style)
        with torch.no_grad():
            features = [self._features(_shifted(pixels, shift)) for shift in _STYLE_SHIFTS]
        own = torch.cat([_rows(one[BLOCKS[-1]]) for one in features])
        mean = own.mean(dim=0)
        values = {
            block: torch.cat(
                [_rows(F.pixel_unshuffle(f[block], _side_of(block))) for f in features]
            )
            for block in BLOCKS
        }
        # A style of one color has no variance, and no error is to be divided by it.
        variance = {b: features[0][b].var().clamp_min(1e-6) for b in BLOCKS}
        return _Places(mean, F.normalize(own - mean, dim=1), values, variance)

    @cached_property
    def _features(self) -> Lite0Features:
        return Lite0Features("the effect style-transfer")


def _style_pixels(style: Path | str) -> Tensor:
    """The style image, ``(1, 3, side, side)``."""
    from compress.effects.reading import read_square

    known = photograph(style) if isinstance(style, str) else None
    if known is None and not Path(style).is_file():
        raise RecipeError(
            f"the effect style-transfer: style: there is no file {style}, and no photograph of "
            f"this name: {', '.join(one.name for one in PHOTOGRAPHS)}."
        )
    pixels = read_square(Path(style) if known is None else known.path, _STYLE_SIDE)
    return torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255


def _shifted(pixels: Tensor, shift: tuple[int, int]) -> Tensor:
    """The image seen from elsewhere, mirrored at its edges; sides are multiples of the stride."""
    height, width = (-(-side // STRIDE) * STRIDE + STRIDE for side in pixels.shape[-2:])
    down, right = STRIDE - shift[0], STRIDE - shift[1]
    below, beside = height - pixels.shape[-2] - down, width - pixels.shape[-1] - right
    return F.pad(pixels, (right, beside, down, below), mode="reflect")


def _rows(features: Tensor) -> Tensor:
    """A map ``(1, channels, height, width)`` as ``(places, channels)``."""
    return features[0].flatten(1).T


def _side_of(block: int) -> int:
    """How many places of a block lie side by side in one of the last block."""
    return 1 << (len(BLOCKS) - 1 - BLOCKS.index(block))


def _total_variation(image: Tensor) -> Tensor:
    """The mean length of the gradient; of none at all the root would have no derivative."""
    down = image[..., 1:, :-1] - image[..., :-1, :-1]
    across = image[..., :-1, 1:] - image[..., :-1, :-1]
    return (down.square() + across.square() + 1e-4).sqrt().mean()
