"""A walk over a recorded trace: the layout of every value, and how layouts meet.

A layout has at most one vector of ids for each axis: a class is removed from a tensor as complete
slices of one axis, so that what is left is a smaller tensor in the same order. Where an axis is
split (heads and their channels, groups and their members), one of the new axes is cut and the other
is not; which one is a :class:`Decision`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from compress.pruning.ids import ChannelIds, Vector
from compress.pruning.trace import Node, Trace

__all__ = ["POINTWISE", "SAME", "Across", "Decision", "Layout", "Walk", "arguments", "axis_of"]
__all__ += ["place_of"]

#: Operators that give what they are given.
SAME = frozenset(
    {"dropout", "_to_copy", "tril", "triu", "to", "_conj", "resolve_conj", "native_dropout"}
    | {"positive", "pin_memory"}
)
#: Operators that work place by place and that PyTorch does not tag as pointwise itself.
POINTWISE = frozenset(
    {"_prelu_kernel", "masked_fill", "rrelu_with_noise", "where", "clamp", "hardswish", "prelu"}
    | {"log_sigmoid_forward", "rsub", "floor_divide", "complex", "polar"}
)


@dataclass(frozen=True)
class Layout:
    """Ids along each axis of a tensor, or ``None`` where no parameter decides its size.

    ``parameter`` is the one that the tensor is a rearrangement of, if it is one. ``mean_of`` has
    the ids over which a mean in it was taken that nothing has been normalized by yet. ``free`` are
    axes along which one value was spread out, which so agree with any number of channels.
    """

    axes: tuple[Vector | None, ...]
    parameter: str = ""
    mean_of: tuple[Vector, ...] = ()
    is_uniform: bool = False
    free: frozenset[int] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether no axis has ids."""
        return all(axis is None for axis in self.axes)


@dataclass(frozen=True)
class Across:
    """An operator that computes across an axis with ids: ``axes`` of argument ``value``."""

    kind: str
    value: int
    axes: tuple[int, ...]


@dataclass
class Decision:
    """Which of several axes is cut where one is split; places that look alike decide alike."""

    signature: str
    options: tuple[str, ...]
    ids: list[Vector] = field(default_factory=list)
    cuts_heads: bool = False


class Walk:
    """The state of a walk.

    Args:
        trace: of a module.
        choices: the option of each decision, by its signature; the first one where not given.
        ids: to which the classes are added.
    """

    def __init__(self, trace: Trace, choices: dict[str, str], ids: ChannelIds) -> None:
        self.trace = trace
        self.choices = choices
        self.ids = ids
        #: Of the operator at hand.
        self.number = 0
        self.across: dict[int, Across] = {}
        self.decisions: dict[str, Decision] = {}
        self.layouts: dict[int, Layout] = {}

    def layout(self, value: int) -> Layout:
        """The layout of a value; parameters get their ids when they are first used."""
        if value not in self.layouts:
            seen = self.trace.values[value]
            axes: list[Vector | None] = [None] * len(seen.shape)
            if seen.name and seen.is_float:
                for axis, size in enumerate(seen.shape):
                    if size > 1:
                        axes[axis] = self.ids.new_axis(seen.name, axis, size)
            self.layouts[value] = Layout(tuple(axes), seen.name, (), seen.is_uniform)
        return self.layouts[value]

    def give(self, node: Node, layout: Layout) -> None:
        """The layout of what an operator gives, where its shape allows it."""
        for output in node.outputs:
            if output is None:
                continue
            shape = self.trace.values[output].shape
            known = layout if len(layout.axes) == len(shape) else Layout((None,) * len(shape))
            axes = tuple(
                axis if axis is not None and len(axis) == size and size > 1 else None
                for axis, size in zip(known.axes, shape, strict=True)
            )
            for axis, size in zip(known.axes, shape, strict=True):
                if axis is not None and (size == 1 or len(axis) != size):
                    self.keep_intact(axis, node, "makes one of them")
            self.layouts[output] = replace(known, axes=axes)

    def give_plain(self, node: Node, *, is_uniform: bool = False) -> None:
        """What an operator gives has no ids."""
        for output in node.outputs:
            if output is not None:
                value = self.trace.values[output]
                uniform = is_uniform or value.is_uniform
                self.layouts[output] = Layout((None,) * len(value.shape), "", (), uniform)

    def keep_intact(self, vector: Vector | None, node: Node, what: str) -> None:
        """Forbid the removal of ids, for what an operator does with them."""
        if vector is not None:
            self.ids.keep_intact(vector, f"{place_of(node)} {what}")

    def meet(self, left: Layout, a: int, right: Layout, b: int, node: Node) -> Vector | None:
        """Join two axes of one size; where only one has ids, the other is of a fixed size."""
        one, other = left.axes[a], right.axes[b]
        if one is not None and other is not None:
            self.ids.join(one, other)
            return one
        known, fixed = (one, right) if one is not None else (other, left)
        is_free = fixed.is_uniform or (b if one is not None else a) in fixed.free
        if known is not None and not is_free:
            self.keep_intact(known, node, "meets a size that no layer gives")
        return known

    def settle_means(self, node: Node) -> None:
        """Forbid cuts that a mean would feel: where its result is more than a norm's."""
        # A mean over channels that were cut is of fewer; that is what a norm does, where it is
        # divided by or subtracted at once. Anywhere else its scale would change.
        if torch.Tag.pointwise in node.op.tags or node.kind in (POINTWISE | SAME):
            return
        if node.kind in {"squeeze", "unsqueeze", "expand", "view"}:
            return
        for ref in node.refs:
            for vector in self.layout(ref).mean_of:
                self.keep_intact(
                    vector, node, "works on a mean over them, whose scale would change"
                )

    def pointwise(self, node: Node) -> None:
        """Join what meets in an operator that works place by place."""
        inputs = [self.layout(ref) for ref in dict.fromkeys(node.refs)]
        shapes = [self.trace.values[ref].shape for ref in dict.fromkeys(node.refs)]
        for output in node.outputs:
            if output is not None:
                shape = self.trace.values[output].shape
                self.layouts[output] = self.broadcast(inputs, shapes, shape, node)

    def broadcast(
        self,
        inputs: Sequence[Layout],
        shapes: Sequence[tuple[int, ...]],
        shape: tuple[int, ...],
        node: Node,
    ) -> Layout:
        """The layout of what inputs give that are broadcast to one shape; what meets is joined."""
        axes: list[Vector | None] = []
        free: set[int] = set()
        for axis, size in enumerate(shape):
            present = []
            for layout, own in zip(inputs, shapes, strict=True):
                place = axis - (len(shape) - len(own))
                if place >= 0 and own[place] == size and size > 1:
                    is_free = layout.is_uniform or place in layout.free
                    present.append((layout.axes[place], is_free))
            vectors = [vector for vector, _ in present if vector is not None]
            for vector in vectors[1:]:
                self.ids.join(vectors[0], vector)
            if vectors and any(v is None and not uniform for v, uniform in present):
                self.keep_intact(vectors[0], node, "meets a size that no layer gives")
            axes.append(vectors[0] if vectors else None)
            if present and all(is_free for _, is_free in present):
                free.add(axis)
        means = [vector for layout in inputs for vector in layout.mean_of]
        roots = {int(r) for axis in axes if axis is not None for r in self.ids.roots(axis)}
        open_means = tuple(
            v for v in means if not roots.intersection(int(r) for r in self.ids.roots(v))
        )
        sources = {layout.parameter for layout in inputs}
        return Layout(
            tuple(axes),
            sources.pop() if len(sources) == 1 else "",
            open_means,
            all(layout.is_uniform for layout in inputs),
            frozenset(free),
        )

    def decide(self, node: Node, options: tuple[str, ...], ids: Any) -> str:
        """The option that is chosen of several; ``ids`` are those that it is about."""
        shape = self.trace.values[node.refs[0]].shape
        kinds = "x".join(map(str, shape[1:]))
        signature = f"{re.sub(r'[0-9]+', '#', node.module)}:{node.kind}:{kinds}:{','.join(options)}"
        decision = self.decisions.setdefault(signature, Decision(signature, options))
        decision.ids.append(np.unique(ids))
        return self.choices.get(signature, options[0])

    def note_heads(self, vector: Vector | None) -> None:
        """Note that decisions on these ids cut heads of attention."""
        if vector is None:
            return
        roots = set(self.ids.roots(vector).tolist())
        for decision in self.decisions.values():
            if any(roots & set(self.ids.roots(ids).tolist()) for ids in decision.ids):
                decision.cuts_heads = True


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of a call by name, with the operator's defaults."""
    names = [argument.name for argument in node.op._schema.arguments]
    defaults = {a.name: a.default_value for a in node.op._schema.arguments}
    return defaults | dict(zip(names, node.args, strict=False)) | node.kwargs


def axis_of(dim: int, value: int, trace: Trace) -> int:
    """An axis of a value, counted from the front."""
    return dim % max(1, len(trace.values[value].shape))


def place_of(node: Node) -> str:
    """The operator and its module, for sentences."""
    where = repr(node.module) if node.module else "the model's own forward"
    return f"{node.kind.strip('_')} in {where}"
