"""Losses on outputs as they are, ``(n, ...)``: no softmax makes probabilities of them.

All functions return a scalar, the mean over samples and positions.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from compress.config.fields import LARGEST_FACTOR, Number
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction
from compress.distillation.losses.base import LossBlock, loss_on_outputs
from compress.distillation.losses.checks import same_outputs
from compress.outputs import OutputKind

__all__ = ["LOSSES", "BinaryKlLoss", "LogitsLoss", "binary_kl", "logits_mse"]


def binary_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of the Bernoulli distributions that logits ``(n, ...)`` stand for.

    Yang et al. 2023, "Multi-label knowledge distillation": :func:`response` for outputs each of
    which is a yes or no of its own. It is that loss for the two classes with the scores ``(0,
    logit)``, averaged over outputs. Times the temperature squared.

    Args:
        student: logits ``(n, ...)``.
        teacher: logits, same shape.
        temperature: that both are divided by before the sigmoid.

    Raises:
        DataError: the shapes differ.
    """
    student, teacher = (logits / temperature for logits in same_outputs(student, teacher))
    positive = teacher.sigmoid()
    divergence = positive * (F.logsigmoid(teacher) - F.logsigmoid(student))
    divergence = divergence + (1 - positive) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return divergence.mean() * temperature**2


class BinaryKlLoss(LossBlock):
    """Match the teacher's probability of a yes, for outputs that are each a logit of its own.

    Source: Yang et al. 2023, "Multi-label knowledge distillation".
    """

    implied_kind: ClassVar[OutputKind | None] = "independent-logits"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"independent-logits"})
    kind: Literal["binary-kl"] = "binary-kl"
    temperature: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """What the logits of both nets are divided by before the sigmoid."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`binary_kl` on the outputs."""
        return loss_on_outputs(lambda s, t: binary_kl(s, t, self.temperature))


def logits_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the raw outputs (Ba and Caruana 2014, "Do deep nets...").

    Args:
        student: outputs ``(n, ...)``.
        teacher: outputs, same shape.

    Raises:
        DataError: the shapes differ.
    """
    return F.mse_loss(*same_outputs(student, teacher))


class LogitsLoss(LossBlock):
    """Match the teacher's raw outputs: logits, values or images, by mean squared difference.

    Source: Ba and Caruana 2014, "Do deep nets really need to be deep?".
    """

    kind: Literal["logits-mse"] = "logits-mse"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`logits_mse` on the outputs."""
        return loss_on_outputs(logits_mse)


LOSSES: tuple[type[LossBlock], ...] = (
    BinaryKlLoss,
    LogitsLoss,
)
