"""MobileNetV3-Small: inverted residuals with gates and a cheap swish.

Topology: Howard et al. 2019, "Searching for MobileNetV3", table 2, less its dropout; the gates are
those of Hu et al. 2018, "Squeeze-and-Excitation Networks", with a hard sigmoid. onnxruntime has no
int8 kernel for the hard sigmoid and the hard swish: in int8 they are computed in float between
int8 convolutions.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compress.zoo.mobilenet_v2 import convolution, eights

__all__ = ["MobileNetV3Small"]

# Of each block: kernel, channels inside and out at width 16, gate, swish (or ReLU), stride.
_BLOCKS = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
_STEM, _HIDDEN = 16, 1024


class _Gate(nn.Module):
    """Weighs each channel by what the averages of all channels say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        fewer = eights(channels // 4)
        self.reduce = nn.Conv2d(channels, fewer, 1)
        self.restore = nn.Conv2d(fewer, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        averages = x.mean((2, 3), keepdim=True)
        return x * F.hardsigmoid(self.restore(F.relu(self.reduce(averages))))


class _GatedInvertedResidual(nn.Module):
    """Widens, convolves each channel by itself, gates, narrows; adds what came in where it fits."""

    def __init__(
        self,
        in_channels: int,
        inside: int,
        out_channels: int,
        kernel: int,
        stride: int,
        *,
        gates: bool,
        swishes: bool,
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if swishes else nn.ReLU
        self.adds = stride == 1 and in_channels == out_channels
        self.expand: nn.Module = nn.Identity()
        if inside != in_channels:
            self.expand = convolution(in_channels, inside, 1, activation=activation())
        self.depthwise = convolution(
            inside, inside, kernel, stride, groups=inside, activation=activation()
        )
        self.gate = _Gate(inside) if gates else nn.Identity()
        self.project = convolution(inside, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + y if self.adds else y


class MobileNetV3Small(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes)``; any ``h`` and ``w``.

    2,542,856 parameters at width 16 with 3 channels and 1,000 classes.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of the stem, 16 times the multiplier; all others scale with it.
        depth: blocks; fewer than 11 leave out the last ones, for small images.

    Raises:
        ValueError: ``depth`` is above 11.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 16, depth: int = 11
    ) -> None:
        super().__init__()
        if depth > len(_BLOCKS):
            raise ValueError(f"depth must be at most {len(_BLOCKS)}; got {depth}")
        scale = width / _STEM
        before = eights(width)
        self.stem = convolution(in_channels, before, 3, 2, activation=nn.Hardswish())
        blocks = []
        for kernel, inside, outside, gates, swishes, stride in _BLOCKS[:depth]:
            wide, after = eights(scale * inside), eights(scale * outside)
            blocks.append(
                _GatedInvertedResidual(
                    before, wide, after, kernel, stride, gates=gates, swishes=swishes
                )
            )
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.last = convolution(before, 6 * before, 1, activation=nn.Hardswish())
        self.hidden = nn.Linear(6 * before, eights(scale * _HIDDEN))
        self.head = nn.Linear(eights(scale * _HIDDEN), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        x = self.last(self.blocks(self.stem(x))).mean((2, 3))
        logits: Tensor = self.head(F.hardswish(self.hidden(x)))
        return logits
