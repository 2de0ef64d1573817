"""MobileNetV2: inverted residuals between linear bottlenecks.

Topology: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2,
less its dropout. Channels are rounded to eights as in the authors' code.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["InvertedResidual", "MobileNetV2", "convolution", "eights"]

# Of each run of blocks: expansion, channels at width 32, blocks, stride of the first.
_RUNS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_BLOCKS = tuple(
    (expansion, channels, stride if number == 0 else 1)
    for expansion, channels, blocks, stride in _RUNS
    for number in range(blocks)
)
_STEM, _LAST = 32, 1280


def eights(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than a tenth below ``channels``."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    """A convolution that keeps the resolution but for ``stride``, its norm, its activation."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    parts = OrderedDict[str, nn.Module](conv=conv, norm=nn.BatchNorm2d(out_channels))
    if activation is not None:
        parts["activation"] = activation
    return nn.Sequential(parts)


class InvertedResidual(nn.Module):
    """Widens, convolves each channel by itself, narrows, and adds what came in where it fits."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * in_channels
        self.adds = stride == 1 and in_channels == out_channels
        self.expand: nn.Module = nn.Identity()
        if expansion > 1:
            self.expand = convolution(in_channels, wide, 1, activation=nn.ReLU6())
        self.depthwise = convolution(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6())
        self.project = convolution(wide, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, out_channels, h / stride, w / stride)``."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes)``; any ``h`` and ``w``.

    3,504,872 parameters at width 32 with 3 channels and 1,000 classes.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of the stem, 32 times the multiplier. All others scale with it; the paper
            keeps 1,280 in the last convolution where the multiplier is below 1.
        depth: blocks; fewer than 17 leave out the last ones, for small images.

    Raises:
        ValueError: ``depth`` is above 17.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 32, depth: int = 17
    ) -> None:
        super().__init__()
        if depth > len(_BLOCKS):
            raise ValueError(f"depth must be at most {len(_BLOCKS)}; got {depth}")
        before = eights(width)
        self.stem = convolution(in_channels, before, 3, 2, activation=nn.ReLU6())
        blocks = []
        for expansion, channels, stride in _BLOCKS[:depth]:
            after = eights(channels * width / _STEM)
            blocks.append(InvertedResidual(before, after, expansion, stride))
            before = after
        self.blocks = nn.Sequential(*blocks)
        last = eights(_LAST * width / _STEM)
        self.last = convolution(before, last, 1, activation=nn.ReLU6())
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        x = self.last(self.blocks(self.stem(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
