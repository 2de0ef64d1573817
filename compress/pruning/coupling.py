"""Join the ids of what PyTorch's own layers keep in one attribute."""

from __future__ import annotations

from torch import nn

from compress.pruning.ids import Axis, ChannelIds

__all__ = ["couple"]


def couple(module: nn.Module, ids: ChannelIds) -> None:
    """Join ids that one integer of a layer counts, such as the hidden size of an LSTM."""
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(layer, nn.RNNBase):
            _couple_recurrent(layer, prefix, ids)
        elif isinstance(layer, nn.MultiheadAttention):
            _couple_attention(name, prefix, ids)


def _couple_recurrent(layer: nn.RNNBase, prefix: str, ids: ChannelIds) -> None:
    axes = [Axis(f"{prefix}{leaf}", 1) for leaf in layer._parameters if "weight_hh" in leaf]
    vectors = [ids.of_axis[axis] for axis in axes if axis in ids.of_axis]
    for vector in vectors[1:]:
        ids.join(vectors[0], vector)
    if layer.proj_size:
        rows = [Axis(f"{prefix}{leaf}", 0) for leaf in layer._parameters if "weight_hh" in leaf]
        for axis in (*axes, *rows):
            if axis in ids.of_axis:
                ids.keep_intact(ids.of_axis[axis], f"{prefix[:-1]!r} has projections")


def _couple_attention(name: str, prefix: str, ids: ChannelIds) -> None:
    # Its head width follows from the embedding, so both lose equally many channels.
    weight = f"{prefix}in_proj_weight"
    made, taken = ids.of_axis.get(Axis(weight, 0)), ids.of_axis.get(Axis(weight, 1))
    if made is not None and taken is not None:
        for part in made.reshape(3, -1):
            ids.join(taken, part)
        return
    for axis, vector in ids.of_axis.items():
        if axis.parameter.startswith(prefix):
            ids.keep_intact(vector, f"{name!r} takes keys and values of widths of their own")
