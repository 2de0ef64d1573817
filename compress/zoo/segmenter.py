"""A small encoder and decoder for a label at every pixel, with little work at full resolution.

Topology: LinkNet's (Chaurasia and Culurciello 2017): strided convolutions down, and on the way up
the maps of the encoder are added, which costs less than U-Net's concatenation. Maps are enlarged by
nearest neighbor, and the logits last, from half of the resolution.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Segmenter"]


class _Conv(nn.Module):
    """A convolution with its norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Segmenter(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes, h, w)``.

    ``h`` and ``w`` are multiples of 8.

    Args:
        in_channels: channels of an image.
        classes: length of the logits at each pixel.
        width: channels at half of the resolution; a quarter has twice, an eighth four times as
            many.
        depth: convolutions at an eighth of the resolution.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 2, width: int = 16, depth: int = 2
    ) -> None:
        super().__init__()
        self.down2 = _Conv(in_channels, width, 3, stride=2)
        self.down4 = nn.Sequential(
            _Conv(width, 2 * width, 3, stride=2), _Conv(2 * width, 2 * width, 3)
        )
        self.down8 = nn.Sequential(
            _Conv(2 * width, 4 * width, 3, stride=2),
            *(_Conv(4 * width, 4 * width, 3) for _ in range(depth)),
        )
        self.narrow4, self.up4 = _Conv(4 * width, 2 * width, 1), _Conv(2 * width, 2 * width, 3)
        self.narrow2, self.up2 = _Conv(2 * width, width, 1), _Conv(width, width, 3)
        self.head = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each pixel."""
        half = self.down2(x)
        quarter = self.down4(half)
        x = self.up4(_enlarged(self.narrow4(self.down8(quarter))) + quarter)
        x = self.up2(_enlarged(self.narrow2(x)) + half)
        return _enlarged(self.head(x))


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
