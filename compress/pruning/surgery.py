"""Take slices out of a module's tensors, and have its integers say the new sizes.

Tied parameters stay tied. What PyTorch's own layers keep in attributes is known; of other modules,
:func:`attributes_to_try` says which integers may be a size that has changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.pruning.ids import Axis, ChannelIds

__all__ = ["Attribute", "Cut", "attributes_to_try", "set_attribute", "take_slices", "zero_slices"]

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_NORMS = (nn.modules.batchnorm._NormBase,)


@dataclass(frozen=True)
class Cut:
    """Which indices stay along each axis of each parameter that loses some."""

    kept: Mapping[Axis, tuple[int, ...]]
    sizes: Mapping[Axis, int]

    @classmethod
    def of(cls, ids: ChannelIds, removed: set[int]) -> Cut:
        """What the removal of some classes leaves."""
        kept = {}
        for axis, vector in ids.of_axis.items():
            stays = tuple(
                place for place, root in enumerate(ids.roots(vector)) if int(root) not in removed
            )
            if len(stays) < len(vector):
                kept[axis] = stays
        return cls(kept, {axis: len(ids.of_axis[axis]) for axis in kept})


@dataclass(frozen=True)
class Attribute:
    """An integer of a module; ``place`` is its position where it is in a list or tuple."""

    module: str
    name: str
    place: int | None = None


def take_slices(module: nn.Module, cut: Cut) -> None:
    """Leave of every tensor what ``cut`` keeps, in place, and update what layers say of it."""
    groups = {name: _blocks_left(layer, name, cut) for name, layer in module.named_modules()}
    done: dict[int, Tensor] = {}
    by_name = _axes_by_tensor(cut)
    for owner, leaf, first_name, tensor in list(_tensors(module)):
        if first_name not in by_name:
            continue
        if id(tensor) not in done:
            done[id(tensor)] = _sliced(tensor, by_name[first_name])
        setattr(owner, leaf, done[id(tensor)])
    for name, layer in module.named_modules():
        _refresh(layer, groups[name])


def zero_slices(module: nn.Module, cut: Cut) -> None:
    """Set to zero what :func:`take_slices` would take away, in place."""
    by_name = _axes_by_tensor(cut)
    with torch.no_grad():
        for _, _, name, tensor in _tensors(module):
            for axis, kept in by_name.get(name, {}).items():
                mask = torch.zeros(tensor.shape[axis], dtype=tensor.dtype)
                mask[list(kept)] = 1
                shape = [-1 if a == axis else 1 for a in range(tensor.dim())]
                tensor.mul_(mask.view(shape))


def attributes_to_try(
    layer: nn.Module, name: str, sizes: Mapping[int, int]
) -> list[tuple[Attribute, int]]:
    """Integers of a module that equal an old size, with the new one (``sizes``: old to new)."""
    found = []
    for key, value in vars(layer).items():
        if key.startswith("_"):
            continue
        if type(value) is int and value in sizes:
            found.append((Attribute(name, key), sizes[value]))
        elif isinstance(value, (tuple, list)) and all(type(v) is int for v in value):
            found += [
                (Attribute(name, key, place), sizes[v])
                for place, v in enumerate(value)
                if v in sizes
            ]
    return found


def set_attribute(module: nn.Module, attribute: Attribute, value: int) -> None:
    """Set an integer of a module."""
    layer = module.get_submodule(attribute.module)
    if attribute.place is None:
        setattr(layer, attribute.name, value)
        return
    items = list(getattr(layer, attribute.name))
    items[attribute.place] = value
    setattr(layer, attribute.name, type(getattr(layer, attribute.name))(items))


def _tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, str, Tensor]]:
    """Every place of a parameter or buffer, and the first name of what is there."""
    names: dict[int, str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        names.setdefault(id(tensor), name)
    for layer in module.modules():
        for leaf, held in (*layer._parameters.items(), *layer._buffers.items()):
            if held is not None:
                yield layer, leaf, names[id(held)], held


def _axes_by_tensor(cut: Cut) -> dict[str, dict[int, tuple[int, ...]]]:
    by_name: dict[str, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for axis, kept in cut.kept.items():
        by_name[axis.parameter][axis.axis] = kept
    return by_name


def _sliced(tensor: Tensor, kept: Mapping[int, tuple[int, ...]]) -> Tensor:
    result = tensor.detach()
    for axis, indices in kept.items():
        index = torch.tensor(indices, dtype=torch.long, device=tensor.device)
        result = result.index_select(axis, index)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(result, requires_grad=tensor.requires_grad)
    return result


def _blocks_left(layer: nn.Module, name: str, cut: Cut) -> int | None:
    """How many groups a layer still has, of those that have groups."""
    groups = getattr(layer, "groups", getattr(layer, "num_groups", None))
    if not isinstance(layer, (*_CONVOLUTIONS, nn.GroupNorm)) or not isinstance(groups, int):
        return None
    axis = Axis(f"{name}.weight" if name else "weight", 0)
    if axis not in cut.kept:
        return groups
    members = cut.sizes[axis] // groups
    return len({place // members for place in cut.kept[axis]})


def _refresh(layer: nn.Module, groups: int | None) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _CONVOLUTIONS):
        assert groups is not None
        first, second = layer.weight.shape[:2]
        ins, outs = (first, second * groups) if layer.transposed else (second * groups, first)
        layer.in_channels, layer.out_channels, layer.groups = ins, outs, groups
    elif isinstance(layer, nn.GroupNorm):
        assert groups is not None
        layer.num_groups = groups
        if layer.affine:
            layer.num_channels = layer.weight.shape[0]
    elif isinstance(layer, _NORMS):
        known = layer.weight if layer.weight is not None else layer.running_mean
        if known is not None:
            layer.num_features = known.shape[0]
    elif isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        if layer.weight is not None:
            layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.RNNBase):
        weight: Tensor = layer.weight_ih_l0  # type: ignore[assignment]
        hidden: Tensor = layer.weight_hh_l0  # type: ignore[assignment]
        gates = {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
        layer.input_size, layer.hidden_size = weight.shape[1], hidden.shape[0] // gates
    elif isinstance(layer, nn.MultiheadAttention):
        width = layer.out_proj.weight.shape[0]
        layer.embed_dim = layer.kdim = layer.vdim = width
        layer.head_dim = width // layer.num_heads
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.shape[0]
    elif isinstance(layer, nn.Bilinear):
        layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape
