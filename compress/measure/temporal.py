"""How steady a filter of images is where what it is shown moves: the moved output is the measure.

As the warping error of Lai et al. 2018, "Learning blind video temporal consistency", which compares
a frame with the one before it, moved by the optical flow. Here the motion is known: the same
picture, one pixel further, so that no flow has to be estimated and nothing comes into sight.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from compress.measure.ondevice.scoring import scores

__all__ = ["STEPS", "temporal_stability"]

Array = np.ndarray[Any, Any]

#: How often the picture moves; it is so many pixels larger than the net's images.
STEPS = 4
_MARGIN = 8  # of the smaller side: what is near the edge sees the edge move


def temporal_stability(made_of: Callable[[Array], Array], pixels: Array, size: int) -> float:
    """How alike a filter's outputs are for a picture that moves by a pixel, in dB; more is better.

    A crop moves down and to the right by a pixel at a time. Each output, moved back, is compared
    with the one before it, without an eighth of their size at each edge. 60 dB, the most, is a
    filter that does the same to the same picture wherever it stands.

    Args:
        made_of: makes an image of an image, both ``(size, size, 3)`` in bytes.
        pixels: of the picture, a square with at least one more pixel than ``size`` at each side;
            each further one is a further step.
        size: of the crops.
    """
    steps = len(pixels) - size
    outputs = [made_of(pixels[k : k + size, k : k + size]) for k in range(steps + 1)]
    edge = size // _MARGIN
    inner, before = slice(edge, size - 1 - edge), slice(edge + 1, size - edge)
    found = [
        scores(b[None, inner, inner] / 255, a[None, before, before] / 255, "psnr")[0]
        for a, b in pairwise(outputs)
    ]
    return float(np.mean(found))
