"""Augmentations of image batches: all samples at once, all randomness from the given generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ShiftFlip"]


@dataclass(frozen=True)
class ShiftFlip:
    """Shift each image of a batch ``(n, c, h, w)``, and perhaps mirror it, independently.

    A shift by up to ``shift`` pixels each way is the random crop of a padded image (Krizhevsky et
    al. 2012, as used by He et al. 2016 for small images).

    Args:
        shift: largest shift in pixels along each axis.
        fill: value of the pixels that come in at the border: that of the background.
        flip: whether half of the images are mirrored left to right.
    """

    shift: int
    fill: float
    flip: bool

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """A new batch; ``inputs`` are left as they are."""
        count, _, height, width = inputs.shape
        rows, columns, mirrored = _draw(count, 2 * self.shift + 1, generator).to(inputs.device)
        padded = F.pad(inputs, [self.shift] * 4, value=self.fill)
        # Views of every window; indexing copies the one that each image was dealt.
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        moved = windows[torch.arange(count, device=inputs.device), :, rows, columns]
        if not self.flip:
            return moved
        return torch.where(mirrored.view(-1, 1, 1, 1).bool(), moved.flip(3), moved)


def _draw(count: int, places: int, generator: torch.Generator) -> Tensor:
    """Row, column and side for each image; always all three, so that ``flip`` moves no shift."""
    shifts = torch.randint(places, (2, count), generator=generator, device=generator.device)
    sides = torch.randint(2, (1, count), generator=generator, device=generator.device)
    return torch.cat((shifts, sides))
