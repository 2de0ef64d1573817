"""The metric ``perceptual``: how far images are from one another in the eyes of a net.

Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", in its
form without learned weights: features at each place are brought to length 1, and squared
differences are added up over channels. The net is EfficientNet-Lite0 with ImageNet's weights,
frozen, after its blocks 0, 2 and 4, at a half, a quarter and an eighth of the resolution, in place
of AlexNet and VGG. Numbers are therefore none of those that are published as LPIPS.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.effects.lite0_features import BLOCKS, Lite0Features
from compress.errors import DataError

__all__ = ["perceptual"]

Array = np.ndarray[Any, Any]

_BATCH = 8
_LEAST = 1e-10  # of a length


def perceptual(outputs: Array, labels: Array) -> Array:
    """The perceptual distance of each image to its label, ``(n,)``; less is better, 0 is equal.

    The mean over the blocks of the mean over places of the squared difference of features of
    length 1: at most 4.

    Args:
        outputs: images ``(n, 3, height, width)`` with pixels from 0 to 1, at which they are cut.
        labels: likewise.

    Raises:
        DataError: they are no such images, or not of one shape.
        MissingExtra: the net's weights are not installed.
    """
    if outputs.shape != labels.shape or outputs.ndim != 4 or outputs.shape[1] != 3:
        raise DataError(
            "scoring: the metric perceptual is of images (n, 3, height, width) and of labels of "
            f"the same shape; got {outputs.shape} and {labels.shape}."
        )
    found = [
        _distances(outputs[start : start + _BATCH], labels[start : start + _BATCH])
        for start in range(0, len(outputs), _BATCH)
    ]
    return np.concatenate(found)


perceptual.higher_is_better = False  # type: ignore[attr-defined]


@torch.no_grad()
def _distances(outputs: Array, labels: Array) -> Array:
    made, wanted = (
        _features(torch.from_numpy(np.ascontiguousarray(each, np.float32)))
        for each in (outputs, labels)
    )
    each = [(made[n] - wanted[n]).square().sum(1).mean((1, 2)) for n in BLOCKS]
    found: Array = torch.stack(each).mean(0).double().numpy()
    return found


def _features(pixels: Tensor) -> Mapping[int, Tensor]:
    """Features of length 1 at each place, by block."""
    found = _net()(pixels.clamp(0, 1))
    return {n: x / x.norm(dim=1, keepdim=True).clamp_min(_LEAST) for n, x in found.items()}


@lru_cache(maxsize=1)
def _net() -> Lite0Features:
    return Lite0Features("the metric perceptual")
