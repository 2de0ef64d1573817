"""Mixing: two samples made one, drawn from a seed, before either net sees them.

Both nets are asked about the mixture itself, since a mixture of the teacher's two answers would not
be its answer to what the student sees (Beyer et al. 2022, "Knowledge distillation: a good teacher
is patient and consistent").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compress.errors import DataError

__all__ = ["Mix", "Mixture"]


@dataclass(frozen=True)
class Mixture:
    """A batch of mixtures.

    ``share`` is that of ``labels`` in every mixture, the rest that of ``partners``; a loss of
    labels is the sum of that for either, weighted by them (as in both papers). ``partners`` is
    ``None`` where the labels were mixed themselves, and where there are none.
    """

    inputs: Tensor
    labels: Tensor | None
    partners: Tensor | None
    share: float


@dataclass(frozen=True)
class Mix:
    """Mix the samples of a batch with those of the same batch in another order.

    ``mixup`` (Zhang et al. 2018) averages two samples, with weights drawn from
    ``Beta(alpha, alpha)``. ``cutmix`` (Yun et al. 2019) puts a box of one into the other; the box
    covers a share so drawn. As in the authors' code, there is one draw for each batch.
    """

    kind: Literal["mixup", "cutmix"]
    alpha: float

    def __call__(
        self, inputs: Tensor, labels: Tensor | None, generator: torch.Generator
    ) -> Mixture:
        """The mixtures; what is given stays as it is.

        Args:
            inputs: ``(n, ...)`` of floating-point numbers; for ``cutmix``, ``(n, channels, ...)``.
            labels: ``(n, ...)``, or ``None``.
            generator: where all randomness comes from.

        Raises:
            DataError: inputs that cannot be mixed, or labels that cannot follow.
        """
        if not inputs.is_floating_point():
            raise DataError(f"mix needs inputs of floating-point numbers; got {inputs.dtype}.")
        partner = torch.randperm(len(inputs), generator=generator)
        share = self._share(generator)
        others = None if labels is None else labels[partner.to(labels.device)]
        given = inputs[partner.to(inputs.device)]
        if self.kind == "mixup":
            return Mixture(torch.lerp(given, inputs, share), labels, others, share)
        if inputs.dim() < 3:
            raise DataError(
                f"cutmix needs inputs with positions, (n, channels, ...); got "
                f"{tuple(inputs.shape)}: use mixup."
            )
        box = _box(inputs.shape[2:], share, generator)
        sides = [part.stop - part.start for part in box]
        covered = math.prod(sides) / math.prod(inputs.shape[2:])
        mixed = _pasted(inputs, given, box)
        if labels is None or labels.dim() <= len(box):
            return Mixture(mixed, labels, others, 1 - covered)
        if labels.shape[-len(box) :] != inputs.shape[2:]:
            raise DataError(
                f"cutmix cuts labels with their inputs, and cannot tell where labels of "
                f"{tuple(labels.shape[1:])} lie in inputs of {tuple(inputs.shape[1:])}: use mixup."
            )
        assert others is not None
        return Mixture(mixed, _pasted(labels, others, box), None, 1.0)

    def _share(self, generator: torch.Generator) -> float:
        # The legacy generator: its stream is frozen for good (NumPy Enhancement Proposal 19).
        seed = int(torch.randint(2**32, (), generator=generator))
        return float(np.random.RandomState(seed).beta(self.alpha, self.alpha))


def _box(sizes: torch.Size, share: float, generator: torch.Generator) -> tuple[slice, ...]:
    """A box that covers ``1 - share`` around a random center, less what lies outside."""
    side = (1 - share) ** (1 / len(sizes))
    centers = torch.rand(len(sizes), generator=generator).tolist()
    box = []
    for size, place in zip(sizes, centers, strict=True):
        center, half = int(place * size), int(side * size) // 2
        box.append(slice(max(0, center - half), min(size, center + half)))
    return tuple(box)


def _pasted(base: Tensor, given: Tensor, box: tuple[slice, ...]) -> Tensor:
    inside = torch.zeros(base.shape[-len(box) :], dtype=torch.bool, device=base.device)
    inside[box] = True
    return torch.where(inside, given, base)
