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
from compress.distillation.context import Answer, Layers, Scene, Term
from compress.distillation.functions.adversarial import Adversary
from compress.distillation.losses.base import LossBlock, Paths, of_outputs
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

    asks_teacher: ClassVar[bool] = False
    kind: Literal["label"] = "label"

    def term(self, scene: Scene) -> Term:
        """The task's loss as a term."""
        supervision = scene.supervision
        supervision.check_loss()

        def function(student: Answer, _: Answer, labels: Tensor | None) -> Tensor:
            if labels is None:
                raise DataError("a batch of the training data came without labels.")
            return supervision.loss(student.outputs, labels)

        return Term(
            function,
            reads_labels=True,
            takes=supervision.labeled,
            reads_teacher=False,
        )


class ResponseLoss(LossBlock):
    """Match the teacher's probabilities, softened by a temperature (Hinton et al. 2015).

    Above 1 it brings out what the teacher thinks of unlikely classes, and takes longer to learn:
    the usual 4 pays in trainings of many epochs.
    """

    takes_logits: ClassVar[bool] = True
    implies: ClassVar[OutputKind | None] = "class-scores"
    takes: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["response"] = "response"
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def term(self, scene: Scene) -> Term:
        """KL at the temperature."""
        return of_outputs(lambda s, t: functions.response(s, t, self.temperature))


class BinaryKlLoss(LossBlock):
    """Match the teacher's chance of a yes, for outputs that are each a logit of its own."""

    implies: ClassVar[OutputKind | None] = "independent-logits"
    takes: ClassVar[frozenset[OutputKind]] = frozenset({"independent-logits"})
    kind: Literal["binary-kl"] = "binary-kl"
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def term(self, scene: Scene) -> Term:
        """KL at the temperature."""
        return of_outputs(lambda s, t: functions.binary_kl(s, t, self.temperature))


class LogitsLoss(LossBlock):
    """Match the teacher's raw outputs: logits, values or images, by mean squared difference."""

    kind: Literal["logits-mse"] = "logits-mse"

    def term(self, scene: Scene) -> Term:
        """Mean squared difference."""
        return of_outputs(functions.logits_mse)


class HardLoss(LossBlock):
    """Learn the class that the teacher finds likeliest, as if it were the label."""

    implies: ClassVar[OutputKind | None] = "class-scores"
    takes: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["hard"] = "hard"

    def term(self, scene: Scene) -> Term:
        """Cross-entropy on the teacher's choice."""
        return of_outputs(functions.hard)


class DkdLoss(LossBlock):
    """Decoupled distillation (Zhao et al. 2022): ``alpha`` for the target, ``beta`` for the others.

    The target is the label, as in the paper, or the teacher's choice where there are no labels.
    """

    takes_logits: ClassVar[bool] = True
    implies: ClassVar[OutputKind | None] = "class-scores"
    takes: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["dkd"] = "dkd"
    alpha: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    beta: Number = Field(default=8.0, ge=0, le=LARGEST_FACTOR)
    temperature: Number = Field(default=4.0, gt=0, le=LARGEST_FACTOR)

    def term(self, scene: Scene) -> Term:
        """Both parts."""
        supervision = scene.supervision

        def function(student: Answer, teacher: Answer, labels: Tensor | None) -> Tensor:
            return functions.dkd(
                student.outputs,
                teacher.outputs,
                None if labels is None else supervision.fitted(student.outputs, labels),
                alpha=self.alpha,
                beta=self.beta,
                temperature=self.temperature,
            )

        return Term(function, reads_labels=True)


class DistLoss(LossBlock):
    """Match correlations within samples (``beta``) and classes (``gamma``) (Huang et al. 2022)."""

    takes_logits: ClassVar[bool] = True
    implies: ClassVar[OutputKind | None] = "class-scores"
    takes: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["dist"] = "dist"
    beta: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    gamma: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def term(self, scene: Scene) -> Term:
        """Both correlations."""
        return of_outputs(
            lambda s, t: functions.dist(
                s, t, beta=self.beta, gamma=self.gamma, temperature=self.temperature
            )
        )


class TopKLoss(LossBlock):
    """Match the teacher's ``k`` likeliest classes, all others counted as one; for many classes."""

    takes_logits: ClassVar[bool] = True
    implies: ClassVar[OutputKind | None] = "class-scores"
    takes: ClassVar[frozenset[OutputKind]] = _OF_CLASSES
    kind: Literal["topk-kl"] = "topk-kl"
    k: Whole = Field(default=100, ge=1, le=LARGEST_COUNT)
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def term(self, scene: Scene) -> Term:
        """KL over k classes and the rest."""
        return of_outputs(lambda s, t: functions.topk_kl(s, t, self.k, self.temperature))


class L1Loss(LossBlock):
    """Match values or images by mean absolute difference."""

    implies: ClassVar[OutputKind | None] = "values"
    kind: Literal["l1"] = "l1"

    def term(self, scene: Scene) -> Term:
        """Mean absolute difference."""
        return of_outputs(functions.l1)


class SsimLoss(LossBlock):
    """Match the structure of images (Wang et al. 2004), whose values span ``data_range``."""

    implies: ClassVar[OutputKind | None] = "image"
    kind: Literal["ssim"] = "ssim"
    data_range: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)

    def term(self, scene: Scene) -> Term:
        """One minus SSIM."""
        return of_outputs(lambda s, t: functions.ssim(s, t, self.data_range))


class PerceptualLoss(LossBlock):
    """Match what a frozen net sees in both output images (Johnson et al. 2016).

    ``layers`` are those of ``network``, a block with ``arch`` and ``weights``; without it, of the
    teacher, which must then take its own outputs as inputs.
    """

    implies: ClassVar[OutputKind | None] = "image"
    kind: Literal["perceptual"] = "perceptual"
    layers: Paths
    network: ModelSettings | None = None

    @field_validator("network")
    @classmethod
    def _has_weights(cls, network: ModelSettings | None) -> ModelSettings | None:
        if network is not None and network.weights is None:
            raise ValueError("a network that judges needs weights")
        return network

    def term(self, scene: Scene) -> Term:
        """Differences of the frozen net's features."""
        judge, example = self._judge(scene), scene.example_outputs
        try:
            layers = Layers("the network that judges", judge, survey(judge, example))
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

        def seen(images: Tensor) -> list[Tensor]:
            with capture(judge.to(images.device), names) as features:
                forward(judge, images.contiguous())
            return [features[name] for name in names]

        def compare(student: Tensor, teacher: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = seen(teacher)
            return functions.perceptual(seen(student), wanted)

        return of_outputs(compare)

    def _judge(self, scene: Scene) -> nn.Module:
        if self.network is None:
            judge = copy.deepcopy(scene.teacher_module(self.kind))
        else:
            judge = build_model(self.network, scene.context.build, scene.context.seed)
        return judge.eval().requires_grad_(False)


class AdversarialLoss(LossBlock):
    """Fool a small discriminator that learns beside the student (hinge; Lim and Ye 2017)."""

    implies: ClassVar[OutputKind | None] = "image"
    kind: Literal["adversarial"] = "adversarial"
    learning_rate: Number = Field(default=2e-4, gt=0, le=LARGEST_RATE)
    width: Whole = Field(default=32, ge=1, le=_WIDEST)

    def term(self, scene: Scene) -> Term:
        """The student's side; each call is also a step of the discriminator."""
        shape = tuple(scene.example_outputs.shape[1:])
        adversary = Adversary(shape, self.learning_rate, self.width)
        return replace(of_outputs(adversary), others=adversary.moving)
