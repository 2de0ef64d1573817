"""Mixup and CutMix, drawn from a seed.

In distillation teacher and student both get the mixed inputs: a mixture of the teacher's outputs
for the two samples would not be its output for what the student sees (Beyer et al. 2022, "Knowledge
distillation: a good teacher is patient and consistent").
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
    """A batch of mixed samples.

    A loss on labels is ``lam`` times that on ``labels`` plus ``1 - lam`` times that on
    ``mixed_targets``, as in both papers.

    Args:
        inputs: ``(n, ...)``, mixed.
        labels: ``(n, ...)``; ``None`` where there are none.
        mixed_targets: labels of the samples that were mixed in; ``None`` where the labels were
            mixed themselves, and where there are none.
        lam: weight of ``labels``, from 0 to 1.
    """

    inputs: Tensor
    labels: Tensor | None
    mixed_targets: Tensor | None
    lam: float


@dataclass(frozen=True)
class Mix:
    """Mix the samples of a batch with those of the same batch in another order.

    ``mixup`` (Zhang et al. 2018) averages two samples, with weights ``lam`` and ``1 - lam`` drawn
    from ``Beta(alpha, alpha)``. ``cutmix`` (Yun et al. 2019) puts a box of one into the other; the
    box covers about ``1 - lam`` of it. As in the authors' code, ``lam`` is drawn once for a batch.

    Args:
        kind: which of the two.
        alpha: of the beta distribution, above 0.
    """

    kind: Literal["mixup", "cutmix"]
    alpha: float

    def __call__(
        self, inputs: Tensor, labels: Tensor | None, generator: torch.Generator
    ) -> Mixture:
        """A mixed copy of a batch; what is given is not changed.

        Args:
            inputs: ``(n, ...)``, floating point; for ``cutmix``, ``(n, channels, ...)``.
            labels: ``(n, ...)``, or ``None``.
            generator: the only source of randomness.

        Raises:
            DataError: inputs that cannot be mixed, or labels of positions that do not match them.
        """
        if not inputs.is_floating_point():
            raise DataError(f"mix needs inputs of floating-point numbers; got {inputs.dtype}.")
        order = torch.randperm(len(inputs), generator=generator)
        lam = self._lambda(generator)
        mixed_targets = None if labels is None else labels[order.to(labels.device)]
        mixed_in = inputs[order.to(inputs.device)]
        if self.kind == "mixup":
            return Mixture(torch.lerp(mixed_in, inputs, lam), labels, mixed_targets, lam)
        if inputs.dim() < 3:
            raise DataError(
                f"cutmix needs inputs with positions, (n, channels, ...); got "
                f"{tuple(inputs.shape)}: use mixup."
            )
        box = _box(inputs.shape[2:], lam, generator)
        sides = [side.stop - side.start for side in box]
        covered = math.prod(sides) / math.prod(inputs.shape[2:])
        mixed = _pasted(inputs, mixed_in, box)
        if labels is None or labels.dim() <= len(box):
            return Mixture(mixed, labels, mixed_targets, 1 - covered)
        if labels.shape[-len(box) :] != inputs.shape[2:]:
            raise DataError(
                f"cutmix cuts labels with their inputs, and cannot tell where labels of "
                f"{tuple(labels.shape[1:])} lie in inputs of {tuple(inputs.shape[1:])}: use mixup."
            )
        assert mixed_targets is not None
        return Mixture(mixed, _pasted(labels, mixed_targets, box), None, 1.0)

    def _lambda(self, generator: torch.Generator) -> float:
        # The legacy generator: its stream is frozen for good (NumPy Enhancement Proposal 19).
        seed = int(torch.randint(2**32, (), generator=generator))
        return float(np.random.RandomState(seed).beta(self.alpha, self.alpha))


def _box(sizes: torch.Size, lam: float, generator: torch.Generator) -> tuple[slice, ...]:
    """A box that covers ``1 - lam`` around a random center, less what lies outside."""
    side = (1 - lam) ** (1 / len(sizes))
    centers = torch.rand(len(sizes), generator=generator).tolist()
    box = []
    for size, place in zip(sizes, centers, strict=True):
        center, half = int(place * size), int(side * size) // 2
        box.append(slice(max(0, center - half), min(size, center + half)))
    return tuple(box)


def _pasted(base: Tensor, patch: Tensor, box: tuple[slice, ...]) -> Tensor:
    inside = torch.zeros(base.shape[-len(box) :], dtype=torch.bool, device=base.device)
    inside[box] = True
    return torch.where(inside, patch, base)
