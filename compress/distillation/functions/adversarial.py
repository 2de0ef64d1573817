"""Adversarial distillation: a discriminator learns to tell a student's outputs from a teacher's.

The discriminator is unconditional (it sees outputs, not what they answer), is trained beside the
student by an optimizer of its own, and is thrown away.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from compress.distillation.functions.checks import same_outputs
from compress.errors import DataError

__all__ = ["Adversary", "hinge_discriminator", "hinge_generator"]

_CONVOLUTIONS: tuple[type[nn.Conv1d | nn.Conv2d | nn.Conv3d], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
)
# What SAGAN (Zhang et al. 2019) and its followers use with this loss.
_BETAS = (0.0, 0.9)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss: real scores above 1, fake ones below -1 (Lim and Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """The student's loss: what it makes should score high (Lim and Ye 2017, "Geometric GAN")."""
    return -fake.mean()


class Adversary:
    """A discriminator and its optimizer; each call is one step of it and the student's loss.

    Spectral normalization keeps it smooth (Miyato et al. 2018). On maps it scores patches (Isola et
    al. 2017), from convolutions that quarter the resolution; on vectors it is an MLP.

    Args:
        shape: of one output: ``(channels, ...)``.
        learning_rate: of the discriminator's Adam.
        width: of its first layer.
    """

    def __init__(self, shape: tuple[int, ...], learning_rate: float, width: int = 32) -> None:
        self._net = _discriminator(shape, width)
        self._optimizer = torch.optim.Adam(self._net.parameters(), learning_rate, _BETAS)

    @property
    def moving(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """What each call moves."""
        return self._net, self._optimizer

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """One step of the discriminator on this batch, then the student's loss.

        Raises:
            DataError: the shapes differ.
        """
        student, teacher = same_outputs(student, teacher)
        self._net.to(student.device).requires_grad_(True)
        made, real = student.contiguous(), teacher.contiguous()
        scores = self._net(torch.cat([real, made.detach()]))
        self._optimizer.zero_grad()
        hinge_discriminator(scores[: len(real)], scores[len(real) :]).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._net.requires_grad_(False)
        return hinge_generator(self._net(made))


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
