"""Set single weights of a candidate to zero, and declare that they stay so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

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

__all__ = ["ZeroWeights", "zero_weights"]


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
    module = pruned.module
    layers = [name for name in quantizable_layers(module) if name not in request.ignored]
    names = [f"{name}.weight" for name in layers]
    ranked = fake_quantized_copy(module, formats_of(pruned))
    scores = weight_scores(ranked, layers, pruned, context, criterion, implied)
    if request.n_of_m is not None:
        masks = pattern_masks(ranked, names, *request.n_of_m, scores)
    elif criterion.within_outputs:
        masks = per_output_masks(ranked, scores, request.ratio)
    else:
        masks = magnitude_masks(scores, request.ratio, request.scope)
    before = count_parameters(module)[1]
    zero_tensors(module, masks)
    kind = "unstructured" if request.n_of_m is None else "{}:{}".format(*request.n_of_m)
    invariant = KeepZeros(pattern=kind, tensors=tuple(names))
    if count_parameters(module)[1] == before and invariant in pruned.invariants:
        raise AlreadySo("prune: every weight that would be removed is already zero.")
    return replace(pruned, invariants=tuple(dict.fromkeys((*pruned.invariants, invariant))))
