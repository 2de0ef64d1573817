"""The effect ``oil-paint``: noise off by non-local means, then strokes of few colors.

Non-local means is Buades, Coll and Morel 2005, "A non-local algorithm for image denoising": every
pixel becomes the mean of those in a window whose patches look like its own. The strokes are the
oil filter of many drawing programs: around each pixel, the mean color of the commonest brightness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from compress.config.fields import Number, Whole
from compress.effects.strength import strength_of
from compress.errors import MissingExtra

__all__ = ["OilPaint"]

Array = np.ndarray[Any, Any]

# Of non-local means: what a patch may differ by, of pixels from 0 to 1, at full strength.
_FILTERING = 0.12
_PATCH = 5


@dataclass(frozen=True)
class OilPaint:
    """An oil painting of an image; the control ``strength``, from 0 to 1, says how much of it.

    At strength 0 the image stays as it is. Without the control it is 1.

    Args:
        search: how far away patches are looked for, in pixels; the time grows with its square.
        radius: of a stroke, in pixels.
        colors: brightnesses that are told apart.
    """

    search: Annotated[Whole, Field(ge=1, le=50)] = 8
    radius: Annotated[Whole, Field(ge=1, le=50)] = 4
    colors: Annotated[Whole, Field(ge=2, le=64)] = 10

    def __call__(self, image: Array, controls: Mapping[str, Number]) -> Array:
        """The painting ``(height, width, 3)`` in numbers from 0 to 1.

        Raises:
            RecipeError: a control that it does not have, or a strength beyond 0 and 1.
            MissingExtra: scikit-image is not installed.
        """
        strength = strength_of(controls, "oil-paint", 1.0)
        pixels = image.astype(np.float32) / 255
        if strength == 0:
            return pixels
        smooth = _without_noise(pixels, self.search, strength)
        painted: Array = pixels + strength * (self._strokes(smooth) - pixels)
        return painted.clip(0, 1)

    def _strokes(self, pixels: Array) -> Array:
        """Around each pixel, the mean color of the brightness that most pixels have."""
        from scipy.ndimage import uniform_filter

        width = 2 * self.radius + 1
        brightness = (pixels.mean(axis=2) * self.colors).astype(int).clip(0, self.colors - 1)
        most = np.full(brightness.shape, -1.0, np.float32)
        found = np.zeros_like(pixels)
        for color in range(self.colors):
            there = (brightness == color).astype(np.float32)
            share = uniform_filter(there, width, mode="nearest")
            sums = uniform_filter(pixels * there[..., None], (width, width, 1), mode="nearest")
            more = share > most
            most = np.where(more, share, most)
            found = np.where(more[..., None], sums / np.maximum(share, 1e-6)[..., None], found)
        return found


def _without_noise(pixels: Array, search: int, strength: float) -> Array:
    try:
        from skimage.restoration import denoise_nl_means
    except ImportError as error:
        raise MissingExtra(
            "the effect oil-paint needs scikit-image: pip install 'compresskit[effects]'."
        ) from error
    smooth: Array = denoise_nl_means(
        pixels,
        patch_size=_PATCH,
        patch_distance=search,
        h=_FILTERING * strength,
        fast_mode=False,
        channel_axis=2,
    )
    # Where no other patch is nearly alike, all weights are 0 and their mean is not a number.
    found: Array = np.where(np.isfinite(smooth), smooth, pixels).astype(np.float32)
    return found
