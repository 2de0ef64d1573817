"""Cut channels or heads out of a candidate, along with what is declared of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import nn

from compress.candidate import Candidate
from compress.config.selectors import named, select
from compress.events import Widths
from compress.modules.edits import FactorizedEmbedding
from compress.modules.tied import parameters_of
from compress.outputs import Implied
from compress.pruning.channels import ChannelPruning, Pruned, prune_channels
from compress.pruning.importance import Criterion
from compress.pruning.invariants import KeepZeros
from compress.pruning.sparsity import pattern_masks, zero_tensors
from compress.quantization.fakequant import fake_quantized_copy, quantizable_layers, simulate
from compress.quantization.numerics import LayerFormat
from compress.stage import Context, formats_of, ranges_of
from compress.stages.ranking import activation_inputs, gradient_losses
from compress.training.loop import isolated

__all__ = ["cut_channels", "ignored_parts", "ratios_of_layers", "ratios_of_original"]


def cut_channels(
    pruned: Candidate,
    context: Context,
    request: ChannelPruning,
    criterion: Criterion,
    implied: Sequence[Implied],
    sentence: Callable[[Pruned, ChannelPruning], str] = Pruned.sentence,
) -> Candidate:
    """The candidate with fewer channels or heads, its module changed in place.

    Channels are ranked on the weights as the candidate computes with them. A multiple that its
    zeros need is kept, and what its formats have learned of channels that are gone ends, as do
    blocks that zeros filled.

    Args:
        pruned: is cut.
        context: of the stage.
        request: how much goes, and of what.
        criterion: ranks the channels.
        implied: what the losses of the stage imply that the outputs are.
        sentence: says in a note what was done.

    Raises:
        AlreadySo: the widths are those already.
        NoEffect: nothing may be cut.
        StageError: the criterion cannot rank this module.
    """
    module, formats = pruned.module, formats_of(pruned)
    ranked, shapes = fake_quantized_copy(module, formats), _shapes(module)
    multiples = [invariant.channel_multiple for invariant in pruned.invariants]
    request = replace(request, round_to=math.lcm(request.round_to, *multiples))
    # Its weights are clipped already, and a share of what is left would clip them further.
    unclipped = {name: format.with_clip(()) for name, format in formats.items()}
    with (
        isolated(context.seed),
        simulate(ranked, unclipped, ranges_of(module, formats, context.task)),
    ):
        done = prune_channels(
            module,
            pruned.example,
            request,
            ranked=ranked,
            losses=gradient_losses(ranked, context, criterion, implied),
            inputs=activation_inputs(context, criterion),
        )
    for invariant in pruned.invariants:
        # A cut moves the groups of an N:M pattern; the pattern is projected anew.
        if invariant.n_of_m is not None:
            masks = pattern_masks(module, invariant.tensors, *invariant.n_of_m)
            zero_tensors(module, masks)
    context.report(Widths(request.ratio, [asdict(width) for width in done.widths]))
    pruned = replace(pruned, notes=(*pruned.notes, f"prune: {sentence(done, request)}"))
    return _without_lost_blocks(_without_lost_clips(pruned, formats), shapes)


def ignored_parts(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The paths that patterns match: of modules, parents too, and of parameters in none.

    Raises:
        SelectorError: a pattern that matches nothing.
    """
    known: dict[str, str] = {
        name: type(layer).__name__ for name, layer in module.named_modules() if name
    }
    known |= {name: "Parameter" for name, _ in module.named_parameters(recurse=False)}
    return select(patterns, known, where="ignore") if patterns else []


def ratios_of_original(module: nn.Module, first: nn.Module, ratio: float) -> dict[str, float]:
    """What is still to be removed of each layer, so that ``ratio`` of its first width is gone.

    Args:
        module: as it is.
        first: the same module before any cut.
        ratio: of the widths of ``first``.
    """
    ratios = {}
    for name in quantizable_layers(module):
        width, original = _width(module.get_submodule(name)), _width_in(first, name)
        ratios[name] = max(0.0, 1 - (1 - ratio) * original / width)
    return ratios


def ratios_of_layers(module: nn.Module, ratios: Mapping[str, float]) -> dict[str, float]:
    """By path the ratio of the last pattern that matches a module; those of none are left out.

    Raises:
        SelectorError: a pattern that matches nothing.
    """
    known = {name: type(layer).__name__ for name, layer in module.named_modules() if name}
    found: dict[str, float] = {}
    for pattern, ratio in ratios.items():
        found |= dict.fromkeys(select((pattern,), known, where="ratios"), ratio)
    return found


def _without_lost_clips(pruned: Candidate, before: Mapping[str, LayerFormat]) -> Candidate:
    """The candidate without the clips of layers that have other channels than ``before``."""
    after = formats_of(pruned)
    lost = [name for name, format in after.items() if before[name].clip and not format.clip]
    if not lost:
        return pruned
    note = f"learned clips of {named(lost)} end here: their channels are others"
    numerics = pruned.numerics.without_clips(lost)
    return replace(pruned, numerics=numerics, notes=(*pruned.notes, note))


def _width_in(first: nn.Module, name: str) -> int:
    """The width of a layer before any cut; of the second factor of an embedding, its columns."""
    embedding = first.get_submodule(name.rpartition(".")[0])
    if isinstance(embedding, (nn.Embedding, FactorizedEmbedding)):
        return embedding.embedding_dim
    return _width(first.get_submodule(name))


def _without_lost_blocks(pruned: Candidate, before: Mapping[str, torch.Size]) -> Candidate:
    """The candidate with the zeros of weights of other shapes than ``before`` in no blocks.

    A cut takes single channels out of blocks and moves those after them. Zeros stay zero.
    """
    after, invariants, lost = _shapes(pruned.module), list[KeepZeros](), list[str]()
    for one in pruned.invariants:
        cut = [name for name in one.tensors if after[name] != before[name]] if one.block else []
        if not cut:
            invariants.append(one)
            continue
        lost += cut
        if whole := tuple(name for name in one.tensors if name not in cut):
            invariants.append(one.model_copy(update={"tensors": whole}))
        invariants.append(KeepZeros(tensors=tuple(cut)))
    if not lost:
        return pruned
    note = f"zeros of {named(lost)} stay, and fill no blocks any more: their channels are others"
    return replace(pruned, invariants=tuple(invariants), notes=(*pruned.notes, note))


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in parameters_of(module).items()}


def _width(layer: nn.Module) -> int:
    width = getattr(layer, "out_channels", None) or getattr(layer, "out_features", None)
    assert isinstance(width, int)
    return width
