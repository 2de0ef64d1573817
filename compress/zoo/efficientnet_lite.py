"""EfficientNet-Lite0: EfficientNet-B0 without gates and swishes, all of which has int8 kernels.

Topology: Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
table 1, with what its authors changed for the Lite variants (github.com/tensorflow/tpu,
models/official/efficientnet/lite): no squeeze-and-excitation, ReLU6 throughout; less its dropout.
Padding and norms are TensorFlow's, which the published weights were trained with.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from compress.zoo.mobilenet_v2 import eights

__all__ = ["EfficientNetLite0"]

# Of each run of blocks: expansion, kernel, channels at width 32, blocks, stride of the first.
_RUNS = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
_BLOCKS = tuple(
    (expansion, kernel, channels, stride if number == 0 else 1)
    for expansion, kernel, channels, blocks, stride in _RUNS
    for number in range(blocks)
)
_STEM, _LAST = 32, 1280
_EPSILON = 1e-3


class _Strided(nn.Conv2d):
    """A strided convolution whose uneven padding is at the right and bottom, as in TensorFlow.

    On an even size that differs by a pixel from zeros that are the same on all sides. They are
    added in here and not before, so that what is seen to enter it is what enters its operator,
    which the exporter gives them as an attribute.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As many zeros around the image as give ``size / stride`` outputs, rounded up."""
        above, below = self._zeros(input, 0)
        left, right = self._zeros(input, 1)
        return super().forward(F.pad(input, (left, right, above, below)))

    def _zeros(self, input: Tensor, axis: int) -> tuple[int, int]:
        size, stride = input.shape[2 + axis], self.stride[axis]
        outputs = -(-size // stride)
        zeros = max((outputs - 1) * stride + self.kernel_size[axis] - size, 0)
        return zeros // 2, zeros - zeros // 2


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activates: bool = True,
) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module]()
    kind, padding = (_Strided, 0) if stride > 1 else (nn.Conv2d, kernel // 2)
    parts["conv"] = kind(
        in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False
    )
    parts["norm"] = nn.BatchNorm2d(out_channels, eps=_EPSILON)
    if activates:
        parts["activation"] = nn.ReLU6()
    return nn.Sequential(parts)


class _MBConv(nn.Module):
    """Widens, convolves each channel by itself, narrows, and adds what came in where it fits."""

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        wide = expansion * in_channels
        self.adds = stride == 1 and in_channels == out_channels
        self.expand: nn.Module = nn.Identity()
        if expansion > 1:
            self.expand = _convolution(in_channels, wide, 1)
        self.depthwise = _convolution(wide, wide, kernel, stride, groups=wide)
        self.project = _convolution(wide, out_channels, 1, activates=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes)``; any ``h`` and ``w``.

    4,652,008 parameters at width 32 with 3 channels and 1,000 classes. The published weights are
    for images of 224 x 224 whose bytes were scaled to ``(byte - 127) / 128``.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of the stem; all others scale with it. 32 is Lite0: the larger Lite variants
            are wider in the blocks alone.
        depth: blocks; fewer than 16 leave out the last ones, for small images.

    Raises:
        ValueError: ``depth`` is above 16.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 32, depth: int = 16
    ) -> None:
        super().__init__()
        if depth > len(_BLOCKS):
            raise ValueError(f"depth must be at most {len(_BLOCKS)}; got {depth}")
        before = eights(width)
        self.stem = _convolution(in_channels, before, 3, 2)
        blocks = []
        for expansion, kernel, channels, stride in _BLOCKS[:depth]:
            after = eights(channels * width / _STEM)
            blocks.append(_MBConv(before, after, expansion, kernel, stride))
            before = after
        self.blocks = nn.Sequential(*blocks)
        last = eights(_LAST * width / _STEM)
        self.last = _convolution(before, last, 1)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        x = self.last(self.blocks(self.stem(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
