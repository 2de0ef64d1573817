"""Set single weights of a candidate to zero, and declare that they stay so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from compress.candidate import Candidate, count_parameters
from compress.errors import AlreadySo
from compress.outputs import Implied
from compress.pruning.importance import Criterion
from compress.pruning.invariants import KeepZeros
from compress.pruning.sparsity import (
    magnitude_masks,
    pattern_masks,
    per_output_masks,
    zero_tensors,
)
from compress.quantization.fakequant import fake_quantized_copy, quantizable_layers
from compress.stage import Context, formats_of
from compress.stages.ranking import weight_scores

__all__ = ["ZeroWeights", "masks_of", "names_of", "zero_weights"]


@dataclass(frozen=True)
class ZeroWeights:
    """Which weights become zero.

    Args:
        ratio: share of them, where there is no pattern.
        scope: whether each tensor loses that share, or all of them together.
        n_of_m: how many of how many inputs stay, or ``None``.
        ignored: modules that keep all of theirs.
    """

    ratio: float
    scope: Literal["local", "global"]
    n_of_m: tuple[int, int] | None
    ignored: Collection[str]


def zero_weights(
    pruned: Candidate,
    context: Context,
    request: ZeroWeights,
    criterion: Criterion,
    implied: Sequence[Implied],
) -> Candidate:
    """The candidate with more zeros, its module changed in place.

    Args:
        pruned: gets them.
        context: of the stage.
        request: which ones.
        criterion: ranks the weights.
        implied: what the losses of the stage imply that the outputs are.

    Raises:
        AlreadySo: all of them are zero already.
        StageError: the criterion cannot rank this module.
    """
    module, names = pruned.module, names_of(pruned.module, request)
    layers = [name.rpartition(".")[0] for name in names]
    ranked = fake_quantized_copy(module, formats_of(pruned))
    scores = weight_scores(ranked, layers, pruned, context, criterion, implied)
    scores = _zeros_last(module, scores)
    before = count_parameters(module)[1]
    zero_tensors(module, masks_of(ranked, request, scores, within_outputs=criterion.within_outputs))
    kind = "unstructured" if request.n_of_m is None else "{}:{}".format(*request.n_of_m)
    invariant = KeepZeros(pattern=kind, tensors=tuple(names))
    if count_parameters(module)[1] == before and invariant in pruned.invariants:
        raise AlreadySo("prune: every weight that would be removed is already zero.")
    return replace(pruned, invariants=tuple(dict.fromkeys((*pruned.invariants, invariant))))


def names_of(module: nn.Module, request: ZeroWeights) -> list[str]:
    """The weights that may become zero, by name."""
    layers = [name for name in quantizable_layers(module) if name not in request.ignored]
    return [f"{name}.weight" for name in layers]


def masks_of(
    module: nn.Module,
    request: ZeroWeights,
    scores: Mapping[str, Tensor],
    *,
    within_outputs: bool = False,
) -> dict[str, Tensor]:
    """True where a weight stays.

    Args:
        module: whose weights they are.
        request: how many become zero.
        scores: of the weights, by name; those of the lowest go.
        within_outputs: whether the weights of one output alone are compared.
    """
    if request.n_of_m is not None:
        return pattern_masks(module, list(scores), *request.n_of_m, scores)
    if within_outputs:
        return per_output_masks(module, scores, request.ratio)
    return magnitude_masks(scores, request.ratio, request.scope)


def _zeros_last(module: nn.Module, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sizes of scores, in which weights that are zero come before others without a score.

    So the share that is removed counts the zeros that are there already, whatever ranks weights.
    """

    def ranked(name: str, score: Tensor) -> Tensor:
        least = torch.finfo(score.dtype).tiny
        is_zero = module.get_parameter(name).detach() == 0
        return score.detach().abs().clamp_min(least).masked_fill(is_zero, 0)

    return {name: ranked(name, score) for name, score in scores.items()}
