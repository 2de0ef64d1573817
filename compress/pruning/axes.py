"""Which axis of what a module gives has the channels: followed from the layers that make them.

Channels are what a weight gives along its outputs: a convolution, a product of matrices, a table
that is looked up. Their ids are followed through every operator (:mod:`compress.pruning.flow`), so
that permutes, windows and reshapes need not be guessed at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.modules.features import first_tensor
from compress.modules.inputs import Inputs
from compress.pruning.flow import Flow, follow
from compress.pruning.ids import NOTHING
from compress.pruning.moves import RESHAPES
from compress.pruning.trace import Node, Trace, in_float64, record
from compress.pruning.walk import arguments

__all__ = ["channel_axes"]

_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "linear"})
_BATCHED = frozenset({"bmm", "baddbmm"})
_ADDED = frozenset({"addmm", "baddbmm"})


def channel_axes(module: nn.Module, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """The axes with channels of what each module below ``module`` gives, by path.

    Samples are on axis 0. No axis where no layer's channels arrive in a known way; several where
    layers made more than one, as where tokens are mixed by weights, or where channels are spread
    over several, as by heads of attention. Of a module that runs several times the last call
    counts; where it gives a tuple or a mapping, the first tensor.

    Args:
        module: left as it was; it is run in double precision, in eval mode, as a copy.
        inputs: one batch.

    Raises:
        TraceFailed: the module does not run in double precision.
    """
    double, batch = in_float64(module, inputs)
    double.eval()
    marks = _Marks(double)
    trace = record(double, batch, observe=marks.observe)
    flow = follow(trace)
    found = _Channels(trace, flow, _of_parameters(trace, double, len(tree_leaves(batch))))
    return {name: found.axes(value) for name, value in marks.values.items()}


class _Marks:
    """Finds the value that each module gave, by an operator on it that nothing else sees."""

    def __init__(self, module: nn.Module) -> None:
        self.values: dict[str, int] = {}
        self._pending = ""
        for name, inner in module.named_modules():
            if inner is not module:
                inner.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., None]:
        def after(_: nn.Module, __: object, output: object) -> None:
            tensor = first_tensor(output)
            if tensor is not None and tensor.is_floating_point():
                self._pending = name
                torch.sgn(tensor)
                self._pending = ""

        return after

    def observe(self, _: int, node: Node, __: Trace, ___: list[Tensor]) -> None:
        """Take note of what a mark was put on."""
        if self._pending and node.kind == "sgn":
            self.values[self._pending] = node.refs[0]


class _Channels:
    """Where the channels are of every value of a trace; ``weights`` are values of parameters."""

    def __init__(self, trace: Trace, flow: Flow, weights: set[int]) -> None:
        self._trace, self._flow, self._weights = trace, flow, weights
        self._made: set[int] = set()
        for node in trace.nodes:
            self._make(node)
        # How many places the channels of a value have, all axes together that a reshape made.
        self._places: dict[int, int] = {}
        for node in trace.nodes:
            self._step(node)

    def axes(self, value: int) -> tuple[int, ...]:
        """The axes of a value with channels; all but the samples' where they are spread out."""
        rank = len(self._trace.values[value].shape)
        return tuple(range(1, rank)) if self._is_spread(value) else self._with_ids(value)

    def _with_ids(self, value: int) -> tuple[int, ...]:
        return tuple(
            axis
            for axis, ids in enumerate(self._flow.layouts[value].axes)
            if ids is not None and not self._made.isdisjoint(self._flow.ids.roots(ids).tolist())
        )

    def _is_spread(self, value: int) -> bool:
        return self._places.get(value, 0) > max(self._lengths(value), default=0)

    def _lengths(self, value: int) -> list[int]:
        return [self._trace.values[value].shape[axis] for axis in self._with_ids(value)]

    def _make(self, node: Node) -> None:
        """Note the classes of the ids that a layer gives along its outputs."""
        axis, output = self._made_axis(node), node.outputs[0]
        ids = None if axis is None or output is None else self._flow.layouts[output].axes[axis]
        if ids is not None:
            self._made.update(set(self._flow.ids.roots(ids).tolist()) - {NOTHING})

    def _made_axis(self, node: Node) -> int | None:
        return _made_axis(node, self._trace, self._flow, self._weights)

    def _step(self, node: Node) -> None:
        """Note what a reshape splits, and carry it on to where it is put together again."""
        places = [self._places[ref] for ref in node.refs if self._is_spread(ref)]
        if node.kind in RESHAPES:
            layout = self._flow.layouts[node.refs[0]]
            ids = [layout.axes[axis] for axis in self._with_ids(node.refs[0])]
            places += [len(np.unique(one)) for one in ids if one is not None]
        if places and self._made_axis(node) is None:
            self._places |= {o: max(places) for o in node.outputs if o is not None}


def _of_parameters(trace: Trace, module: nn.Module, inputs: int) -> set[int]:
    """The values that follow from parameters and not from the ``inputs`` first values."""
    names = {name for name, _ in module.named_parameters()}
    moved = set(range(inputs))
    learned = {n for n, value in enumerate(trace.values) if value.name in names}
    for node in trace.nodes:
        outputs = {output for output in node.outputs if output is not None}
        if not moved.isdisjoint(node.refs):
            moved |= outputs
        elif not learned.isdisjoint(node.refs):
            learned |= outputs
    return learned - moved


def _made_axis(node: Node, trace: Trace, flow: Flow, weights: set[int]) -> int | None:
    """The axis of an operator's output that a weight makes."""
    if node.kind.startswith("convolution"):
        weight = trace.values[arguments(node)["weight"].value].shape
        return len(trace.values[node.refs[0]].shape) - len(weight) + 1
    if node.kind == "embedding":
        return -1
    if node.kind not in _PRODUCTS:
        return None
    left, right = node.refs[1:3] if node.kind in _ADDED else node.refs[:2]
    if node.kind in _BATCHED:
        # What learned queries ask with is no weight of a layer.
        weights = {ref for ref in (left, right) if flow.layouts[ref].parameter} & weights
    if right in weights:
        return -1
    return -2 if left in weights else None
