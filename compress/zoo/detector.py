"""A single-stage detector without anchors, at one resolution.

Topology: the head of Tian et al. 2019, "FCOS", one convolution each for boxes and for scores, on
the plain convolutional trunk of small images; a cell of the last map answers for the boxes around
its center. What it returns is made into boxes outside of the net
(:func:`compress.tasks.detection.detections`).

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from compress.zoo.unet import TwoConvs

__all__ = ["Detector"]

# What a fresh net says of every cell: that hardly any has an object (Lin et al. 2017).
_PRIOR = 0.01


class Detector(nn.Module):
    """Images ``(n, in_channels, h, w)`` to boxes and scores for each cell of 8 by 8 pixels.

    Returns ``boxes`` ``(n, cells, 4)``, the distances of the left, top, right and bottom edges from
    the cell's center in widths of a cell, and ``scores`` ``(n, cells, classes)``, a logit for each
    class. Cells are in the order of rows; ``h`` and ``w`` are multiples of 8.

    Args:
        in_channels: channels of an image.
        classes: how many kinds of objects there are.
        width: channels of the stem, at half of the resolution; a quarter has twice, an eighth four
            times as many.
        depth: blocks at an eighth of the resolution.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 16, depth: int = 2
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            TwoConvs(width, 2 * width, stride=2),
            TwoConvs(2 * width, 4 * width, stride=2),
            *(TwoConvs(4 * width, 4 * width, stride=1) for _ in range(depth - 1)),
        )
        self.boxes = nn.Conv2d(4 * width, 4, 3, padding=1)
        self.scores = nn.Conv2d(4 * width, classes, 3, padding=1)
        for head, bias in ((self.boxes, 1.0), (self.scores, -math.log(1 / _PRIOR - 1))):
            assert head.bias is not None
            nn.init.constant_(head.bias, bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Boxes and scores of each cell."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return {"boxes": _by_cell(self.boxes(x)), "scores": _by_cell(self.scores(x))}


def _by_cell(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)
