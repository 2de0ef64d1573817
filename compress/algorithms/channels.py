"""Structured pruning: choosing channels, and cutting them. The only file with torch-pruning in it.

Choosing and cutting are apart. Channels are ranked on the model *as it computes* (for a quantised
model: on its quantised weights), and the choice is then replayed by layer name on the float module.

torch-pruning follows the dependency graph of Fang et al. 2023, "DepGraph: towards any structural
pruning".
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compress.errors import NoEffect, StageError
from compress.inputs import Inputs, forward

__all__ = [
    "ChannelChoice",
    "Importance",
    "Unit",
    "choose_channels",
    "cut_channels",
    "output_layers",
]

Importance = Literal["l1", "l2", "group-l2", "taylor", "bn-scale", "random"]
#: What goes together: the same channels of every head of attention, or a head as a whole.
Unit = Literal["channels", "heads"]
#: ``(layer path, output channels?, channel indices)`` in the order of cutting.
ChannelChoice = list[tuple[str, bool, list[int]]]

_MOST_OF_A_LAYER = 0.9
_HAIR = 1e-3
# How attention blocks, here and in transformers, call their number of heads and a head's width.
_HEADS = ("num_heads", "num_attention_heads", "n_heads")
_HEAD_WIDTHS = ("head_dim", "attention_head_size", "attention_head_dim")
_PROJECTION = re.compile(r"(to_)?(q|k|v|query|key|value)(_proj|_lin)?")


def choose_channels(
    module: nn.Module,
    example: Inputs,
    *,
    ratio: float,
    unit: Unit = "channels",
    importance: Importance = "group-l2",
    scope: Literal["local", "global"] = "local",
    round_to: int = 1,
    ignore: Sequence[str] = (),
    layer_ratios: Mapping[str, float] | None = None,
    losses: Iterable[Tensor] = (),
) -> ChannelChoice:
    """Choose the least important channels of ``module``, which is left as it was.

    Args:
        module: ranked as given; pass the effective module of a quantised candidate.
        example: one batch of inputs.
        ratio: share of each layer's channels to remove (of all channels, for ``scope: global``).
        unit: ``channels`` of any layer, of attention the same number from every head; or whole
            ``heads`` of attention and nothing else, the nearest whole number of each block's
            whatever the ``scope`` (Michel et al. 2019, "Are sixteen heads really better than
            one?").
        importance: ``l1`` and ``l2`` norms of a layer's own filters (Li et al. 2017), ``group-l2``
            over everything that must go together (Fang et al. 2023), ``taylor`` first-order change
            of the loss (Molchanov et al. 2019), ``bn-scale`` (Liu et al. 2017), or ``random``.
        scope: rank within each layer, or over the whole net.
        round_to: remaining channels are a multiple of this: the nearest one for ``scope: local``
            (and no layer falls below it), the next lower one for ``scope: global``.
        ignore: layer paths whose output channels stay; output layers always do.
        layer_ratios: ratios for single layers, over ``ratio``.
        losses: for ``taylor``: scalar losses of batches through ``module``, with gradients.

    Raises:
        StageError: the model cannot be traced, or ``taylor`` without a loss.
        NoEffect: nothing was left to choose.
    """
    import torch_pruning as tp

    _accumulate_gradients(module, importance, losses)
    scratch = copy.deepcopy(module)
    for own, other in zip(module.parameters(), scratch.parameters(), strict=True):
        other.grad = own.grad
    kept = [*ignore, *output_layers(module, example)]
    heads, by_head = _attention_heads(scratch), unit == "heads"
    local = by_head or scope == "local"
    ratios = _ratios(scratch, ratio, layer_ratios or {}, round_to) if local else {}
    with _traced(scratch):
        pruner = tp.pruner.BasePruner(
            scratch,
            example,
            _criterion(importance),
            global_pruning=not local,
            pruning_ratio=0.0 if by_head else ratio,
            # One layer may lose most of its channels to a global ranking, never all of them.
            max_pruning_ratio=1.0 if local else max(ratio, _MOST_OF_A_LAYER),
            # Without a ratio of its own, the library passes a block by, heads and all.
            pruning_ratio_dict=dict.fromkeys(heads, ratio) if by_head else ratios,
            ignored_layers=[scratch.get_submodule(name) for name in dict.fromkeys(kept)],
            round_to=None if local or round_to == 1 else round_to,
            # Fresh dictionaries: the library writes into its own mutable defaults.
            in_channel_groups={},
            out_channel_groups={},
            num_heads=dict(heads),
            prune_num_heads=by_head,
            prune_head_dims=not by_head,
            head_pruning_ratio_dict=_head_ratios(heads, ratio),
            channel_groups={},
        )
        pruner.step()
        history = [
            (name, bool(is_out), sorted(int(i) for i in indices))
            for name, is_out, indices in pruner.pruning_history()
        ]
    if not history:
        raise NoEffect(_nothing(ratio, unit, round_to, bool(heads)))
    return history


def cut_channels(
    module: nn.Module, example: Inputs, choice: ChannelChoice, *, unit: Unit = "channels"
) -> None:
    """Remove the chosen channels from ``module``, in place; ``unit`` as they were chosen.

    Raises:
        StageError: the model cannot be traced, or no longer gives outputs of the same shape.
    """
    import torch_pruning as tp

    expected, widths = _output_shape(module, example), _head_widths(module)
    with _traced(module):
        graph = tp.DependencyGraph().build_dependency(module, example)
        graph.load_pruning_history(list(choice))
    _update_attention_heads(widths, unit)
    try:
        shape = _output_shape(module, example)
    except RuntimeError as error:
        raise StageError(
            f"prune: the model no longer runs once channels are cut ({_first_line(error)}); a size "
            "is written into its forward: compute it from tensors, or ignore the layers before it."
        ) from error
    if shape != expected:
        raise StageError(
            f"prune: cutting channels changed the output from {expected} to {shape}; add the "
            "layers that make the output to `ignore`."
        )


def output_layers(module: nn.Module, example: Inputs) -> list[str]:
    """Paths of the layers whose output channels are the model's outputs.

    Raises:
        StageError: the model cannot be traced.
    """
    import torch_pruning as tp

    scratch = copy.deepcopy(module)
    with _traced(scratch):
        graph = tp.DependencyGraph().build_dependency(scratch, example)
    names = {layer: name for name, layer in scratch.named_modules()}
    pending = [node for node in graph.module2node.values() if not node.outputs]
    found: dict[str, None] = {}
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        layer = node.module
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) and layer in names:
            found[names[layer]] = None
        else:
            pending.extend(node.inputs)
    return list(found)


@contextmanager
def _traced(module: nn.Module) -> Iterator[None]:
    # torch-pruning follows grad_fn and leaves the module in eval mode.
    modes = {layer: layer.training for layer in module.modules()}
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (StageError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise StageError(
            f"prune: the model cannot be traced for its channel dependencies "
            f"({type(error).__name__}: {_first_line(error)}); control flow that depends on data "
            "cannot be followed."
        ) from error
    finally:
        for layer, mode in modes.items():
            layer.training = mode


def _criterion(importance: Importance) -> Any:
    import torch_pruning as tp

    single = tp.importance.MagnitudeImportance
    if importance == "l1":
        return single(p=1, group_reduction="first")
    if importance == "l2":
        return single(p=2, group_reduction="first")
    if importance == "group-l2":
        return tp.importance.GroupMagnitudeImportance(p=2)
    if importance == "taylor":
        return tp.importance.GroupTaylorImportance()
    if importance == "bn-scale":
        return tp.importance.BNScaleImportance()
    return tp.importance.RandomImportance()


def _accumulate_gradients(
    module: nn.Module, importance: Importance, losses: Iterable[Tensor]
) -> None:
    for parameter in module.parameters():
        parameter.grad = None
    if importance != "taylor":
        return
    count = 0
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
        count += 1
    if count == 0:
        raise StageError("prune: importance taylor needs training batches to take gradients of.")


def _ratios(
    module: nn.Module, ratio: float, layer_ratios: Mapping[str, float], round_to: int
) -> dict[nn.Module, float]:
    # The library rounds what remains down, which turns 0.3 of 16 channels in eights into 0.5, and
    # so would cut far more than was asked for.
    found = {}
    for name, layer in module.named_modules():
        width = getattr(layer, "out_channels", None) or getattr(layer, "out_features", None)
        if isinstance(width, int):
            kept = (1 - layer_ratios.get(name, ratio)) * width
            rounded = max(round_to, math.floor(kept / round_to + 0.5) * round_to)
            # It truncates width * (1 - ratio); a hair more keeps that from falling one short.
            found[layer] = max(0.0, 1 - (rounded + _HAIR) / width)
    return found


def _attention_heads(module: nn.Module) -> dict[nn.Module, int]:
    # The pruner must take the same channels from every head. A block says how many heads it has,
    # and which layers make them, by the field's usual names.
    return {
        layer: count
        for block in module.modules()
        if (count := _number_of_heads(block))
        for layer in _projections(block)
    }


def _head_ratios(heads: Mapping[nn.Module, int], ratio: float) -> dict[nn.Module, float]:
    # The library rounds the number of heads up; a hair less keeps it from taking one too many. At
    # least one head stays.
    removed = {layer: min(round(ratio * count), count - 1) for layer, count in heads.items()}
    return {layer: max(0.0, removed[layer] - _HAIR) / count for layer, count in heads.items()}


def _head_widths(module: nn.Module) -> dict[nn.Module, int]:
    return {
        block: layers[0].out_features // count
        for block in module.modules()
        if (count := _number_of_heads(block)) and (layers := _projections(block))
    }


def _update_attention_heads(widths: Mapping[nn.Module, int], unit: Unit) -> None:
    # For modules that keep these numbers in attributes instead of reading them from tensors;
    # ``widths`` are those of heads before the cut.
    for block, width in widths.items():
        channels = _projections(block)[0].out_features
        if unit == "heads":
            _set_number(block, _HEADS, channels // width)
        else:
            _set_number(block, _HEAD_WIDTHS, channels // (_number_of_heads(block) or 1))


def _set_number(block: nn.Module, names: Sequence[str], value: int) -> None:
    for name in names:
        if isinstance(getattr(block, name, None), int):
            setattr(block, name, value)


def _number_of_heads(block: nn.Module) -> int | None:
    found = (getattr(block, name, None) for name in _HEADS)
    return next((count for count in found if isinstance(count, int) and count > 0), None)


def _projections(block: nn.Module) -> list[nn.Linear]:
    return [
        layer
        for name, layer in block.named_children()
        if isinstance(layer, nn.Linear) and _PROJECTION.fullmatch(name)
    ]


def _nothing(ratio: float, unit: str, round_to: int, has_heads: bool) -> str:
    if unit == "channels":
        return (
            f"prune: a ratio of {ratio:g} with round_to {round_to} removes no channel from any "
            "layer; raise the ratio, lower round_to, or ignore less."
        )
    if not has_heads:
        return (
            "prune: the model has no attention whose heads could be told apart; a block says "
            f"their number in {_HEADS[0]} or {_HEADS[1]}, beside linear layers query, key, value."
        )
    return f"prune: a ratio of {ratio:g} removes no head from any block; raise the ratio."


def _output_shape(module: nn.Module, example: Inputs) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(forward(module, example).shape)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
