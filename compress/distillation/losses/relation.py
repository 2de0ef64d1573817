"""Relation losses: on how the samples of a batch relate to each other.

Functions take ``(n, ...)`` from each net, flattened to vectors whose lengths need not be equal: any
layer fits any other, and so do outputs with different classes. They return a scalar. The batch is
the unit: a larger one has more pairs, and a batch with too few samples for a relation gives 0.

Without ``student`` and ``teacher`` a loss compares outputs, of any teacher; with both, a layer of
each, of a teacher that is a module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional as F

from compress.config.fields import Pattern
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock, loss_on_outputs
from compress.distillation.losses.channels import mean_over_layers
from compress.distillation.losses.checks import inner, same_batch

__all__ = [
    "LOSSES",
    "PktLoss",
    "RelationBlock",
    "RkdAngleLoss",
    "RkdDistanceLoss",
    "SimilarityLoss",
    "pkt",
    "rkd_angle",
    "rkd_distance",
    "similarity",
]

_TINY = 1e-12
# Samples closer than this share of the mean squared distance count as one point.
_COINCIDE = 1e-6


class RelationBlock(LossBlock):
    """A loss on how samples relate to each other: of the outputs, or of a layer of each net."""

    student: Pattern | None = None
    """The path of one layer of the student; goes with ``teacher``. Where neither is given, outputs
    are compared."""
    teacher: Pattern | None = None
    """The path of one layer of the teacher; goes with ``student``."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> RelationBlock:
        if (self.student is None) != (self.teacher is None):
            given = "student" if self.teacher is None else "teacher"
            raise ValueError(
                f"only the {given}'s layer is given; name a layer of both, or of neither to "
                "compare outputs"
            )
        return self

    def on_outputs_or_layers(
        self, context: DistillationContext, function: Callable[[Tensor, Tensor], Tensor]
    ) -> LossFunction:
        """A loss of a function of two tensors ``(n, ...)``: the outputs, or features of a layer.

        Raises:
            SelectorError: layers that are not there, or several where one is compared.
            StageError: layers are named, and the teacher is not a module.
        """
        if self.student is None or self.teacher is None:
            return loss_on_outputs(function)
        ours, theirs = self.layers(context, self.student, self.teacher)

        def compute(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
            if ours not in student.features or theirs not in teacher.features:
                return mean_over_layers([], student)
            return function(student.features[ours], teacher.features[theirs])

        return LossFunction(compute, (ours,), (theirs,))

    def layers(self, context: DistillationContext, student: str, teacher: str) -> tuple[str, str]:
        """The one layer of the student and the one of the teacher that are compared."""
        pairs = context.pairs(self.kind, [student], [teacher])
        if len(pairs) > 1:
            raise context.misfit(
                self.kind, f"takes one layer of each net, and {student!r} matches {len(pairs)}"
            )
        return pairs[0]


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber difference of the distances between samples, over all pairs.

    Park et al. 2019, "Relational knowledge distillation", equations 4 to 6: each net's distances
    are divided by their mean. Pairs are of different samples, also in that mean.

    Args:
        student: ``(n, ...)``.
        teacher: ``(n, ...)``; the other axes may differ.

    Raises:
        DataError: different numbers of samples.
    """
    a, b = _vectors(student, teacher)
    if len(a) < 2:
        return a.sum() * 0
    distances = [F.pdist(x) for x in (a, b)]
    a, b = (d / d.mean().clamp(min=_TINY) for d in distances)
    return F.smooth_l1_loss(a, b)


class RkdDistanceLoss(RelationBlock):
    """Match the distances between the samples of a batch.

    Source: Park et al. 2019, "Relational knowledge distillation", equations 4 to 6.
    """

    kind: Literal["rkd-distance"] = "rkd-distance"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`rkd_distance` over all pairs of the batch."""
        return self.on_outputs_or_layers(context, rkd_distance)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber difference of the cosines of the angles in all triples of samples.

    Park et al. 2019, "Relational knowledge distillation", equations 7 and 8. Triples are of
    different samples; one in which two of them coincide has no angle and is left out. Memory grows
    with the cube of the batch: 8 MB for each tensor at 128 samples, 0.5 GB at 512.

    Args:
        student: ``(n, ...)``.
        teacher: ``(n, ...)``; the other axes may differ.

    Raises:
        DataError: different numbers of samples.
    """
    a, b = _vectors(student, teacher)
    (cos_a, apart_a), (cos_b, apart_b) = _angles(a), _angles(b)
    apart = apart_a & apart_b
    triples = apart[:, :, None] & apart[:, None, :] & _different(a)
    if not bool(triples.any()):
        return a.sum() * 0
    return F.smooth_l1_loss(cos_a[triples], cos_b[triples])


class RkdAngleLoss(RelationBlock):
    """Match the angles between the samples of a batch; memory grows with the batch cubed.

    Source: Park et al. 2019, "Relational knowledge distillation", equations 7 and 8.
    """

    kind: Literal["rkd-angle"] = "rkd-angle"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`rkd_angle` over all triples of the batch."""
        return self.on_outputs_or_layers(context, rkd_angle)


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the matrices of inner products, rows scaled to length 1; mean over n².

    Tung and Mori 2019, "Similarity-preserving knowledge distillation", equations 2 to 4.

    Args:
        student: ``(n, ...)``.
        teacher: ``(n, ...)``; the other axes may differ.

    Raises:
        DataError: different numbers of samples.
    """
    a, b = (F.normalize(inner(x, x)) for x in _vectors(student, teacher))
    return F.mse_loss(a, b)


class SimilarityLoss(RelationBlock):
    """Match the inner products between the samples of a batch.

    Source: Tung and Mori 2019, "Similarity-preserving knowledge distillation".
    """

    kind: Literal["similarity"] = "similarity"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`similarity` over the batch."""
        return self.on_outputs_or_layers(context, similarity)


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of the probabilities with which samples would choose each other.

    Passalis and Tefas 2018, "Learning deep representations with probabilistic knowledge transfer":
    affinity is the cosine, shifted to between 0 and 1, and a sample chooses among the others in
    proportion. Summed over the others and averaged over samples (the authors' code also counts the
    sample itself, and averages over n², which makes its values about n times smaller).

    Args:
        student: ``(n, ...)``.
        teacher: ``(n, ...)``; the other axes may differ.

    Raises:
        DataError: different numbers of samples.
    """
    a, b = _vectors(student, teacher)
    if len(a) < 2:
        return a.sum() * 0
    return F.kl_div(_choices(a), _choices(b), reduction="batchmean", log_target=True)


class PktLoss(RelationBlock):
    """Match whom each sample would choose among the others of a batch.

    Source: Passalis and Tefas 2018, "Learning deep representations with probabilistic knowledge
    transfer".
    """

    kind: Literal["pkt"] = "pkt"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`pkt` over the batch."""
        return self.on_outputs_or_layers(context, pkt)


def _vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student, teacher = same_batch(student, teacher)
    return student.reshape(len(student), -1), teacher.reshape(len(teacher), -1)


def _angles(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine at j between i and k, as ``[j, i, k]``, and which pairs lie apart.

    From inner products, so that no tensor holds the vectors of all pairs.
    """
    centered = vectors - vectors.mean(0)
    gram = inner(centered, centered)
    norms = gram.diagonal()
    squares = norms[:, None] + norms - 2 * gram
    apart = (squares > _COINCIDE * squares.mean()) & _different(gram)
    lengths = torch.where(apart, squares, 1.0).sqrt()
    products = gram[None] - gram[:, :, None] - gram[:, None, :] + norms[:, None, None]
    return products / (lengths[:, :, None] * lengths[:, None, :]), apart


def _choices(vectors: Tensor) -> Tensor:
    """Logarithm of the probability with which each sample chooses each other, ``(n, n - 1)``."""
    unit = F.normalize(vectors)
    affinity = ((inner(unit, unit) + 1) / 2)[_different(unit)].view(len(unit), -1).clamp(min=1e-7)
    return (affinity / affinity.sum(1, keepdim=True)).log()


def _different(rows: Tensor) -> Tensor:
    """Which pairs of rows are of different ones, ``(n, n)``."""
    return ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)


LOSSES: tuple[type[LossBlock], ...] = (
    RkdDistanceLoss,
    RkdAngleLoss,
    SimilarityLoss,
    PktLoss,
)
