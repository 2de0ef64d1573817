"""The loss of segmentation where most pixels are ground.

Cross-entropy and the Dice loss (Milletari, Navab and Ahmadi 2016, "V-Net"), added as in Isensee et
al. 2021, "nnU-Net": the former is a mean over pixels, in which small classes hardly count, the
latter one over classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from compress.errors import DataError
from compress.training.labels import IGNORED

__all__ = ["SegmentationLoss"]

# In pixels: what a class that is hardly there is smoothed by.
_SMOOTHING = 1.0


@dataclass(frozen=True)
class SegmentationLoss:
    """Cross-entropy, and one less the overlap of classes, for a task's ``loss``.

    Args:
        dice: the weight of the latter.
    """

    dice: float = 1.0

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss over a batch, a scalar.

        Args:
            outputs: logits, ``(n, classes, ...)``.
            labels: classes, ``(n, ...)``, -100 where there is none.

        Raises:
            DataError: labels that are no classes.
        """
        if labels.is_floating_point():
            raise DataError(
                "segmentation: labels must be the class of each pixel, in whole numbers; got "
                f"{labels.dtype}."
            )
        known = labels != IGNORED
        entropy = F.cross_entropy(outputs, labels, ignore_index=IGNORED)
        return entropy + self.dice * _dice(outputs, labels.masked_fill(~known, 0), known)


def _dice(outputs: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """One less the overlap, ``2 |A and B| / (|A| + |B|)``, the mean over classes of the batch."""
    counts = known.unsqueeze(1)
    true = F.one_hot(labels, outputs.shape[1]).movedim(-1, 1) * counts
    chances = outputs.softmax(1) * counts
    pixels = [0, *range(2, outputs.dim())]
    both, either = (chances * true).sum(pixels), (chances + true).sum(pixels)
    is_there = true.sum(pixels) > 0
    shares = (2 * both + _SMOOTHING) / (either + _SMOOTHING)
    return 1 - shares[is_there].mean()
