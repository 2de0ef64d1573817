"""Set single weights of a candidate to zero while it is trained, as training moves them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from compress.candidate import Candidate
from compress.config.selectors import named
from compress.pruning.movement import Movement, highest
from compress.pruning.sparsity import pattern_masks
from compress.stages.zero_weights import ZeroWeights, declared

__all__ = ["learn_zeros"]


def learn_zeros(
    pruned: Candidate, request: ZeroWeights, train: Callable[[Candidate, Movement], Candidate]
) -> Candidate:
    """The candidate, trained in place, with the zeros that movement pruning chose.

    Args:
        pruned: gets them.
        request: how many there are to be, and where.
        train: trains a candidate in place while zeros are chosen.

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
    trained = train(pruned, movement)
    movement.hide()
    still = [name.rpartition(".")[0] for name in movement.without_gradients()]
    note = f"{named(still)} went by magnitude: training gave no gradients" if still else ""
    return declared(trained, request, names, note)


def _as_sizes(score: Tensor) -> Tensor:
    """Scores in the same order, none below zero; the lowest are those of what is zero already."""
    finite = score.double()
    lowest = finite[finite.isfinite()].min() if finite.isfinite().any() else 0.0
    return torch.where(finite.isfinite(), finite - lowest + 1.0, 0.0)
