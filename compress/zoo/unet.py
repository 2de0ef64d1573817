"""U-Net: an encoder and a decoder with skip connections, for a label at every pixel.

Topology: Ronneberger, Fischer and Brox 2015, "U-Net", with two levels, padded convolutions and
batch normalization. The decoder enlarges by nearest neighbor before a convolution in place of a
transposed convolution (Odena, Dumoulin and Olah 2016, "Deconvolution and Checkerboard
Artifacts"), which has no int8 kernel in onnxruntime.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TwoConvs", "UNet"]


class TwoConvs(nn.Module):
    """Two 3x3 convolutions, the first of which may halve the resolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, out_channels, h / stride, w / stride)``."""
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


class UNet(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes, h, w)``; ``h``, ``w`` at least 4.

    Args:
        in_channels: channels of an image.
        classes: length of the logits at each pixel.
        width: channels at full resolution; a half has twice, a quarter four times as many.
    """

    def __init__(self, *, in_channels: int = 1, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.down1 = TwoConvs(in_channels, width)
        self.down2 = TwoConvs(width, 2 * width)
        self.middle = TwoConvs(2 * width, 4 * width)
        self.up2 = TwoConvs(6 * width, 2 * width)
        self.up1 = TwoConvs(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each pixel."""
        full = self.down1(x)
        half = self.down2(F.max_pool2d(full, 2))
        quarter = self.middle(F.max_pool2d(half, 2))
        x = self.up2(_joined(quarter, half))
        x = self.up1(_joined(x, full))
        logits: Tensor = self.head(x)
        return logits


def _joined(coarse: Tensor, skip: Tensor) -> Tensor:
    """``coarse`` enlarged to the resolution of ``skip``, and ``skip``, as one tensor."""
    enlarged = F.interpolate(coarse, size=skip.shape[-2:], mode="nearest")
    return torch.cat((enlarged, skip), dim=1)
