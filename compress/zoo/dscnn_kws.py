"""Keyword DSCNN: the depthwise-separable CNN for spotting keywords in speech.

Topology: DS-CNN of Zhang et al. 2017, "Hello Edge: Keyword Spotting on Microcontrollers", in the
size that MLPerf Tiny uses (Banbury et al. 2021, "MLPerf Tiny Benchmark"; github.com/mlcommons/tiny,
keyword_spotting): one large convolution over time and frequency, then separable blocks at one
width and resolution. Padding is the same on both sides, which gives maps of the reference's size.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compress.zoo.dscnn import Separable

__all__ = ["KeywordDSCNN"]


class KeywordDSCNN(nn.Module):
    """Spectrograms ``(n, in_channels, frames, coefficients)`` to logits ``(n, classes)``.

    Any number of frames and coefficients, at least 2; the reference has 49 and 10. 23,180
    parameters by default.

    Args:
        in_channels: channels of a spectrogram.
        classes: length of the logits.
        width: channels of every layer.
        depth: how many separable blocks follow each other.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 12, width: int = 64, depth: int = 4
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, (10, 4), stride=2, padding=(5, 1), bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Separable(width, width, stride=1) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each spectrogram."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
