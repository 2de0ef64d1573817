"""What a map of colors makes of an image: the least that a net has to be better than.

A filter that gives each color another one, wherever it stands, needs no net: a table does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from compress.measure.ondevice.scoring import scores
from compress.tasks.pairs.making import Arrays

__all__ = ["ColorMap", "WithoutNet", "without_net"]

Array = np.ndarray[Any, Any]

# Cubic polynomials of the three channels, as cameras' colors are corrected with.
_DEGREE = 3
# Pixels to learn from, of all images together; a map has 20 numbers for each channel.
_MOST_PIXELS = 200_000


class ColorMap:
    """The cubic map of colors that comes nearest to what a teacher made, by least squares.

    Where there are controls, it depends on them linearly.

    Args:
        pairs: images and the teacher's, ``(n, 3, height, width)`` in bytes, and controls.
    """

    def __init__(self, pairs: Arrays) -> None:
        images, made, controls = pairs
        # Every so many pixels: neighbors are alike.
        apart = max(1, images[:, 0].size // _MOST_PIXELS) | 1
        given = [_terms(image, _of(controls, i))[::apart] for i, image in enumerate(images)]
        wanted = [_colors(one)[::apart] for one in made]
        self._weights = np.linalg.lstsq(np.concatenate(given), np.concatenate(wanted))[0]

    def __call__(self, image: Array, controls: Mapping[str, float]) -> Array:
        """The image ``(3, height, width)`` with other colors, in numbers from 0 to 1."""
        values = _terms(image, controls) @ self._weights
        mapped: Array = values.T.reshape(image.shape).clip(0, 1)
        return mapped


@dataclass(frozen=True)
class WithoutNet:
    """PSNR of what needs no net, against the teacher's images, in dB for each image.

    Args:
        unchanged: the image as it comes in.
        color_map: the map of colors that fits the pairs to train on.
        own_color_map: for each image a map of its own, fitted to what it should become: no cubic
            map that learns from other images does better.
    """

    unchanged: Array
    color_map: Array
    own_color_map: Array


def without_net(train: Arrays, test: Arrays) -> WithoutNet:
    """What is reached on the test without a net.

    Args:
        train: pairs to learn from.
        test: pairs to be scored on.
    """
    images, made, controls = test
    wanted = made.astype(np.float64) / 255
    learned, each = ColorMap(train), zip(images, made, strict=True)
    mapped = [learned(image, _of(controls, place)) for place, image in enumerate(images)]
    own = [ColorMap((image[None], its[None], {}))(image, {}) for image, its in each]
    three = (images.astype(np.float64) / 255, np.stack(mapped), np.stack(own))
    return WithoutNet(*(scores(values, wanted, "psnr") for values in three))


def _of(controls: Mapping[str, Array], place: int) -> dict[str, float]:
    return {name: float(values[place, 0]) for name, values in controls.items()}


def _colors(image: Array) -> Array:
    """``(pixels, 3)`` from 0 to 1."""
    colors: Array = image.reshape(3, -1).T.astype(np.float64) / 255
    return colors


def _terms(image: Array, controls: Mapping[str, float]) -> Array:
    """All products of up to three channels, each times 1 and every control."""
    colors = _colors(image)
    powers = [
        colors[:, list(channels)].prod(axis=1)
        for degree in range(_DEGREE + 1)
        for channels in combinations_with_replacement(range(3), degree)
    ]
    alone = np.stack(powers, axis=1)
    return np.concatenate([alone, *(alone * value for value in _values(controls))], axis=1)


def _values(controls: Mapping[str, float]) -> Iterable[float]:
    return (controls[name] for name in sorted(controls))
