"""Which channel ids arrive where: a recorded trace, followed with ids in place of numbers.

Operators that move data are run on the ids themselves; operators that work place by place join the
ids that meet; sums of products join the ids that they sum over; what is not known keeps the
channels that it is given intact, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from compress.pruning import across, moves, products
from compress.pruning.ids import ChannelIds
from compress.pruning.trace import Node, Trace
from compress.pruning.walk import POINTWISE, SAME, Across, Decision, Layout, Walk, place_of

__all__ = ["Flow", "follow"]

_MOVES = moves.RESHAPES | {"permute", "transpose", "t", "expand", "squeeze", "unsqueeze"}
_MOVES |= {"stack", "flip", "repeat", "im2col", "pixel_shuffle", "pixel_unshuffle"}
_MOVES |= {"constant_pad_nd", "slice_scatter", "select_scatter", "copy", "movedim", "swapaxes"}
_MOVES |= {f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)}
_UNIFORM = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "empty"}
_UNIFORM |= {"empty_like", "new_empty", "scalar_tensor", "fill", "zero"}
_REDUCTIONS = {"sum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean"}
_REDUCTIONS |= {"std_mean", "logsumexp", "linalg_vector_norm", "norm", "any", "all", "median"}
_REDUCTIONS |= {"aminmax", "nansum"}
_ORDERED = {"cumsum", "cumprod", "sort", "topk", "argmax", "argmin", "argsort", "logcumsumexp"}
_ORDERED |= {"cummax", "cummin", "kthvalue", "mode"}
_BATCH_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"}
_BATCH_NORMS |= {"_native_batch_norm_legit", "_batch_norm_no_update", "_batch_norm_with_update"}
_LAYER_NORMS = {"native_layer_norm", "_fused_rms_norm", "rms_norm"}
_SPATIAL = re.compile(
    r"(_?adaptive_(avg|max)_pool|avg_pool|max_pool|lp_pool|fractional_max_pool|_?upsample_[a-z_]*?"
    r"|max_unpool|grid_sampler_)(\d)d"
)
_ATTENTIONS = {"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math"}
_ATTENTIONS |= {"_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"}
_ATTENTIONS |= {"_scaled_dot_product_cudnn_attention", "scaled_dot_product_attention"}

HANDLERS: dict[str, Callable[[Walk, Node], None]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "mv", "dot", "linear"), products.products),
    **dict.fromkeys(_ATTENTIONS, products.attention),
    **dict.fromkeys(("convolution", "convolution_overrideable"), products.convolution),
    **dict.fromkeys(_BATCH_NORMS, across.batch_norm),
    **dict.fromkeys(_LAYER_NORMS, across.layer_norm),
    "native_group_norm": across.group_norm,
    **dict.fromkeys(_REDUCTIONS, across.reduce),
    **dict.fromkeys(_ORDERED, across.ordered),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), across.softmax),
    **dict.fromkeys(_MOVES, moves.move),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), moves.split),
    **dict.fromkeys(("select", "unbind"), moves.select),
    **dict.fromkeys(("index", "index_select", "gather", "take_along_dim"), moves.index),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), moves.channel_shuffle),
    "cat": moves.cat,
    "slice": moves.slice_axis,
    "roll": moves.roll,
    "col2im": moves.fold,
    "unfold": moves.window,
    "embedding": moves.embedding,
    "glu": moves.glu,
}


@dataclass
class Flow:
    """The outcome: classes of ids, and the layout of every value of the trace."""

    ids: ChannelIds
    layouts: list[Layout]
    across: dict[int, Across]
    decisions: dict[str, Decision]


def follow(
    trace: Trace, choices: Mapping[str, str] | None = None, ids: ChannelIds | None = None
) -> Flow:
    """Follow ids through ``trace``.

    Args:
        trace: of a module.
        choices: the option of each decision, by its signature; the first one where not given.
        ids: to which the classes are added, those of another trace of the same module.
    """
    walk = Walk(trace, dict(choices or {}), ids or ChannelIds())
    for number, node in enumerate(trace.nodes):
        walk.number = number
        walk.ids.at = place_of(node)
        _step(walk, node)
    for output in trace.outputs:
        layout = walk.layout(output)
        for vector in (*layout.axes, *layout.mean_of):
            if vector is not None:
                walk.ids.keep_intact(vector, "they are the model's outputs")
    layouts = [walk.layout(number) for number in range(len(trace.values))]
    return Flow(walk.ids, layouts, walk.across, walk.decisions)


def _step(walk: Walk, node: Node) -> None:
    """Work out the layouts of what one operator gives."""
    kind = node.kind
    walk.settle_means(node)
    if kind in _UNIFORM or not node.refs:
        walk.give_plain(node, is_uniform=kind in _UNIFORM)
    elif kind in SAME or (kind == "as_strided" and _keeps_shape(walk, node)):
        walk.give(node, walk.layout(node.refs[0]))
    elif handler := HANDLERS.get(kind):
        handler(walk, node)
    elif torch.Tag.pointwise in node.op.tags or kind in POINTWISE:
        walk.pointwise(node)
    elif match := _SPATIAL.fullmatch(kind.removesuffix("_with_indices").removesuffix("_aa")):
        across.spatial(walk, node, int(match[3]))
    else:
        _unknown(walk, node)


def _keeps_shape(walk: Walk, node: Node) -> bool:
    # What pooling to one place does to the strides of channels-last tensors.
    shapes = [walk.trace.values[v].shape for v in (node.refs[0], node.outputs[0]) if v is not None]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def _unknown(walk: Walk, node: Node) -> None:
    for ref in node.refs:
        for vector in walk.layout(ref).axes:
            walk.keep_intact(vector, node, "is not known to keep channels apart")
    walk.give_plain(node)
