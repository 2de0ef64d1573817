"""Put a scale back that follows from a width: attention divides by the root of the head's width.

A cut makes that width smaller, and with it every score larger. The original's scale is restored in
the weights of the layer that makes the keys (or the queries), at no cost when the net runs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from compress.pruning.proof import ScaleChange
from compress.pruning.surgery import Cut
from compress.pruning.trace import Node, Ref, Trace
from compress.pruning.walk import arguments, axis_of

__all__ = ["Rescaling", "find_rescaling", "rescale"]

_MOVES = {"view", "permute", "transpose", "t", "squeeze", "unsqueeze", "select", "slice", "split"}
_MOVES |= {"split_with_sizes", "unbind", "unflatten", "expand", "_to_copy"}


@dataclass(frozen=True)
class Rescaling:
    """Elements of parameters to multiply by ``factor``, as masks of the original's shapes.

    ``numbers`` are the operators between the parameters and the one whose scale changed.
    """

    factor: float
    masks: Mapping[str, Tensor]
    numbers: frozenset[int]


class _NotFoundError(Exception):
    """The way back to the parameters is not one of plain products."""


def find_rescaling(trace: Trace, change: ScaleChange) -> Rescaling | None:
    """The parameters that restore a scale, or ``None`` where there are none for that alone."""
    if not math.isfinite(change.factor) or change.factor <= 0:
        return None
    node = trace.nodes[change.number]
    # Of an attention, either queries or keys will do.
    values = node.refs[1::-1] if "scaled_dot_product" in node.kind else node.refs[:1]
    for value in values:
        way = _Way(trace, change.number)
        try:
            way.back(value, torch.ones(trace.values[value].shape, dtype=torch.bool))
            way.check()
        except _NotFoundError:
            continue
        return Rescaling(change.factor, way.masks, frozenset(way.numbers))
    return None


def rescale(module: nn.Module, rescalings: Sequence[Rescaling], cut: Cut) -> None:
    """Multiply the parameters of a module that was cut, in place."""
    for rescaling in rescalings:
        for name, full in rescaling.masks.items():
            mask = full
            for axis, kept in cut.kept.items():
                if axis.parameter == name:
                    mask = mask.index_select(axis.axis, torch.tensor(kept))
            with torch.no_grad():
                path, _, leaf = name.rpartition(".")
                tensor: Tensor = getattr(module.get_submodule(path), leaf)
                place = mask.to(tensor.device)
                tensor.copy_(torch.where(place, tensor * rescaling.factor, tensor))


class _Way:
    """The way back from a value to the parameters that it is a product of, element by element."""

    def __init__(self, trace: Trace, end: int) -> None:
        self.trace = trace
        self.masks: dict[str, Tensor] = {}
        self.numbers: set[int] = set()
        self._end = end
        self._scaled: dict[int, Tensor] = {}
        self._made_by: dict[int, int] = {}
        self._used_by: dict[int, list[int]] = defaultdict(list)
        for number, node in enumerate(trace.nodes):
            for output in node.outputs:
                if output is not None:
                    self._made_by[output] = number
            for ref in set(node.refs):
                self._used_by[ref].append(number)

    def back(self, value: int, mask: Tensor) -> None:
        """Scale the masked elements of a value."""
        before = self._scaled.get(value, torch.zeros_like(mask))
        mask = mask & ~before
        if not bool(mask.any()):
            return
        self._scaled[value] = before | mask
        name = self.trace.values[value].name
        if name:
            self.masks[name] = self._scaled[value]
            return
        if value not in self._made_by:
            raise _NotFoundError
        number = self._made_by[value]
        self.numbers.add(number)
        node = self.trace.nodes[number]
        if node.kind in _MOVES:
            self._through_move(node, value, mask)
        elif node.kind == "cat":
            self._through_parts(node, mask)
        elif node.kind in ("mm", "addmm", "linear"):
            self._through_product(node, mask)
        elif node.kind == "bmm":
            if not bool(mask.all()):
                raise _NotFoundError
            right = node.refs[1]
            self.back(right, torch.ones(self._shape(right), dtype=torch.bool))
        elif node.kind in ("mul", "div", "neg"):
            self._through_factor(node, mask)
        elif node.kind == "add" and len(node.refs) == 2:
            for ref in node.refs:
                self.back(ref, self._reduced(mask, self._shape(ref)))
        elif node.kind in ("native_layer_norm", "convolution"):
            self._through_weights(node, mask)
        else:
            raise _NotFoundError

    def check(self) -> None:
        """Nobody else may see what is scaled."""
        for value, mask in self._scaled.items():
            self._check_users(value, mask)

    def _check_users(self, value: int, mask: Tensor) -> None:
        if value in self.trace.outputs:
            raise _NotFoundError
        for number in self._used_by[value]:
            node = self.trace.nodes[number]
            if number == self._end or number in self.numbers:
                continue
            if node.kind not in _MOVES:
                raise _NotFoundError
            for output, part in zip(node.outputs, _moved(node, value, mask), strict=True):
                # Functionalization leaves views behind that nobody uses.
                if output is not None and bool(part.any()):
                    self.numbers.add(number)
                    self._check_users(output, part)

    def _shape(self, value: int) -> tuple[int, ...]:
        return self.trace.values[value].shape

    def _through_parts(self, node: Node, mask: Tensor) -> None:
        dim = axis_of(arguments(node)["dim"], node.refs[0], self.trace)
        sizes = [self._shape(ref)[dim] for ref in node.refs]
        for ref, part in zip(node.refs, torch.split(mask, sizes, dim), strict=True):
            self.back(ref, part)

    def _through_move(self, node: Node, value: int, mask: Tensor) -> None:
        source = node.refs[0]
        if node.kind == "_to_copy":
            self.back(source, mask)
            return
        size = math.prod(self._shape(source))
        places = torch.arange(size).view(self._shape(source))
        part = _moved(node, source, places)[node.outputs.index(value)]
        found = torch.zeros(size, dtype=torch.bool)
        found[part[mask]] = True
        found = found.view(self._shape(source))
        if not torch.equal(_moved(node, source, found)[node.outputs.index(value)].bool(), mask):
            raise _NotFoundError
        self.back(source, found)

    def _through_product(self, node: Node, mask: Tensor) -> None:
        columns = self._reduced(mask, mask.shape[-1:])
        refs = node.refs
        added = refs.pop(0) if node.kind == "addmm" else None
        weight = refs[1]
        if node.kind == "linear":
            added = refs[2] if len(refs) > 2 else None
            wide = columns.view(-1, 1).expand(self._shape(weight))
        else:
            wide = columns.view(1, -1).expand(self._shape(weight))
        self.back(weight, wide.clone())
        if added is not None:
            self.back(added, self._reduced(mask, self._shape(added)))

    def _through_factor(self, node: Node, mask: Tensor) -> None:
        for ref in node.refs:
            alone = len(self._used_by[ref]) == 1
            if self.trace.values[ref].name and alone and node.kind == "mul":
                self.back(ref, self._reduced(mask, self._shape(ref)))
                return
        first = node.refs[0]
        if self._shape(first) != tuple(mask.shape):
            raise _NotFoundError
        self.back(first, mask)

    def _through_weights(self, node: Node, mask: Tensor) -> None:
        if len(node.refs) < 2:
            raise _NotFoundError
        if node.kind == "convolution":
            if node.args[6]:
                raise _NotFoundError
            channels = self._reduced(mask, (1, mask.shape[1], *[1] * (mask.dim() - 2))).flatten()
            shape = self._shape(node.refs[1])
            wide = channels.view(-1, *[1] * (len(shape) - 1)).expand(shape)
            self.back(node.refs[1], wide.clone())
            rest = [(ref, channels) for ref in node.refs[2:]]
        else:
            rest = [(ref, self._reduced(mask, self._shape(ref))) for ref in node.refs[1:]]
        for ref, part in rest:
            self.back(ref, part)

    def _reduced(self, mask: Tensor, shape: Sequence[int]) -> Tensor:
        """The mask of what is broadcast to the masked shape; it must not differ within that."""
        wide = [1] * (mask.dim() - len(shape)) + list(shape)
        reduced = mask
        for axis, size in enumerate(wide):
            if size == 1 and reduced.shape[axis] > 1:
                if not torch.equal(reduced.all(axis), reduced.any(axis)):
                    raise _NotFoundError
                reduced = reduced.any(axis, keepdim=True)
        return reduced.reshape(list(shape))


def _moved(node: Node, value: int, tensor: Tensor) -> list[Tensor]:
    def put(leaf: object) -> object:
        return tensor if leaf == Ref(value) else leaf

    args, kwargs = tree_map(put, (node.args, node.kwargs))
    result = node.op(*args, **kwargs)
    return list(result) if isinstance(result, (tuple, list)) else [result]
