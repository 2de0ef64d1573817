"""Structured pruning: choose channels, cut them, and prove the cut.

Channels are ranked on the model *as it computes* (for a quantized model: on its quantized weights)
and cut from the float module. Which slices go together is read off the module's own operators
(:mod:`compress.pruning.flow`), and every cut is proved (:mod:`compress.pruning.proof`); what cannot
be proved stays uncut, and the result says why.

That channels form groups which must be removed together is Fang et al. 2023, "DepGraph: toward any
structural pruning".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from compress.config.selectors import named
from compress.errors import AlreadySo, NoEffect, StageError
from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import OUTPUT, by_name
from compress.pruning.activations import by_activation
from compress.pruning.importance import CRITERIA, Criterion, accumulate_gradients
from compress.pruning.widths import Shapes, Width, pools_of

if TYPE_CHECKING:
    from compress.pruning.search import Found

__all__ = ["ChannelPruning", "Pruned", "Unit", "find_cut", "prune_channels"]

#: What goes together: the same channels of every head of attention, or a complete head.
Unit = Literal["channels", "heads"]

_MOST_NAMED = 4


@dataclass(frozen=True)
class ChannelPruning:
    """The settings of :func:`prune_channels`.

    Args:
        ratio: share of each layer's channels to remove (of all channels, for ``scope: global``).
        unit: ``channels`` of any layer, of attention the same number from every head; or complete
            ``heads`` of attention and nothing else (Michel et al. 2019, "Are sixteen heads really
            better than one?").
        importance: how channels are ranked: a criterion, or the name of one
            (``compress.pruning.importance.CRITERIA``).
        scope: rank within each group of layers, or over the whole net.
        round_to: a layer that is cut has a multiple of this.
        ignore: paths of modules whose output channels stay; those of the model always do.
        layer_ratios: ratios for single layers, by path, over ``ratio``.
        first_shapes: of parameters before the first of several cuts, by name: what ratios are
            shares of; of parameters that are not there, the present ones.
    """

    ratio: float
    unit: Unit = "channels"
    importance: str | Criterion = "group-l2"
    scope: Literal["local", "global"] = "local"
    round_to: int = 1
    ignore: Sequence[str] = ()
    layer_ratios: Mapping[str, float] = field(default_factory=dict)
    first_shapes: Shapes = field(default_factory=dict)

    @property
    def criterion(self) -> Criterion:
        """How channels are ranked."""
        return CRITERIA[self.importance] if isinstance(self.importance, str) else self.importance


@dataclass(frozen=True)
class Pruned:
    """Every layer's width before and after.

    Args:
        widths: of every layer.
        restored: scales that a cut had changed.
        unread: layers whose channels have no activations that could be read, where these rank.
    """

    widths: tuple[Width, ...]
    restored: int = 0
    unread: tuple[str, ...] = ()

    def sentence(self, request: ChannelPruning) -> str:
        """What was requested and what was done."""
        able = [width for width in self.widths if not width.is_output]
        lost = sum(width.before - width.after for width in able)
        of = sum(width.before for width in able)
        each = "all channels" if request.scope == "global" else "the channels of each layer"
        what = "the heads of each block" if request.unit == "heads" else each
        asked = f"{request.ratio:.3g} of {what}"
        if request.layer_ratios and not request.ratio:
            own = [ratio for ratio in request.layer_ratios.values() if ratio]
            asked = f"{min(own):.3g} to {max(own):.3g} of {what} that are named" if own else asked
        text = (
            f"{asked} was requested, and {lost / max(1, of):.3g} of all "
            f"channels was removed ({lost:,} of {of:,}, in "
            f"{sum(w.after < w.before for w in able)} of {len(able)} layers)"
        )
        if self.restored:
            text += f"; a scale that follows from a width was restored {self.restored} times"
        if self.unread:
            text += f"; {named(self.unread)} went by group-l2: no layer gives their channels"
        same = [w.layer for w in able if w.after == w.before and not w.reason]
        if same:
            text += (
                f"; {named(same)} kept all, which is nearest in the steps that structure and "
                "round_to allow"
            )
        uncut: dict[str, list[str]] = {}
        for width in able:
            if width.reason and width.after == width.before:
                uncut.setdefault(width.reason, []).append(width.layer)
        reasons = [f"{named(names)} ({reason})" for reason, names in uncut.items()]
        more = len(reasons) - _MOST_NAMED
        tail = f", and more for {more} other reasons" if more > 0 else ""
        return text + (f"; left uncut: {'; '.join(reasons[:_MOST_NAMED])}{tail}" if reasons else "")


def prune_channels(
    module: nn.Module,
    example: Inputs,
    request: ChannelPruning,
    *,
    ranked: nn.Module | None = None,
    losses: Iterable[Tensor] = (),
    inputs: Iterable[Inputs] = (),
) -> Pruned:
    """Remove the least important channels of ``module``, in place.

    Args:
        module: plain, float32, in eval mode.
        example: one batch of inputs.
        request: how much to remove, and by which criterion.
        ranked: a module of the same structure whose weights are ranked; ``module`` by default.
        losses: for criteria that read gradients: scalar losses through ``ranked`` of batches, or of
            single samples for one that squares them.
        inputs: for criteria that read activations: batches for ``ranked``.

    Raises:
        StageError: the model cannot be run, or ``taylor`` without a loss.
        NoEffect: nothing is left that could be removed.
    """
    ranked = module if ranked is None else ranked
    if request.criterion.reads_gradients:
        accumulate_gradients(ranked, losses, request.criterion)
    unread: set[str] = set()
    if request.criterion.reads_activations:
        plain = CRITERIA["group-l2"].scores
        reading, unread = by_activation(request.criterion, ranked, inputs, plain)
        request = replace(request, importance=reading)
    found = find_cut(module, example, request, ranked)
    expected = _output_shapes(module, example)
    found.apply(module)
    shapes = _output_shapes(module, example)
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            which = "the output" if name == OUTPUT else f"the output {name!r}"
            raise StageError(
                f"prune: cutting channels changed {which} from {shape} to {shapes.get(name)}; name "
                "the layers that make the output in `ignore`."
            )
    cut = {width.layer for width in found.widths if width.after < width.before}
    return Pruned(found.widths, len(found.settings.rescalings), tuple(sorted(unread & cut)))


def find_cut(
    module: nn.Module, example: Inputs, request: ChannelPruning, ranked: nn.Module
) -> Found:
    """A cut of ``module`` that is proved, and not made.

    Args:
        module: plain, float32, in eval mode; left as it is.
        example: one batch of inputs.
        request: how much to remove, and by which criterion.
        ranked: a module of the same structure whose weights are ranked, with gradients where the
            criterion reads them.

    Raises:
        StageError: the model cannot be run.
        NoEffect: nothing is left that could be removed.
    """
    from compress.pruning.search import Search

    found = Search(module, example, request, ranked).run()
    if not found.removed:
        if _is_met(request, found.widths):
            raise AlreadySo("prune: every layer is as near to its width as can be.")
        raise NoEffect(_nothing(request, found))
    return found


def _is_met(request: ChannelPruning, widths: Sequence[Width]) -> bool:
    """Whether earlier cuts have removed as much of each layer as is requested, or more."""
    able = [width for width in widths if not width.is_output and not width.reason]
    return bool(able) and all(request.layer_ratios.get(w.layer, 1.0) < request.ratio for w in able)


def _nothing(request: ChannelPruning, found: Found) -> str:
    """Why there is nothing to cut, and what would do."""
    reasons = dict.fromkeys(w.reason for w in found.widths if w.reason and not w.is_output)
    uncut = f"; left uncut: {'; '.join(list(reasons)[:_MOST_NAMED])}" if reasons else ""
    able = any(len(pool.classes) > 1 for pool in pools_of(found.plan.ids))
    if request.unit == "heads" and not found.has_heads:
        return (
            "prune: the model has no attention whose heads can be removed; granularity: channels "
            "cuts the channels within heads."
        )
    if request.unit == "heads":
        if able:
            return f"prune: a ratio of {request.ratio:g} removes no head from any block; raise it."
        return (
            f"prune: no block has heads that can be removed by themselves{uncut}; granularity: "
            "channels cuts the channels within heads."
        )
    if able:
        return (
            f"prune: a ratio of {request.ratio:g} with round_to {request.round_to} removes no "
            f"channel from any layer{uncut}; raise the ratio or lower round_to."
        )
    advice = "granularity: weights needs no structure"
    if request.criterion.reads_batch_norm:
        advice = "importance: group-l2 needs no batch norms"
    elif any(w.reason.endswith("be ignored") for w in found.widths):
        advice = "ignore less"
    return f"prune: no channel of any layer can be removed{uncut}; {advice}."


def _output_shapes(module: nn.Module, example: Inputs) -> dict[str, tuple[int, ...]]:
    with torch.no_grad():
        outputs = by_name(forward(module, example))
    return {name: tuple(tensor.shape) for name, tensor in outputs.items()}
