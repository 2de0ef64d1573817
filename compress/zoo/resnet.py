"""ResNet: a residual CNN for small images, the usual teacher.

Topology: the CIFAR networks of He et al. 2016, "Deep Residual Learning for Image Recognition",
section 4.2: a 3x3 stem, three stages of basic blocks at widths w, 2w, 4w, the second and third
starting with stride 2, global average pooling, a linear head. Shortcuts that change shape are 1x1
convolutions (the paper's option B): padded ones (option A) tie channels together by position,
which leaves nothing to prune. With one block in each stage it is the ResNet-8 of MLPerf Tiny
(Banbury et al. 2021, "MLPerf Tiny Benchmark"; github.com/mlcommons/tiny, image_classification).

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResNet"]


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            norm = nn.BatchNorm2d(out_channels)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes)``; any ``h`` and ``w``.

    With the defaults 174,970 parameters.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of the first stage; the second has twice, the third four times as many.
        blocks: blocks in each of the three stages.
        stem_stride: 2 halves the image at once, which makes a quarter of the work of a student
            that is to be fast.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        classes: int = 10,
        width: int = 16,
        blocks: int = 2,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, stem_stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        widths = [stage * width for stage in (1, 2, 4) for _ in range(blocks)]
        before = [width, *widths[:-1]]
        self.blocks = nn.Sequential(
            *(
                _BasicBlock(i, o, stride=1 if i == o else 2)
                for i, o in zip(before, widths, strict=True)
            )
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
