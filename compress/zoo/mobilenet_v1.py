"""MobileNetV1: depthwise-separable convolutions all the way down.

Topology: Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", table 1. At width 8 (a multiplier of 0.25) and 96 x 96 pixels it is the person
detector of MLPerf Tiny (Banbury et al. 2021, "MLPerf Tiny Benchmark"; github.com/mlcommons/tiny,
visual_wake_words).

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compress.zoo.dscnn import Separable

__all__ = ["MobileNetV1"]

# Of each block: its channels as a multiple of the stem's, and its stride.
_BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))


class MobileNetV1(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes)``; any ``h`` and ``w``.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of the stem, which the others are multiples of: 32 times the multiplier.
        depth: separable blocks; fewer than 13 leave out the last ones, for small images.

    Raises:
        ValueError: ``depth`` is above 13.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 32, depth: int = 13
    ) -> None:
        super().__init__()
        if depth > len(_BLOCKS):
            raise ValueError(f"depth must be at most {len(_BLOCKS)}; got {depth}")
        self.stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, before = [], width
        for multiple, stride in _BLOCKS[:depth]:
            blocks.append(Separable(before, multiple * width, stride))
            before = multiple * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
