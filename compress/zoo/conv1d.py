"""Conv1d net: a CNN over sequences such as sensor traces or audio.

Topology: the fully convolutional baseline of Wang, Yan and Oates 2017, "Time Series
Classification from Scratch with Deep Neural Networks" (kernels of 8, 5 and 3, then global average
pooling), with odd kernels and strides of 2, so that a longer sequence costs less.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conv1dNet"]


class Conv1dNet(nn.Module):
    """Sequences ``(n, in_channels, length)`` to logits ``(n, classes)``; any ``length``.

    Args:
        in_channels: values at each step of a sequence.
        classes: length of the logits.
        width: channels of the first convolution; the other two have twice as many.
    """

    def __init__(self, *, in_channels: int = 1, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, 2 * width, 5, stride=2, padding=2, bias=False)
        self.norm2 = nn.BatchNorm1d(2 * width)
        self.conv3 = nn.Conv1d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm1d(2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each sequence."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.relu(self.norm3(self.conv3(x)))
        logits: Tensor = self.head(x.mean(2))
        return logits
