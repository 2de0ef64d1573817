"""Adversarial distillation: a discriminator learns to tell a student's outputs from a teacher's.

The discriminator is unconditional (it is given outputs, not the inputs that they are for), is
trained with the student by an optimizer of its own, and is thrown away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from compress.config.fields import LARGEST_RATE, Number, Whole
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction
from compress.distillation.losses.base import LossBlock, loss_on_outputs
from compress.distillation.losses.checks import same_outputs
from compress.errors import DataError
from compress.outputs import OutputKind

__all__ = ["LOSSES", "AdversarialLoss", "Adversary", "hinge_discriminator", "hinge_generator"]

_CONVOLUTIONS: tuple[type[nn.Conv1d | nn.Conv2d | nn.Conv3d], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
)
# What SAGAN (Zhang et al. 2019) and its followers use with this loss.
_BETAS = (0.0, 0.9)
# Of a discriminator; its weights grow with the square.
_WIDEST = 1024


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss: real scores above 1, fake ones below -1 (Lim and Ye 2017).

    Args:
        real: scores of the teacher's outputs, of any shape.
        fake: scores of the student's outputs.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """The student's loss: its outputs should score high (Lim and Ye 2017, "Geometric GAN").

    Args:
        fake: scores of the student's outputs, of any shape.
    """
    return -fake.mean()


class AdversarialLoss(LossBlock):
    """Fool a small discriminator that is trained with the student and thrown away.

    Source: Lim and Ye 2017, "Geometric GAN", for the hinge loss; Miyato et al. 2018, "Spectral
    normalization for generative adversarial networks".
    """

    implied_kind: ClassVar[OutputKind | None] = "image"
    kind: Literal["adversarial"] = "adversarial"
    learning_rate: Number = Field(default=2e-4, gt=0, le=LARGEST_RATE)
    """Learning rate of the discriminator's Adam."""
    width: Whole = Field(default=32, ge=1, le=_WIDEST)
    """Channels of the discriminator's first layer; its weights grow with the square."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The student's loss; each call is also a step of the discriminator."""
        shape = tuple(context.example_outputs.shape[1:])
        adversary = Adversary(shape, self.learning_rate, self.width)
        return replace(loss_on_outputs(adversary), self_updating=adversary.updated)


class Adversary:
    """A discriminator and its optimizer; each call trains it by one step, for the student's loss.

    Spectral normalization keeps it smooth (Miyato et al. 2018). On maps it scores patches (Isola et
    al. 2017), from convolutions that quarter the resolution; on vectors it is an MLP.

    Args:
        shape: of one output, ``(channels, ...)``.
        learning_rate: of the discriminator's Adam.
        width: of its first layer.

    Raises:
        DataError: outputs with more than three axes of positions.
    """

    def __init__(self, shape: tuple[int, ...], learning_rate: float, width: int = 32) -> None:
        self.discriminator = _discriminator(shape, width)
        self._optimizer = torch.optim.Adam(self.discriminator.parameters(), learning_rate, _BETAS)

    @property
    def updated(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The discriminator and its optimizer, which each call updates."""
        return self.discriminator, self._optimizer

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """One step of the discriminator on this batch, then the student's loss, a scalar.

        Args:
            student: outputs ``(n, channels, ...)``.
            teacher: outputs, same shape.

        Raises:
            DataError: the shapes differ.
        """
        student, teacher = same_outputs(student, teacher)
        self.discriminator.to(student.device).requires_grad_(True)
        fake, real = student.contiguous(), teacher.contiguous()
        scores = self.discriminator(torch.cat([real, fake.detach()]))
        self._optimizer.zero_grad()
        hinge_discriminator(scores[: len(real)], scores[len(real) :]).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.discriminator.requires_grad_(False)
        return hinge_generator(self.discriminator(fake))


def _discriminator(shape: tuple[int, ...], width: int) -> nn.Module:
    if not 1 <= len(shape) <= 4:
        raise DataError(
            f"adversarial takes outputs with up to three axes of positions, (n, channels, ...); "
            f"one output here is {shape}."
        )
    if len(shape) == 1:
        layers: list[nn.Module] = [
            nn.Linear(shape[0], width),
            nn.Linear(width, width),
            nn.Linear(width, 1),
        ]
    else:
        conv = _CONVOLUTIONS[len(shape) - 2]
        layers = [
            conv(shape[0], width, 3, stride=2, padding=1),
            conv(width, 2 * width, 3, stride=2, padding=1),
            conv(2 * width, 1, 1),
        ]
    normed = [spectral_norm(layer) for layer in layers]
    activation = nn.LeakyReLU(0.2)
    return nn.Sequential(normed[0], activation, normed[1], activation, normed[2])


LOSSES: tuple[type[LossBlock], ...] = (AdversarialLoss,)
