"""Contrastive distillation: the student's embedding of a sample must find the teacher's."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from compress.config.fields import LARGEST_FACTOR, Number, Whole
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock, loss_on_outputs
from compress.distillation.losses.channels import (
    AxisSetting,
    LayerChannels,
    axes_of,
    layer_channels,
    mean_over_layers,
)
from compress.distillation.losses.checks import in_float32, inner, same_batch
from compress.distillation.losses.relation import RelationBlock
from compress.errors import DataError
from compress.modules.features import pooled

__all__ = ["LOSSES", "CrdLoss", "Embedding", "crd"]


def crd(student: Tensor, teacher: Tensor, temperature: float = 0.07) -> Tensor:
    """How badly embeddings ``(n, width)`` of the same samples find each other in the batch.

    Tian et al. 2020, "Contrastive representation distillation", in the variant with in-batch
    negatives: InfoNCE (van den Oord et al. 2018) over the other samples of the batch, once from the
    student's side and once from the teacher's, averaged. The authors' own code draws 16384
    negatives from a memory bank of the whole data set, of other classes than the sample's; here
    there is no memory and there are no labels, so a larger batch is what gives more negatives.
    0 for a batch of one.

    Args:
        student: embeddings ``(n, width)``.
        teacher: embeddings, same shape.
        temperature: that cosines are divided by.

    Raises:
        DataError: the shapes differ.
    """
    student, teacher = same_batch(student, teacher)
    if student.shape != teacher.shape:
        raise DataError(
            f"crd: the student's embedding is {tuple(student.shape)} and the teacher's is "
            f"{tuple(teacher.shape)}; both need the same width."
        )
    scores = inner(F.normalize(student), F.normalize(teacher)) / temperature
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


class CrdLoss(RelationBlock):
    """Find the teacher's embedding of each sample among those of the batch.

    Features are averaged over positions and embedded by linear maps that are learned and thrown
    away. The negatives are the other samples of the batch.

    Source: Tian et al. 2020, "Contrastive representation distillation".
    """

    kind: Literal["crd"] = "crd"
    temperature: Number = Field(default=0.07, gt=0, le=LARGEST_FACTOR)
    """What the cosines of embeddings are divided by."""
    width: Whole = Field(default=128, ge=1, le=16_384)
    """Dimensions of the embedding."""
    axis: AxisSetting | None = None
    """The axis of channels of the layers, where it cannot be told from the nets; samples are on
    axis 0."""

    @model_validator(mode="after")
    def _axis_is_of_layers(self) -> CrdLoss:
        if self.axis is not None and self.student is None:
            raise ValueError("axis is that of layers; name a layer of student and teacher, too")
        return self

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`crd` on learned embeddings of outputs or layers.

        Raises:
            DataError: outputs without a width.
            SelectorError: layers that do not fit.
            StageError: layers are named, and the teacher is not a module.
        """
        if self.student is None or self.teacher is None:
            embedding = Embedding(*self._widths_of_outputs(context), self.width)
            loss = loss_on_outputs(lambda s, t: self._contrast(embedding, s, t))
            return replace(loss, auxiliary=embedding)
        names = self.layers(context, self.student, self.teacher)
        nets = (context.student_layers, context.teacher_layers)
        given = axes_of(self.axis)
        ours, theirs = (
            layer_channels(self.kind, *one) for one in zip(nets, names, given, strict=True)
        )
        return self._of_layers(ours, theirs)

    def _of_layers(self, ours: LayerChannels, theirs: LayerChannels) -> LossFunction:
        embedding = Embedding(ours.channels, theirs.channels, self.width)

        def compute(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
            a, b = ours.of(student), theirs.of(teacher)
            if a is None or b is None:
                return mean_over_layers([], student, [embedding])
            return self._contrast(embedding, a, b)

        return LossFunction(compute, (ours.name,), (theirs.name,), auxiliary=embedding)

    def _contrast(self, embedding: Embedding, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = in_float32(student, teacher)
        ours, theirs = embedding(pooled(student), pooled(teacher))
        return crd(ours, theirs, self.temperature)

    def _widths_of_outputs(self, context: DistillationContext) -> tuple[int, int]:
        both = (context.example_outputs, context.taught_outputs)
        shapes = [tuple(outputs.shape) for outputs in both]
        if min(map(len, shapes)) < 2:
            raise DataError(
                f"crd embeds vectors, (n, width, ...); outputs here are {shapes[0]} and "
                f"{shapes[1]}: name a layer of each net."
            )
        return shapes[0][1], shapes[1][1]


class Embedding(nn.Module):
    """The two learned linear maps of CRD, from each net's vectors to a shared space."""

    def __init__(self, student_width: int, teacher_width: int, width: int) -> None:
        super().__init__()
        self.student = nn.Linear(student_width, width)
        self.teacher = nn.Linear(teacher_width, width)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings ``(n, width)`` of vectors ``(n, student_width)``, ``(n, teacher_width)``."""
        return self.student(student), self.teacher(teacher)


LOSSES: tuple[type[LossBlock], ...] = (CrdLoss,)
