"""A convolutional net with several heads: numbers of different kinds from one image.

The trunk's last map is flattened, not averaged, so that heads know where something is. Heads that
share a trunk are Caruana's 1997 "Multitask Learning".

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MultiHead"]

_STRIDE = 8
_ONE_NUMBER: Mapping[str, int] = MappingProxyType({"output": 1})


class MultiHead(nn.Module):
    """Square images ``(n, in_channels, image_size, image_size)`` to numbers by the heads' names.

    Returns ``(n, size)`` for each head.

    Args:
        outputs: the size of each head, by name.
        in_channels: channels of an image.
        width: channels of the first convolution; the second has twice, the third four times as
            many, each at half the resolution of the one before.
        depth: linear layers between the map and the heads.
        image_size: side of an image in pixels, at least 8: the linear layers depend on it.

    Raises:
        ValueError: ``image_size`` is below 8, or the name of a head is no identifier.
    """

    def __init__(
        self,
        *,
        outputs: Mapping[str, int] = _ONE_NUMBER,
        in_channels: int = 1,
        width: int = 16,
        depth: int = 1,
        image_size: int = 64,
    ) -> None:
        super().__init__()
        if image_size < _STRIDE:
            raise ValueError(f"image_size must be at least {_STRIDE}; got {image_size}")
        for name in outputs:
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(f"{name!r} cannot name a head; give a word such as position")
        sizes = [in_channels, width, 2 * width, 4 * width]
        self.convs = nn.ModuleList(
            nn.Conv2d(ins, outs, 3, stride=2, padding=1, bias=False)
            for ins, outs in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outs) for outs in sizes[1:])
        side = -(-image_size // _STRIDE)
        features = [4 * width * side * side, *(8 * width for _ in range(depth))]
        self.hidden = nn.ModuleList(nn.Linear(ins, outs) for ins, outs in pairwise(features))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(features[-1], size) for name, size in outputs.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The numbers of each head."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return {name: head(x) for name, head in self.heads.items()}
