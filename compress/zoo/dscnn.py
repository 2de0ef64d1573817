"""DSCNN: a depthwise-separable CNN for small images, the usual student.

Topology: MobileNetV1's block (Howard et al. 2017, "MobileNets"), in the shallow, early-strided
form that Zhang et al. 2017, "Hello Edge: Keyword Spotting on Microcontrollers", use where memory
and time are short.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DSCNN", "Separable"]


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution that mixes channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, out_channels, h / stride, w / stride)``."""
        x = F.relu(self.norm1(self.depthwise(x)))
        return F.relu(self.norm2(self.pointwise(x)))


class DSCNN(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes)``; any ``h`` and ``w``.

    The stem halves the resolution and the second block halves it again. 13,962 parameters with the
    defaults, 49,418 at width 32.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of the stem; the first block has twice, the others four times as many.
        depth: blocks at full width, after the two that widen.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 16, depth: int = 2
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            Separable(width, 2 * width, stride=1),
            Separable(2 * width, 4 * width, stride=2),
            *(Separable(4 * width, 4 * width, stride=1) for _ in range(depth)),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
