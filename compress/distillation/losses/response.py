"""Response losses: on class scores, ``(n, classes)`` or ``(n, classes, ...)`` for dense outputs.

All functions return a scalar, the mean over samples and positions.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from compress.config.fields import LARGEST_COUNT, LARGEST_FACTOR, Number, Whole
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock, loss_on_outputs
from compress.distillation.losses.checks import class_rows
from compress.errors import DataError
from compress.outputs import CLASS_KINDS, OutputKind

__all__ = [
    "LOSSES",
    "DistLoss",
    "DkdLoss",
    "HardLoss",
    "ResponseLoss",
    "TopKLoss",
    "dist",
    "dkd",
    "hard",
    "response",
    "topk_kl",
]

_CLASS_SCORES = frozenset[OutputKind](CLASS_KINDS)


def response(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """KL divergence of softened class probabilities, times the temperature squared.

    The square keeps the size of the gradient independent of the temperature
    (Hinton et al. 2015, "Distilling the knowledge in a neural network").

    Args:
        student: scores ``(n, classes, ...)``.
        teacher: scores, same shape.
        temperature: that both are divided by before the softmax.

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    scores, taught = class_rows(student, teacher)
    soft = [(logits / temperature).log_softmax(1) for logits in (scores, taught)]
    return _divergence(*soft) * temperature**2


class ResponseLoss(LossBlock):
    """Match the teacher's probabilities of classes, softened by a temperature.

    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _CLASS_SCORES
    kind: Literal["response"] = "response"
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """What the scores of both nets are divided by before the softmax. Above 1 the probabilities of
    unlikely classes weigh more, and training takes longer: the usual 4 pays in trainings of many
    epochs. The loss is multiplied by its square, which keeps the size of gradients."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`response` on the outputs."""
        return loss_on_outputs(lambda s, t: response(s, t, self.temperature))


def hard(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy on the class that the teacher finds likeliest.

    The teacher as a labeler: pseudo-labels (Lee 2013), and the "hard" distillation of Touvron et
    al. 2021, "Training data-efficient image transformers".

    Args:
        student: scores ``(n, classes, ...)``.
        teacher: scores, same shape.

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    scores, taught = class_rows(student, teacher)
    return F.cross_entropy(scores, taught.argmax(1))


class HardLoss(LossBlock):
    """Learn the class that the teacher finds likeliest, as if it were the label.

    Source: Lee 2013, "Pseudo-label"; Touvron et al. 2021, "Training data-efficient image
    transformers".
    """

    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _CLASS_SCORES
    kind: Literal["hard"] = "hard"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`hard` on the outputs."""
        return loss_on_outputs(hard)


def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled distillation: the target class and the others apart (Zhao et al. 2022).

    ``alpha`` weighs the divergence of "target or not", ``beta`` that of the distribution among the
    other classes, which plain KL would damp by how sure the teacher is.

    Args:
        student: scores ``(n, classes, ...)``.
        teacher: scores, same shape.
        target: the true class of each sample and position, ``(n, ...)``, as in the paper; where it
            is negative (what cross-entropy ignores), and everywhere if it is ``None``, the class
            that the teacher finds likeliest.
        alpha: weight of the target's part.
        beta: weight of the others' part.
        temperature: that both are divided by before the softmax.

    Raises:
        DataError: the shapes differ, these are not scores of classes, or targets that are not
            indices of them.
    """
    scores, taught = class_rows(student, teacher)
    is_target = F.one_hot(_classes(target, taught), taught.shape[1]).bool()
    soft = [logits / temperature for logits in (scores, taught)]
    target_part = _divergence(*(_target_or_not(logits, is_target) for logits in soft))
    others_part = _divergence(*(_others(logits, is_target).log_softmax(1) for logits in soft))
    return (alpha * target_part + beta * others_part) * temperature**2


class DkdLoss(LossBlock):
    """Decoupled distillation: the target class and the others, each with a weight of its own.

    The target is the label, as in the paper, or the teacher's choice where there are no labels.

    Source: Zhao et al. 2022, "Decoupled knowledge distillation".
    """

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _CLASS_SCORES
    kind: Literal["dkd"] = "dkd"
    alpha: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    """Weight of the divergence of "the target or not"."""
    beta: Number = Field(default=8.0, ge=0, le=LARGEST_FACTOR)
    """Weight of the divergence among the other classes, which a plain divergence would damp by how
    sure the teacher is."""
    temperature: Number = Field(default=4.0, gt=0, le=LARGEST_FACTOR)
    """What the scores of both nets are divided by before the softmax."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`dkd` on the outputs and the labels."""
        supervision = context.supervision

        def compute(student: ModelOutputs, teacher: ModelOutputs, labels: Tensor | None) -> Tensor:
            return dkd(
                student.outputs,
                teacher.outputs,
                None if labels is None else supervision.fitted(student.outputs, labels),
                alpha=self.alpha,
                beta=self.beta,
                temperature=self.temperature,
            )

        return LossFunction(compute, reads_labels=True)


def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """One minus the correlation of probabilities, within samples and within classes.

    Huang et al. 2022, "Knowledge distillation from a stronger teacher": Pearson's correlation
    ignores a shift and a scale, which a much stronger teacher has. Times the temperature squared,
    as in the authors' code. A batch of one has no second part.

    Args:
        student: scores ``(n, classes, ...)``.
        teacher: scores, same shape.
        beta: weight of the correlation over the classes of a sample.
        gamma: weight of the correlation over the samples of a class; for dense outputs, over all
            positions of the batch.
        temperature: that both are divided by before the softmax.

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    p, q = ((scores / temperature).softmax(1) for scores in class_rows(student, teacher))
    loss = beta * _decorrelation(p, q)
    if len(p) > 1:
        loss = loss + gamma * _decorrelation(p.T, q.T)
    return loss * temperature**2


class DistLoss(LossBlock):
    """Match the correlations of probabilities within samples and within classes.

    A correlation ignores a shift and a scale, which a much stronger teacher has.

    Source: Huang et al. 2022, "Knowledge distillation from a stronger teacher".
    """

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _CLASS_SCORES
    kind: Literal["dist"] = "dist"
    beta: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    """Weight of the correlation over the classes of a sample."""
    gamma: Number = Field(default=1.0, ge=0, le=LARGEST_FACTOR)
    """Weight of the correlation over the samples of a class; of dense outputs, over all positions
    of the batch."""
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """What the scores of both nets are divided by before the softmax."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`dist` on the outputs."""
        return loss_on_outputs(
            lambda s, t: dist(s, t, beta=self.beta, gamma=self.gamma, temperature=self.temperature)
        )


def topk_kl(student: Tensor, teacher: Tensor, k: int = 100, temperature: float = 1.0) -> Tensor:
    """KL divergence over the teacher's ``k`` likeliest classes and "any other", for many classes.

    Tan et al. 2019, "Multilingual neural machine translation with knowledge distillation", keep the
    ``k`` likeliest and drop the rest. Here the rest is counted as one class, so that no probability
    is lost: the value is never above that of :func:`response`, and equal to it where ``k`` leaves
    at most one class out.

    Args:
        student: scores ``(n, classes, ...)``.
        teacher: scores, same shape.
        k: how many classes are kept apart.
        temperature: that both are divided by before the softmax.

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    scores, taught = class_rows(student, teacher)
    scores, taught = scores / temperature, taught / temperature
    top = taught.topk(min(k, taught.shape[1] - 1), dim=1).indices
    return _divergence(_top_and_rest(scores, top), _top_and_rest(taught, top)) * temperature**2


class TopKLoss(LossBlock):
    """Match the teacher's likeliest classes, all others counted as one; for many classes.

    Source: Tan et al. 2019, "Multilingual neural machine translation with knowledge distillation".
    """

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "class-scores"
    output_kinds: ClassVar[frozenset[OutputKind]] = _CLASS_SCORES
    kind: Literal["topk-kl"] = "topk-kl"
    k: Whole = Field(default=100, ge=1, le=LARGEST_COUNT)
    """How many classes are kept apart."""
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """What the scores of both nets are divided by before the softmax."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`topk_kl` on the outputs."""
        return loss_on_outputs(lambda s, t: topk_kl(s, t, self.k, self.temperature))


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of rows of log-probabilities, averaged over rows."""
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _classes(target: Tensor | None, taught: Tensor) -> Tensor:
    """The target of each row of scores, ``(rows,)``."""
    likeliest = taught.argmax(1)
    if target is None:
        return likeliest
    if target.is_floating_point() or target.numel() != len(taught):
        raise DataError(
            f"dkd needs the index of a class for each of {len(taught)} samples and positions; the "
            f"labels are {tuple(target.shape)} of {target.dtype}."
        )
    classes = target.reshape(-1).long()
    if len(classes) and int(classes.max()) >= taught.shape[1]:
        raise DataError(
            f"dkd: the label {int(classes.max())} is beyond the {taught.shape[1]} classes."
        )
    return torch.where(classes < 0, likeliest, classes)


def _target_or_not(logits: Tensor, is_target: Tensor) -> Tensor:
    """Log-probabilities of "the target" and "any other", ``(rows, 2)``."""
    rest = _others(logits, is_target).logsumexp(1)
    return torch.stack([logits[is_target], rest], dim=1).log_softmax(1)


def _others(logits: Tensor, is_target: Tensor) -> Tensor:
    """Logits of all classes but the target, ``(rows, classes - 1)``."""
    return logits[~is_target].view(len(logits), -1)


def _decorrelation(a: Tensor, b: Tensor) -> Tensor:
    """One minus Pearson's correlation of rows, averaged over rows."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return 1 - F.cosine_similarity(a, b, dim=1).mean()


def _top_and_rest(logits: Tensor, top: Tensor) -> Tensor:
    """Log-probabilities of the classes ``top`` and of "any other", ``(rows, k + 1)``."""
    rest = logits.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    return torch.cat([logits.gather(1, top), rest], dim=1).log_softmax(1)


LOSSES: tuple[type[LossBlock], ...] = (
    ResponseLoss,
    HardLoss,
    DkdLoss,
    DistLoss,
    TopKLoss,
)
