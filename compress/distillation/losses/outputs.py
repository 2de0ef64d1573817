"""Losses on what student and teacher answer; they take any teacher."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from compress.config.fields import LARGEST_COUNT, LARGEST_FACTOR, LARGEST_RATE, Number, Whole
from compress.distillation import functions
from compress.distillation.context import DistillationContext
from compress.distillation.functions.adversarial import Adversary
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock, Paths, loss_on_outputs
from compress.distillation.net_layers import NetLayers
from compress.errors import DataError, SelectorError
from compress.models.settings import ModelSettings, build_model
from compress.modules.features import capture, survey
from compress.modules.inputs import forward
from compress.outputs import CLASS_KINDS, OutputKind

__all__ = [
    "AdversarialLoss",
    "BinaryKlLoss",
    "DistLoss",
    "DkdLoss",
    "HardLoss",
    "L1Loss",
    "LabelLoss",
    "LogitsLoss",
    "PerceptualLoss",
    "ResponseLoss",
    "SsimLoss",
    "TopKLoss",
]

# Of a discriminator; its weights grow with the square.
_WIDEST = 1024
_OF_CLASSES = frozenset[OutputKind](CLASS_KINDS)


class LabelLoss(LossBlock):
    """The task's own loss on its labels."""

    needs_teacher: ClassVar[bool] = False
    kind: Literal["label"] = "label"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The task's loss as a term."""
        supervision = context.supervision
        supervision.check_loss()

        def function(student: ModelOutputs, _: ModelOutputs, labels: Tensor | None) -> Tensor:
            if labels is None:
                raise DataError("a batch of the training data came without labels.")
            return supervision.loss(student.outputs, labels)

        return LossFunction(
            function,
            reads_labels=True,
            sample_mask=supervision.labeled,
            reads_teacher_outputs=False,
        )


class ResponseLoss(LossBlock):
    """Match the teacher's probabilities, softened by a temperature (Hinton et al. 2015).

    Above 1 it brings out what the teacher thinks of unlikely classes, and takes longer to learn:
    the usual 4 pays in trainings of many epochs.
    """

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["response"] = "response"
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """KL at the temperature."""
        return loss_on_outputs(lambda s, t: functions.response(s, t, self.temperature))


class BinaryKlLoss(LossBlock):
    """Match the teacher's chance of a yes, for outputs that are each a logit of its own."""

    implied_kind: ClassVar[OutputKind | None] = "independent-logits"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"independent-logits"})
    kind: Literal["binary-kl"] = "binary-kl"
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """KL at the temperature."""
        return loss_on_outputs(lambda s, t: functions.binary_kl(s, t, self.temperature))


class LogitsLoss(LossBlock):
    """Match the teacher's raw outputs: logits, values or images, by mean squared difference."""

    kind: Literal["logits-mse"] = "logits-mse"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Mean squared difference."""
        return loss_on_outputs(functions.logits_mse)


class HardLoss(LossBlock):
    """Learn the class that the teacher finds likeliest, as if it were the label."""

    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["hard"] = "hard"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Cross-entropy on the teacher's choice."""
        return loss_on_outputs(functions.hard)


class DkdLoss(LossBlock):
    """Decoupled distillation (Zhao et al. 2022): ``alpha`` for the target, ``beta`` for the others.

    The target is the label, as in the paper, or the teacher's choice where there are no labels.
    """

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["dkd"] = "dkd"
    alpha: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    beta: Number = Field(default=8.0, ge=0, le=LARGEST_FACTOR)
    temperature: Number = Field(default=4.0, gt=0, le=LARGEST_FACTOR)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Both parts."""
        supervision = context.supervision

        def function(student: ModelOutputs, teacher: ModelOutputs, labels: Tensor | None) -> Tensor:
            return functions.dkd(
                student.outputs,
                teacher.outputs,
                None if labels is None else supervision.fitted(student.outputs, labels),
                alpha=self.alpha,
                beta=self.beta,
                temperature=self.temperature,
            )

        return LossFunction(function, reads_labels=True)


class DistLoss(LossBlock):
    """Match correlations within samples (``beta``) and classes (``gamma``) (Huang et al. 2022)."""

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["dist"] = "dist"
    beta: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    gamma: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Both correlations."""
        return loss_on_outputs(
            lambda s, t: functions.dist(
                s, t, beta=self.beta, gamma=self.gamma, temperature=self.temperature
            )
        )


class TopKLoss(LossBlock):
    """Match the teacher's ``k`` likeliest classes, all others counted as one; for many classes."""

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["topk-kl"] = "topk-kl"
    k: Whole = Field(default=100, ge=1, le=LARGEST_COUNT)
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """KL over k classes and the rest."""
        return loss_on_outputs(lambda s, t: functions.topk_kl(s, t, self.k, self.temperature))


class L1Loss(LossBlock):
    """Match values or images by mean absolute difference."""

    implied_kind: ClassVar[OutputKind | None] = "values"
    kind: Literal["l1"] = "l1"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Mean absolute difference."""
        return loss_on_outputs(functions.l1)


class SsimLoss(LossBlock):
    """Match the structure of images (Wang et al. 2004), whose values span ``data_range``."""

    implied_kind: ClassVar[OutputKind | None] = "image"
    kind: Literal["ssim"] = "ssim"
    data_range: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """One minus SSIM."""
        return loss_on_outputs(lambda s, t: functions.ssim(s, t, self.data_range))


class PerceptualLoss(LossBlock):
    """Match what a frozen net sees in both output images (Johnson et al. 2016).

    ``layers`` are those of ``network``, a block with ``arch`` and ``weights``; without it, of the
    teacher, which must then take its own outputs as inputs.
    """

    implied_kind: ClassVar[OutputKind | None] = "image"
    kind: Literal["perceptual"] = "perceptual"
    layers: Paths
    network: ModelSettings | None = None

    @field_validator("network")
    @classmethod
    def _has_weights(cls, network: ModelSettings | None) -> ModelSettings | None:
        if network is not None and network.weights is None:
            raise ValueError("a network that judges needs weights")
        return network

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Differences of the frozen net's features."""
        judge, example = self._judge(context), context.example_outputs
        try:
            layers = NetLayers("the network that judges", judge, survey(judge, example))
        except RuntimeError as error:
            raise DataError(
                f"perceptual: the network that judges cannot take outputs of "
                f"{tuple(example.shape)} as its inputs ({str(error).splitlines()[0]}); give a "
                "network that can."
            ) from error
        try:
            names = layers.choose(self.layers)
        except ValueError as error:
            raise SelectorError(f"the loss 'perceptual': {error}; {layers}.") from None

        def features_of(images: Tensor) -> list[Tensor]:
            with capture(judge.to(images.device), names) as features:
                forward(judge, images.contiguous())
            return [features[name] for name in names]

        def compare(student: Tensor, teacher: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = features_of(teacher)
            return functions.perceptual(features_of(student), wanted)

        return loss_on_outputs(compare)

    def _judge(self, context: DistillationContext) -> nn.Module:
        if self.network is None:
            judge = copy.deepcopy(context.teacher_module(self.kind))
        else:
            judge = build_model(self.network, context.stage.build, context.stage.seed)
        return judge.eval().requires_grad_(False)


class AdversarialLoss(LossBlock):
    """Fool a small discriminator that learns beside the student (hinge; Lim and Ye 2017)."""

    implied_kind: ClassVar[OutputKind | None] = "image"
    kind: Literal["adversarial"] = "adversarial"
    learning_rate: Number = Field(default=2e-4, gt=0, le=LARGEST_RATE)
    width: Whole = Field(default=32, ge=1, le=_WIDEST)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The student's side; each call is also a step of the discriminator."""
        shape = tuple(context.example_outputs.shape[1:])
        adversary = Adversary(shape, self.learning_rate, self.width)
        return replace(loss_on_outputs(adversary), self_updating=adversary.moving)
