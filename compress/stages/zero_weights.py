"""Set single weights of a candidate to zero, and declare that they stay so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from compress.candidate import Candidate, count_parameters
from compress.config.selectors import named
from compress.errors import AlreadySo, NoEffect
from compress.outputs import Implied
from compress.pruning.block_sparsity import block_masks
from compress.pruning.importance import Criterion
from compress.pruning.invariants import KeepZeros
from compress.pruning.sparse_gpt import Choice, Remaining, prune_layers
from compress.pruning.sparsity import (
    magnitude_masks,
    pattern_masks,
    per_output_masks,
    zero_tensors,
)
from compress.quantization.clips import fake_quantize_weight
from compress.quantization.fakequant import (
    channel_axis,
    fake_quantized_copy,
    quantizable_layers,
    simulate,
)
from compress.stage import Context, formats_of, ranges_of
from compress.stages.ranking import activation_inputs, weight_scores
from compress.training.loop import isolated

__all__ = ["Masks", "ZeroWeights", "declared", "masks_of", "zero_weights"]


@dataclass(frozen=True)
class ZeroWeights:
    """Which weights become zero.

    Args:
        ratio: share of them, where the pattern has none of its own.
        scope: whether each tensor loses that share, or all of them together.
        pattern: where zeros may be, as in :class:`~compress.pruning.invariants.KeepZeros`.
        ignored: modules that keep all of theirs.
    """

    ratio: float
    scope: Literal["local", "global"]
    pattern: str
    ignored: Collection[str]

    @cached_property
    def shape(self) -> KeepZeros:
        """The pattern, of no weights yet."""
        return KeepZeros(pattern=self.pattern, tensors=())

    def layers(self, module: nn.Module) -> list[str]:
        """The layers that lose weights, by path."""
        return [name for name in quantizable_layers(module) if name not in self.ignored]

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The weights of these, by name."""
        names = (f"{name}.weight" for name in self.layers(module))
        return {name: module.get_parameter(name) for name in names}


@dataclass(frozen=True)
class Masks:
    """Masks by the names of weights, true where one stays; and what there is to say of them."""

    masks: Mapping[str, Tensor]
    note: str = ""


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
        NoEffect: no weight has a block of the shape that was asked for.
        StageError: the criterion cannot rank this module.
    """
    module, layers = pruned.module, request.layers(pruned.module)
    before = count_parameters(module)[1]
    if criterion.compensates:
        names, note = _compensate(pruned, context, request, criterion, layers)
    else:
        ranked = fake_quantized_copy(module, formats_of(pruned))
        scores = weight_scores(ranked, layers, pruned, context, criterion, implied)
        chosen = masks_of(ranked, _zeros_last(module, scores), request, criterion)
        zero_tensors(module, chosen.masks)
        names, note = list(chosen.masks), chosen.note
    done = declared(pruned, request, names, note)
    if count_parameters(module)[1] == before and done.invariants == pruned.invariants:
        raise AlreadySo("prune: every weight that would be removed is already zero.")
    return done


def declared(
    pruned: Candidate, request: ZeroWeights, names: Sequence[str], note: str = ""
) -> Candidate:
    """The candidate with an invariant on its zeros, and a note where there is one.

    Args:
        pruned: has the zeros.
        request: which ones.
        names: of the weights that have them.
        note: for the row.
    """
    invariant = KeepZeros(pattern=request.pattern, tensors=tuple(names))
    invariants = tuple(dict.fromkeys((*pruned.invariants, invariant)))
    notes = (*pruned.notes, f"prune: {note}") if note else pruned.notes
    return replace(pruned, invariants=invariants, notes=notes)


def masks_of(
    module: nn.Module, scores: Mapping[str, Tensor], request: ZeroWeights, criterion: Criterion
) -> Masks:
    """Which weights stay, by their scores.

    Args:
        module: has the weights.
        scores: by the names of weights; the weights themselves for a criterion by magnitude.
        request: how many go, and where.
        criterion: made the scores.

    Raises:
        NoEffect: no weight has a block of the shape that was asked for.
    """
    shape = request.shape
    if shape.n_of_m is not None:
        return Masks(pattern_masks(module, list(scores), *shape.n_of_m, scores))
    if shape.block is not None:
        by_size = not criterion.of_weights
        found = block_masks(
            module, scores, shape.block, request.ratio, request.scope, by_size=by_size
        )
        if not found.masks:
            raise NoEffect(
                f"prune: no layer has {shape.block[0]} outputs and {shape.block[1]} inputs for a "
                f"block of {request.pattern}; make the blocks smaller."
            )
        return Masks(found.masks, found.sentence(request.pattern))
    if criterion.within_outputs:
        return Masks(per_output_masks(module, scores, request.ratio))
    return Masks(magnitude_masks(scores, request.ratio, request.scope))


def _zeros_last(module: nn.Module, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sizes of scores, in which weights that are zero come before others without a score.

    So the share that is removed counts the zeros that are there already, whatever ranks weights.
    """

    def ranked(name: str, score: Tensor) -> Tensor:
        least = torch.finfo(score.dtype).tiny
        is_zero = module.get_parameter(name).detach() == 0
        return score.detach().abs().clamp_min(least).masked_fill(is_zero, 0)

    return {name: ranked(name, score) for name, score in scores.items()}


def _compensate(
    pruned: Candidate,
    context: Context,
    request: ZeroWeights,
    criterion: Criterion,
    layers: Sequence[str],
) -> tuple[list[str], str]:
    """Have the weights that stay make up for those that go; all names, and what there is to say.

    Layers compute with their formats, so that the inputs and the weights are what they will be.
    """
    module, formats = pruned.module, formats_of(pruned)

    def computed(name: str) -> Tensor:
        layer = module.get_submodule(name)
        weight = layer.get_parameter("weight").detach().clone()
        if name not in formats or formats[name].is_float32:
            return weight
        return fake_quantize_weight(weight, formats[name], axis=channel_axis(layer))

    def by_size(name: str) -> Tensor:
        weights = {f"{name}.weight": computed(name)}
        plain = replace(request, scope="local")
        return masks_of(module, weights, plain, criterion).masks[f"{name}.weight"]

    choice = Choice(request.ratio, request.shape.n_of_m)
    inputs = activation_inputs(context, criterion)
    ranges = ranges_of(module, formats, context.task)
    with isolated(context.seed), simulate(module, formats, ranges):
        remaining = prune_layers(module, layers, inputs, choice, computed, by_size)
    return [f"{name}.weight" for name in layers], _left(remaining)


def _left(remaining: Remaining) -> str:
    parts = [f"{named(names)}, since {why}" for why, names in remaining.layers.items()]
    return f"went by magnitude, not by sparsegpt: {'; '.join(parts)}" if parts else ""
