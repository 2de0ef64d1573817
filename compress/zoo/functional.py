"""Functional net: a small CNN whose activations, pooling and reshaping are not modules.

Topology: LeNet's plan (LeCun et al. 1998: convolutions, pooling, two linear layers over the
flattened map) with an Inception-like pair of branches (Szegedy et al. 2015) that are
concatenated. It is written as much hand-made code is, with ``F.relu``, ``F.max_pool2d``,
``torch.cat`` and ``view``: a method that looks only at modules sees half of it.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FunctionalNet"]


class FunctionalNet(nn.Module):
    """Square images ``(n, in_channels, image_size, image_size)`` to logits ``(n, classes)``.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of the stem and of each branch.
        image_size: side of an image in pixels, at least 4: the linear layers depend on it.

    Raises:
        ValueError: ``image_size`` is below 4.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 16, image_size: int = 28
    ) -> None:
        super().__init__()
        if image_size < 4:
            raise ValueError(f"image_size must be at least 4; got {image_size}")
        side = image_size // 2 // 2
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.near = nn.Conv2d(width, width, 1)
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(2 * width, 2 * width, 1)
        self.hidden = nn.Linear(2 * width * side * side, 2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = torch.cat((self.near(x), self.wide(x)), dim=1)
        x = F.max_pool2d(F.relu(self.mix(F.relu(x))), 2)
        x = F.relu(self.hidden(x.view(x.size(0), -1)))
        logits: Tensor = self.head(x)
        return logits
