"""Set single weights of a candidate to zero while it is trained, as training moves them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compress.candidate import Candidate
from compress.config.selectors import named
from compress.distillation.losses import LossSettings
from compress.pruning.movement import Movement, highest
from compress.pruning.sparsity import pattern_masks
from compress.stage import Context, Teacher
from compress.stages.fit import fit
from compress.stages.training_settings import Training
from compress.stages.zero_weights import ZeroWeights, declared

__all__ = ["learn_zeros"]


def learn_zeros(
    pruned: Candidate,
    context: Context,
    request: ZeroWeights,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> Candidate:
    """The candidate, trained in place, with the zeros that movement pruning chose.

    Args:
        pruned: gets them.
        context: of the stage.
        request: how many there are to be, and where.
        training: settings of the training.
        losses: of the training.
        teacher: of the training; ``None`` where no loss needs one.

    Raises:
        CompressError: as :func:`~compress.stages.fit.fit` does.
    """
    module, pattern = pruned.module, request.shape.n_of_m
    names = [f"{name}.weight" for name in request.layers(module)]

    def keep(scores: Mapping[str, Tensor], share: float) -> Mapping[str, Tensor]:
        if pattern is None:
            return highest(scores, share, request.scope)
        left = math.ceil(share * pattern[1] - 1e-9)
        sizes = {name: _as_sizes(score) for name, score in scores.items()}
        return pattern_masks(module, list(scores), left, pattern[1], sizes)

    final = 1 - request.ratio if pattern is None else pattern[0] / pattern[1]
    movement = Movement(module, names, keep, final)
    trained = fit(pruned, context, training, losses, teacher, movement)
    movement.hide()
    still = [name.rpartition(".")[0] for name in movement.without_gradients()]
    note = f"{named(still)} went by magnitude: training gave no gradients" if still else ""
    return declared(trained, request, names, note)


def _as_sizes(score: Tensor) -> Tensor:
    """Scores in the same order, none below zero; the lowest are those of what is zero already."""
    finite = score.double()
    lowest = finite[finite.isfinite()].min() if finite.isfinite().any() else 0.0
    return torch.where(finite.isfinite(), finite - lowest + 1.0, 0.0)
