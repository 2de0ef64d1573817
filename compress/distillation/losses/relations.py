"""Losses on how the samples of a batch lie to each other.

Without ``student`` and ``teacher`` they look at outputs, of any teacher; with both, at a layer of
each, of a teacher that is a module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from compress.config.fields import LARGEST_FACTOR, Number, Pattern, Whole
from compress.distillation import functions
from compress.distillation.context import DistillationContext
from compress.distillation.functions.checks import in_float32
from compress.distillation.functions.contrastive import Embedding
from compress.distillation.loss_function import (
    LossFunction,
    ModelOutputs,
    RequiredOutputs,
    teacher_forward,
)
from compress.distillation.losses.base import LossBlock, loss_on_outputs
from compress.distillation.losses.channels import (
    AxisSetting,
    LayerChannels,
    axes_of,
    layer_channels,
    mean_over_layers,
)
from compress.errors import DataError
from compress.modules.features import pooled

__all__ = ["CrdLoss", "PktLoss", "RkdAngleLoss", "RkdDistanceLoss", "SimilarityLoss"]


class RelationBlock(LossBlock):
    """``student`` and ``teacher``: the path of one layer of each, or neither for the outputs."""

    student: Pattern | None = None
    teacher: Pattern | None = None

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
        """A term of what the two nets give."""
        if self.student is None or self.teacher is None:
            return loss_on_outputs(function)
        ours, theirs = self.layers(context, self.student, self.teacher)

        def of_features(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
            if ours not in student.features or theirs not in teacher.features:
                return mean_over_layers([], student)
            return function(student.features[ours], teacher.features[theirs])

        return LossFunction(of_features, (ours,), (theirs,))

    def layers(self, context: DistillationContext, student: str, teacher: str) -> tuple[str, str]:
        """The one layer of each net that is compared."""
        pairs = context.pairs(self.kind, [student], [teacher])
        if len(pairs) > 1:
            raise context.misfit(
                self.kind, f"takes one layer of each net, and {student!r} matches {len(pairs)}"
            )
        return pairs[0]


class RkdDistanceLoss(RelationBlock):
    """Match distances between samples (Park et al. 2019)."""

    kind: Literal["rkd-distance"] = "rkd-distance"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Over all pairs of the batch."""
        return self.on_outputs_or_layers(context, functions.rkd_distance)


class RkdAngleLoss(RelationBlock):
    """Match angles between samples (Park et al. 2019); memory grows with the batch cubed."""

    kind: Literal["rkd-angle"] = "rkd-angle"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Over all triples of the batch."""
        return self.on_outputs_or_layers(context, functions.rkd_angle)


class SimilarityLoss(RelationBlock):
    """Match inner products between samples (Tung and Mori 2019)."""

    kind: Literal["similarity"] = "similarity"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Over the matrix of the batch."""
        return self.on_outputs_or_layers(context, functions.similarity)


class PktLoss(RelationBlock):
    """Match whom each sample would choose among the others (Passalis and Tefas 2018)."""

    kind: Literal["pkt"] = "pkt"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Over the rows of the batch."""
        return self.on_outputs_or_layers(context, functions.pkt)


class CrdLoss(RelationBlock):
    """Find the teacher's view of each sample among those of the batch (Tian et al. 2020).

    Features are averaged over positions and embedded in ``width`` dimensions by linear maps that
    are learned and thrown away. The negatives are the other samples of the batch.
    """

    kind: Literal["crd"] = "crd"
    temperature: Number = Field(default=0.07, gt=0, le=LARGEST_FACTOR)
    width: Whole = Field(default=128, ge=1, le=16_384)
    axis: AxisSetting | None = Field(
        default=None,
        description="The axis of channels where it cannot be told from the nets; samples are on 0.",
    )

    @model_validator(mode="after")
    def _axis_is_of_layers(self) -> CrdLoss:
        if self.axis is not None and self.student is None:
            raise ValueError("axis is that of layers; name a layer of student and teacher, too")
        return self

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Contrast within the batch."""
        if self.student is None or self.teacher is None:
            embedding = Embedding(*self._widths_of_outputs(context), self.width)
            term = loss_on_outputs(lambda s, t: self._contrast(embedding, s, t))
            return replace(term, auxiliary=embedding)
        names = self.layers(context, self.student, self.teacher)
        nets = (context.student_layers, context.teacher_layers)
        given = axes_of(self.axis)
        ours, theirs = (
            layer_channels(self.kind, *one) for one in zip(nets, names, given, strict=True)
        )
        return self._of_layers(ours, theirs)

    def _of_layers(self, ours: LayerChannels, theirs: LayerChannels) -> LossFunction:
        embedding = Embedding(ours.channels, theirs.channels, self.width)

        def function(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
            learning, teaching = ours.of(student), theirs.of(teacher)
            if learning is None or teaching is None:
                return mean_over_layers([], student, [embedding])
            return self._contrast(embedding, learning, teaching)

        return LossFunction(function, (ours.name,), (theirs.name,), auxiliary=embedding)

    def _contrast(self, embedding: Embedding, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = in_float32(student, teacher)
        ours, theirs = embedding(pooled(student), pooled(teacher))
        return functions.crd(ours, theirs, self.temperature)

    def _widths_of_outputs(self, context: DistillationContext) -> tuple[int, int]:
        assert context.teacher is not None
        taught = teacher_forward(context.teacher, context.example, RequiredOutputs()).outputs
        shapes = [tuple(outputs.shape) for outputs in (context.example_outputs, taught)]
        if min(map(len, shapes)) < 2:
            raise DataError(
                f"crd embeds vectors, (n, width, ...); outputs here are {shapes[0]} and "
                f"{shapes[1]}: name a layer of each net."
            )
        return shapes[0][1], shapes[1][1]
