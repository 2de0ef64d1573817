"""The effect ``style-transfer``: an image in the style of another, optimized for each image.

Gatys, Ecker and Bethge 2016, "Image style transfer using convolutional neural networks": the image
is changed until features of a net stay what they were, and their correlations over all places, the
Gram matrices, are those of the style. The net is EfficientNet-Lite0 in place of VGG, which is ten
times as fast. What the image shows are features at a quarter of its resolution, and the style is
compared down to an eighth: with deeper blocks the optimization invents texture that is another one
when the image moves by a few pixels, so that nothing could learn it. For the same reason the change
has less resolution than the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from compress.config.fields import Name, Number, Whole
from compress.effects.lite0_weights import lite0_weights
from compress.effects.photographs import PHOTOGRAPHS, photograph
from compress.errors import RecipeError
from compress.zoo import build

__all__ = ["StyleTransfer"]

# Blocks of the net: whose Gram matrices are the style, at a half, a quarter and an eighth of the
# resolution, and whose features are what the image shows.
_STYLE, _CONTENT = (0, 2, 4), 2
_OPTIONS = {"in_channels": 3, "classes": 1000, "depth": 5}
# What the published weights were trained with.
_MEAN, _STD = 127.0, 128.0
# The sides of the style image in pixels: strokes are as large as they are at this size.
_STYLE_SIDE = 256

Array = np.ndarray[Any, Any]


class StyleTransfer:
    """An image in the style of another; it has no controls.

    Args:
        style: the image with the style: a path from the recipe, or the name of a photograph
            that comes with scikit-image or scikit-learn, such as ``china``.
        iterations: of L-BFGS for each image; the time grows with it.
        style_weight: of the style, against 1 for what the image shows.
        smoothness: the weight of differences between neighbors in the change.
        coarseness: the resolution of the image over that of the change.
    """

    def __init__(
        self,
        *,
        style: Path | Name = "china",
        iterations: Annotated[Whole, Field(ge=1, le=10_000)] = 40,
        style_weight: Annotated[Number, Field(gt=0, le=1e6)] = 5.0,
        smoothness: Annotated[Number, Field(ge=0, le=1e6)] = 2.0,
        coarseness: Annotated[Whole, Field(ge=1, le=64)] = 4,
    ) -> None:
        self.style, self.iterations, self.coarseness = style, iterations, coarseness
        self.style_weight, self.smoothness = float(style_weight), float(smoothness)

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
        shown = self._features(pixels)[_CONTENT].detach()
        scale = shown.square().mean().clamp_min(1e-6)
        coarse = [max(1, side // self.coarseness) for side in pixels.shape[-2:]]
        change = torch.zeros(1, 3, *coarse, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [change], max_iter=self.iterations, history_size=10, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            made = _changed(pixels, change)
            features = self._features(made)
            content = (features[_CONTENT] - shown).square().mean() / scale
            value = content + self.style_weight * self._style_loss(features)
            value = value + self.smoothness * _roughness(change)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        made = _changed(pixels, change.detach())[0].permute(1, 2, 0).clamp(0, 1)
        found: Array = made.numpy()
        return found

    def _style_loss(self, features: Mapping[int, Tensor]) -> Tensor:
        parts = [
            (_gram(features[block]) - wanted).square().sum() / wanted.square().sum()
            for block, wanted in self._grams.items()
        ]
        return torch.stack(parts).mean()

    @cached_property
    def _net(self) -> nn.Module:
        net = build("efficientnet-lite0", _OPTIONS)
        own = net.state_dict()
        weights = lite0_weights()
        # The last layers, which are not run, are another width without the last blocks.
        fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
        net.load_state_dict(fitting, strict=False)
        return net.eval().requires_grad_(False)

    @cached_property
    def _grams(self) -> dict[int, Tensor]:
        """The style's Gram matrices."""
        features = self._features(_style_pixels(self.style))
        return {block: _gram(features[block]) for block in _STYLE}

    def _features(self, pixels: Tensor) -> dict[int, Tensor]:
        x = self._net.get_submodule("stem")((255 * pixels - _MEAN) / _STD)
        found = {}
        for number, block in enumerate(self._net.get_submodule("blocks").children()):
            x = block(x)
            if number in _STYLE or number == _CONTENT:
                found[number] = x
        return found


def _style_pixels(style: Path | str) -> Tensor:
    """The style image, ``(1, 3, side, side)``."""
    from compress.effects.reading import read_square

    known = photograph(str(Path(style).name)) if not Path(style).suffix else None
    if known is None and not Path(style).is_file():
        raise RecipeError(
            f"the effect style-transfer: style: there is no file {style}, and no photograph of "
            f"this name: {', '.join(one.name for one in PHOTOGRAPHS)}."
        )
    pixels = read_square(Path(style) if known is None else known.path, _STYLE_SIDE)
    return torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255


def _changed(pixels: Tensor, change: Tensor) -> Tensor:
    """The image with a change that has less resolution."""
    whole = F.interpolate(change, pixels.shape[-2:], mode="bilinear", align_corners=False)
    return pixels + whole


def _gram(features: Tensor) -> Tensor:
    """Correlations of channels over all places of a map ``(1, channels, height, width)``."""
    flat = features[0].flatten(1)
    return flat @ flat.T / flat.shape[1]


def _roughness(image: Tensor) -> Tensor:
    """The mean square of differences between neighbors."""
    down, across = image.diff(dim=2), image.diff(dim=3)
    return down.square().mean() + across.square().mean()
