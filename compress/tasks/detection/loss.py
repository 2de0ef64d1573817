"""The loss of a single-stage detector without anchors.

Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection": a cell whose center lies
in the middle of a box answers for it, of several boxes for the smallest. Scores have the focal loss
(Lin et al. 2017), boxes the generalized intersection over union (Rezatofighi et al. 2019) and, so
that boxes far off have a gradient too, the absolute distance of their edges, as in Carion et al.
2020, "End-to-End Object Detection with Transformers".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.errors import DataError
from compress.tasks.detection.boxes import Cells

__all__ = ["DetectionLoss"]

# The balance of Lin et al. 2017.
_ALPHA, _GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class DetectionLoss:
    """Focal loss on scores, and GIoU and L1 on the boxes of cells that answer for one.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        radius: how far a cell's center may be from that of a box that it answers for, in cells; the
            cell in which the box has its center always does.
        boxes: the name of the output, and of the labels, that has the boxes.
        scores: the name of those that have the classes.
    """

    height: int
    width: int
    radius: float = 1.0
    boxes: str = "boxes"
    scores: str = "scores"

    def __call__(self, outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
        """The loss over a batch, a scalar, as a sum divided by the number of cells that answer.

        Args:
            outputs: of the detector, by name (:mod:`compress.tasks.detection`).
            labels: by name.

        Raises:
            DataError: outputs of other names, or that do not divide the image.
        """
        for what, parts in (("outputs", outputs), ("labels", labels)):
            if not isinstance(parts, Mapping) or not {self.boxes, self.scores} <= parts.keys():
                given = ", ".join(parts) if isinstance(parts, Mapping) else type(parts).__name__
                raise DataError(
                    f"detection: {what} must be {self.boxes} and {self.scores}, by name; got "
                    f"{given}."
                )
        boxes, logits = outputs[self.boxes].float(), outputs[self.scores].float()
        target = self._target(boxes, labels)
        wanted = torch.zeros_like(logits)
        image, cell = target.answers.nonzero(as_tuple=True)
        wanted[image, cell, target.classes[image, cell]] = 1.0
        answers = max(1, len(image))
        found, true = boxes[image, cell], target.distances[image, cell]
        located = F.l1_loss(found, true, reduction="sum") / 4 + (1 - _giou(found, true)).sum()
        return (_focal(logits, wanted).sum() + located) / answers

    def _target(self, boxes: Tensor, labels: Mapping[str, Tensor]) -> _Target:
        cells = Cells.of(self.height, self.width, boxes.shape[1])
        centers = torch.from_numpy(cells.centers()).to(boxes)
        true, classes = labels[self.boxes].to(boxes), labels[self.scores].long()
        known = (classes >= 0) & ~true.isnan().any(-1)
        true = torch.where(known.unsqueeze(-1), true, 0.0)
        low, high = true[..., :2].unsqueeze(2), true[..., 2:].unsqueeze(2)
        distances = torch.cat((centers - low, high - centers), -1) / cells.stride
        away = ((low + high) / 2 - centers).abs().amax(-1) / cells.stride
        answers = (distances.amin(-1) > 0) & (away <= self.radius)
        nearest = F.one_hot(away.argmin(-1), len(centers)).bool()
        answers = (answers | nearest) & known.unsqueeze(-1)
        area = (true[..., 2:] - true[..., :2]).prod(-1).unsqueeze(-1)
        chosen = torch.where(answers, area, torch.inf).argmin(1)
        return _Target(
            answers.any(1),
            classes.gather(1, chosen),
            distances.gather(1, chosen[:, None, :, None].expand(-1, 1, -1, 4)).squeeze(1),
        )


class _Target(NamedTuple):
    """What each cell is to say: whether it answers, the class ``(n, cells)``, and the box."""

    answers: Tensor
    classes: Tensor
    distances: Tensor


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    chance = logits.sigmoid()
    wrong = torch.where(wanted > 0, 1 - chance, chance)
    balance = torch.where(wanted > 0, _ALPHA, 1 - _ALPHA)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return balance * wrong**_GAMMA * each


def _giou(found: Tensor, true: Tensor) -> Tensor:
    """Of boxes as distances from one center to their edges, ``(k, 4)``; from -1 to 1, ``(k,)``."""
    both = torch.minimum(found, true)
    around = torch.maximum(found, true)
    inner, outer, own, wanted = (_area(part) for part in (both, around, found, true))
    either = own + wanted - inner
    return inner / either.clamp_min(1e-6) - (outer - either) / outer.clamp_min(1e-6)


def _area(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.unbind(-1)
    # Edges that have changed places: L1 moves them.
    return (left + right).clamp_min(0) * (top + bottom).clamp_min(0)
