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
from compress.modules.outputs import each_output
from compress.training.labels import Labels

__all__ = ["Mix", "Mixture"]


@dataclass(frozen=True)
class Mixture:
    """A batch of mixed samples.

    A loss on labels is ``lam`` times that on ``labels`` plus ``1 - lam`` times that on
    ``mixed_targets``, as in both papers.

    Args:
        inputs: ``(n, ...)``, mixed.
        labels: ``(n, ...)``, perhaps by name; ``None`` where there are none.
        mixed_targets: labels of the samples that were mixed in; ``None`` where the labels were
            mixed themselves, and where there are none.
        lam: weight of ``labels``, from 0 to 1.
    """

    inputs: Tensor
    labels: Labels | None
    mixed_targets: Labels | None
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
        self, inputs: Tensor, labels: Labels | None, generator: torch.Generator
    ) -> Mixture:
        """A mixed copy of a batch; what is given is not changed.

        Args:
            inputs: ``(n, ...)``, floating point; for ``cutmix``, ``(n, channels, ...)``.
            labels: ``(n, ...)``, perhaps by name, or ``None``.
            generator: the only source of randomness.

        Raises:
            DataError: inputs that cannot be mixed, or labels of positions that do not match them.
        """
        if not inputs.is_floating_point():
            raise DataError(f"mix needs inputs of floating-point numbers; got {inputs.dtype}.")
        order = torch.randperm(len(inputs), generator=generator)
        lam = self._lambda(generator)
        mixed_targets = (
            None if labels is None else each_output(labels, lambda one: one[order.to(one.device)])
        )
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
        if labels is None or mixed_targets is None:
            return Mixture(mixed, labels, mixed_targets, 1 - covered)
        if not _has_positions(labels, inputs.shape):
            return Mixture(mixed, labels, mixed_targets, 1 - covered)
        return Mixture(mixed, _pasted_labels(labels, mixed_targets, box), None, 1.0)

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


def _has_positions(labels: Labels, inputs: torch.Size) -> bool:
    """Whether labels are of positions as those of inputs ``(n, channels, ...)``.

    Raises:
        DataError: they are of other positions, or only some of several are.
    """
    axes = len(inputs) - 2
    named = labels if isinstance(labels, dict) else {"": labels}
    with_positions = [name for name, one in named.items() if one.dim() > axes]
    for name in with_positions:
        if named[name].shape[-axes:] != inputs[2:]:
            raise DataError(
                f"cutmix cuts labels with their inputs, and cannot tell where labels of "
                f"{tuple(named[name].shape[1:])} lie in inputs of {tuple(inputs[1:])}: use mixup."
            )
    if with_positions and len(with_positions) < len(named):
        others = [name for name in named if name not in with_positions]
        raise DataError(
            f"cutmix cuts labels of positions ({', '.join(with_positions)}) and mixes others "
            f"({', '.join(others)}), and cannot do both in one batch: use mixup."
        )
    return bool(with_positions)


def _pasted_labels(labels: Labels, others: Labels, box: tuple[slice, ...]) -> Labels:
    if isinstance(labels, dict) and isinstance(others, dict):
        return {name: _pasted(one, others[name], box) for name, one in labels.items()}
    assert isinstance(labels, Tensor)
    assert isinstance(others, Tensor)
    return _pasted(labels, others, box)


def _pasted(base: Tensor, patch: Tensor, box: tuple[slice, ...]) -> Tensor:
    inside = torch.zeros(base.shape[-len(box) :], dtype=torch.bool, device=base.device)
    inside[box] = True
    return torch.where(inside, patch, base)
