"""Operators that move data: they are run on the ids themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from compress.pruning.ids import NOTHING, UNIFORM, Vector
from compress.pruning.trace import Node, Ref
from compress.pruning.walk import Layout, Walk, arguments, axis_of

__all__ = [
    "align",
    "channel_shuffle",
    "embedding",
    "fold",
    "glu",
    "index",
    "move",
    "roll",
    "select",
]
__all__ += ["slice_axis", "split", "window"]

_SHIFT = 2  # keeps ids apart from zeros
_LARGE = np.iinfo(np.int64).max
_MOST_PARTS = 8
RESHAPES = frozenset({"view", "unflatten"})


def move(walk: Walk, node: Node, values: Mapping[int, Tensor] | None = None) -> None:
    """Any move of data; ``values`` are indices that steer it."""
    refs = list(dict.fromkeys(r for r in node.refs if r not in (values or {})))
    layouts = {ref: walk.layout(ref) for ref in refs}
    found: dict[int, list[Vector | None]] = {
        output: [None] * len(walk.trace.values[output].shape)
        for output in node.outputs
        if output is not None
    }
    with_ids = {
        a for layout in layouts.values() for a, v in enumerate(layout.axes) if v is not None
    }
    for axis in sorted(with_ids):
        source = next(r for r in refs if dict(enumerate(layouts[r].axes)).get(axis) is not None)
        moved = _run_on_ids(node, {r: _filled(walk, r, axis) for r in refs}, values or {})
        for output, result in zip(node.outputs, moved, strict=True):
            if output is None:
                continue
            place = _separate(walk, result, axis, walk.trace.values[source].shape, node)
            if place is None:
                continue
            at, vector = place
            taken = found[output][at]
            if taken is not None and not walk.ids.classes(taken).any():
                taken = None  # it stays intact, and constrains nothing
            elif taken is not None and not walk.ids.classes(vector).any():
                continue
            if taken is not None:
                walk.keep_intact(vector, node, "puts two kinds of channels on one axis")
                walk.keep_intact(taken, node, "puts two kinds of channels on one axis")
            found[output][at] = vector
    for output, axes in found.items():
        moved_to = _together(axes, list(layouts.values()))
        walk.layouts[output] = replace(moved_to, free=_spread_out(walk, node, output))


def _together(axes: Sequence[Vector | None], layouts: Sequence[Layout]) -> Layout:
    """The layout of what is made of tensors of some layouts, with ids along ``axes``."""
    parameters = {layout.parameter for layout in layouts}
    parameter = parameters.pop() if len(parameters) == 1 else ""
    means = tuple(vector for layout in layouts for vector in layout.mean_of)
    return Layout(tuple(axes), parameter, means, all(layout.is_uniform for layout in layouts))


def cat(walk: Walk, node: Node) -> None:
    """Tensors one after the other: what :func:`move` would find, without tensors of ids."""
    output = node.outputs[0]
    assert output is not None
    values = [(ref, walk.trace.values[ref].shape) for ref in node.refs]
    values = [(ref, shape) for ref, shape in values if shape != (0,)]
    layouts = [walk.layout(ref) for ref, _ in values]
    dim = axis_of(arguments(node).get("dim", 0), output, walk.trace)
    axes: list[Vector | None] = []
    for axis in range(len(walk.trace.values[output].shape)):
        vectors = [layout.axes[axis] for layout in layouts]
        if all(vector is None for vector in vectors):
            axes.append(None)
        elif axis == dim:
            sizes = [shape[dim] for _, shape in values]
            parts = zip(vectors, sizes, strict=True)
            axes.append(np.concatenate([np.full(n, NOTHING) if v is None else v for v, n in parts]))
        else:
            known = layouts[0]
            for layout in layouts[1:]:
                met = walk.meet(known, axis, layout, axis, node)
                known = replace(known, axes=(*known.axes[:axis], met, *known.axes[axis + 1 :]))
            axes.append(known.axes[axis])
    walk.layouts[output] = _together(axes, layouts)


def _spread_out(walk: Walk, node: Node, output: int) -> frozenset[int]:
    """Axes along which an operator repeats one value."""
    if node.kind not in ("expand", "repeat"):
        return frozenset()
    source, shape = walk.trace.values[node.refs[0]].shape, walk.trace.values[output].shape
    wide = (1,) * (len(shape) - len(source)) + source
    return frozenset(a for a, size in enumerate(shape) if size > 1 and wide[a] == 1)


def _filled(walk: Walk, ref: int, axis: int) -> Tensor:
    """A tensor of the ids along one axis of a value, in the value's shape."""
    shape, layout = walk.trace.values[ref].shape, walk.layout(ref)
    vector = layout.axes[axis] if axis < len(layout.axes) else None
    if vector is None:
        return torch.full(shape, float(UNIFORM if layout.is_uniform else NOTHING)).double()
    # Double precision: some of these operators have no form for integers.
    ids = torch.from_numpy(vector).double()
    return ids.view([-1 if d == axis else 1 for d in range(len(shape))]).expand(shape).clone()


def _separate(
    walk: Walk, moved: Tensor, axis: int, shape: tuple[int, ...], node: Node
) -> tuple[int, Vector] | None:
    """The axis along which ids vary after a move, and the ids along it."""
    ids = moved.numpy().astype(np.int64)
    roots = walk.ids.roots(ids)
    given = roots[roots != UNIFORM]
    if not (given > NOTHING).any():
        return None
    if (given == given[0]).all():
        walk.keep_intact(ids[ids > NOTHING], node, "leaves one of them alone")
        return None
    low, high = np.where(roots == UNIFORM, _LARGE, roots), roots
    varying = [a for a, size in enumerate(ids.shape) if size > 1]
    for a in varying:
        others = tuple(d for d in range(ids.ndim) if d != a)
        if bool((low.min(axis=others) >= high.max(axis=others)).all()):
            return a, _first_of_each(ids, a)
    split = [a for a in varying if _varies(roots, a)]
    if node.kind in RESHAPES:
        sizes = sorted(split, key=lambda a: (-ids.shape[a], -a))
        options = tuple(str(a) for a in sizes)
        chosen = int(walk.decide(node, options, ids))
    elif same := [a for a in split if ids.shape[a] == shape[axis]] or [
        a for a in split if a == axis
    ]:
        # The axis that it was, counted from the end or the front.
        behind = axis - len(shape)
        chosen = min(same, key=lambda a: (a - ids.ndim != behind, a != axis))
    else:
        walk.keep_intact(ids[ids > NOTHING], node, "spreads them over several axes")
        return None
    _join_slices(walk, ids, roots, chosen)
    return chosen, _first_of_each(ids, chosen)


def _join_slices(walk: Walk, ids: Any, roots: Any, axis: int) -> None:
    rows = np.moveaxis(ids, axis, 0).reshape(ids.shape[axis], -1)
    kinds = np.moveaxis(roots, axis, 0).reshape(ids.shape[axis], -1)
    for row, kind in zip(rows, kinds, strict=True):
        _, first = np.unique(kind, return_index=True)
        walk.ids.join_all(i for i in row[first].tolist() if i != UNIFORM)


def slice_axis(walk: Walk, node: Node) -> None:
    """A part of an axis, or every n-th place of it."""
    given = arguments(node)
    value = node.refs[0]
    axis, size = axis_of(given["dim"], value, walk.trace), 0
    vector = walk.layout(value).axes[axis]
    if vector is not None:
        size = len(vector)
        start, stop, step = slice(given["start"], given["end"], given["step"]).indices(size)
        length = stop - start
        if step > 1:
            full = size - size % step
            align(walk, vector[:full].reshape(-1, step).T)
            walk.keep_intact(vector[full:], node, "takes every n-th of them")
        elif 0 < length < size and size % length == 0 and start % length == 0:
            parts = size // length
            if length > 1 and parts <= _MOST_PARTS // 2:
                align(walk, vector.reshape(parts, length))
    move(walk, node)


def split(walk: Walk, node: Node) -> None:
    """Parts of an axis; equal parts stay equal."""
    value = node.refs[0]
    axis = axis_of(arguments(node).get("dim", 0), value, walk.trace)
    vector = walk.layout(value).axes[axis]
    if vector is not None:
        sizes = [walk.trace.values[o].shape[axis] for o in node.outputs if o is not None]
        if len(set(sizes)) == 1 and sizes[0] > 1 and len(sizes) <= _MOST_PARTS:
            align(walk, vector.reshape(len(sizes), sizes[0]))
        elif 1 in sizes:
            walk.keep_intact(vector, node, "takes them one by one")
    move(walk, node)


def align(walk: Walk, parts: Any) -> None:
    """The same places of every part go together, so that all parts stay of one size."""
    for part in parts[1:]:
        walk.ids.join(parts[0], part)


def select(walk: Walk, node: Node) -> None:
    """One place of an axis by its number, or all of them one by one."""
    axis = axis_of(arguments(node).get("dim", 0), node.refs[0], walk.trace)
    walk.keep_intact(walk.layout(node.refs[0]).axes[axis], node, "takes one of them by its number")
    _move_without(walk, node, axis)


def _move_without(walk: Walk, node: Node, *axes: int) -> None:
    """Move what has no ids along some axes any more."""
    value = node.refs[0]
    layout = walk.layout(value)
    kept = tuple(None if a in axes else v for a, v in enumerate(layout.axes))
    walk.layouts[value] = replace(layout, axes=kept)
    seen = {ref: walk.trace.values[ref].tensor for ref in node.refs[1:]}
    indices = {ref: tensor for ref, tensor in seen.items() if tensor is not None}
    move(walk, node, indices)
    walk.layouts[value] = layout


def roll(walk: Walk, node: Node) -> None:
    """Places move by a fixed number, round the end."""
    given = arguments(node)
    dims = [axis_of(d, node.refs[0], walk.trace) for d in given["dims"]]
    layout = walk.layout(node.refs[0])
    for axis in dims or range(len(layout.axes)):
        walk.keep_intact(layout.axes[axis], node, "moves them by a fixed number of places")
    _move_without(walk, node, *(dims or range(len(layout.axes))))


def index(walk: Walk, node: Node) -> None:
    """Places by their numbers."""
    value, given = node.refs[0], arguments(node)
    if "indices" in given:
        axes = [a for a, index in enumerate(given["indices"]) if index is not None]
        masks = [i for i in given["indices"] if i is not None]
        if any(not walk.layout(i.value).is_plain for i in masks):
            return _keep_all(walk, node)
    else:
        axes = [axis_of(given["dim"], value, walk.trace)]
    for axis in axes:
        walk.keep_intact(walk.layout(value).axes[axis], node, "takes them by their numbers")
    _move_without(walk, node, *axes)
    return None


def _keep_all(walk: Walk, node: Node) -> None:
    for ref in node.refs:
        for vector in walk.layout(ref).axes:
            walk.keep_intact(vector, node, "takes them by numbers that are learned")
    walk.give_plain(node)


def channel_shuffle(walk: Walk, node: Node) -> None:
    """Groups and their members change places."""
    vector = walk.layout(node.refs[0]).axes[1]
    if vector is not None:
        align(walk, vector.reshape(arguments(node)["groups"], -1))
    move(walk, node)


def fold(walk: Walk, node: Node) -> None:
    """Patches are added up to maps: the inverse of ``im2col``."""
    value, given = node.refs[0], arguments(node)
    layout = walk.layout(value)
    size = math.prod(given["kernel_size"])
    channels = len(layout.axes) - 2
    vector, axes = layout.axes[channels], [*layout.axes[:channels], None, None, None]
    walk.keep_intact(layout.axes[-1], node, "puts them in places")
    if vector is not None:
        rows = vector.reshape(-1, size)
        align(walk, rows.T)
        axes[channels] = rows[:, 0]
    walk.give(node, Layout(tuple(axes)))


def window(walk: Walk, node: Node) -> None:
    """Windows along an axis."""
    axis = axis_of(arguments(node)["dimension"], node.refs[0], walk.trace)
    walk.keep_intact(walk.layout(node.refs[0]).axes[axis], node, "takes windows of them")
    _move_without(walk, node, axis)


def embedding(walk: Walk, node: Node) -> None:
    """Rows of a table."""
    weight, index = walk.layout(node.refs[0]), walk.trace.values[node.refs[1]]
    walk.keep_intact(weight.axes[0], node, "looks rows up by number")
    if weight.parameter and weight.axes[0] is not None:
        walk.ids.contract(weight.parameter, weight.axes[0])
    walk.give(node, Layout((*(None,) * len(index.shape), weight.axes[1])))


def glu(walk: Walk, node: Node) -> None:
    """The first half of an axis times a gate from the second."""
    layout = walk.layout(node.refs[0])
    axis = axis_of(arguments(node).get("dim", -1), node.refs[0], walk.trace)
    vector, axes = layout.axes[axis], list(layout.axes)
    if vector is not None:
        halves = vector.reshape(2, -1)
        align(walk, halves)
        axes[axis] = halves[0]
    walk.give(node, replace(layout, axes=tuple(axes), parameter=""))


def _run_on_ids(
    node: Node, ids: Mapping[int, Tensor], values: Mapping[int, Tensor]
) -> list[Tensor]:
    def put(leaf: Any) -> Any:
        if not isinstance(leaf, Ref):
            return leaf
        return ids[leaf.value] + _SHIFT if leaf.value in ids else values[leaf.value]

    args, kwargs = tree_map(put, (node.args, node.kwargs))
    if node.kind == "constant_pad_nd":
        args, kwargs = args[:2], {}
    result = node.op(*args, **kwargs)
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    # What an operator fills up with zeros is a constant.
    return [torch.where(r == 0, float(UNIFORM), r - _SHIFT) for r in results]


def _first_of_each(ids: Any, axis: int) -> Vector:
    rows = np.moveaxis(ids, axis, 0).reshape(ids.shape[axis], -1)
    first = (rows != UNIFORM).argmax(axis=1)
    picked: Vector = rows[np.arange(len(rows)), first]
    # A slice that a constant fills altogether has a fixed place.
    return np.where(picked == UNIFORM, NOTHING, picked)


def _varies(roots: Any, axis: int) -> bool:
    first = np.take(roots, [0], axis=axis)
    return bool(((roots != first) & (roots != UNIFORM) & (first != UNIFORM)).any())
