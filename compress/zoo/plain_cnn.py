"""PlainCNN: 3x3 convolutions in a row, a student that is to be fast.

Topology: the "plain" networks that He et al. 2016, "Deep Residual Learning for Image Recognition",
section 3.3, compare theirs to, here with strides in place of pooling, as in Springenberg et al.
2015, "Striving for Simplicity: The All Convolutional Net", and with widths that grow by adding, as
in Han et al. 2017, "Deep Pyramidal Residual Networks". So few layers train without shortcuts, each
of which costs an addition, and where the shape changes a 1x1 convolution.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

__all__ = ["PlainCNN"]


class _Convolution(nn.Sequential):
    """A 3x3 convolution, its norm and a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class PlainCNN(nn.Module):
    """Images ``(n, in_channels, h, w)`` to logits ``(n, classes)``; any ``h`` and ``w``.

    Three stages, each of which halves the resolution with its first convolution. 27,834 parameters
    with the defaults.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: what each stage has more channels than the one before; the first has twice as many.
        depth: convolutions in each stage.
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, width: int = 8, depth: int = 2
    ) -> None:
        super().__init__()
        stages = (2 * width, 3 * width, 4 * width)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    _Convolution(before, channels, stride=2),
                    *(_Convolution(channels, channels, stride=1) for _ in range(depth - 1)),
                )
                for before, channels in pairwise((in_channels, *stages))
            )
        )
        self.head = nn.Linear(stages[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        logits: Tensor = self.head(self.stages(x).mean((2, 3)))
        return logits
