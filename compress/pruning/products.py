"""Operators that sum products: they join the ids that they sum over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.pruning.ids import Vector
from compress.pruning.moves import align
from compress.pruning.trace import Node, Ref
from compress.pruning.walk import Across, Layout, Walk, arguments

__all__ = ["attention", "convolution", "products"]


def _contract(walk: Walk, node: Node, left: int, a: int, right: int, b: int) -> None:
    one, other = walk.layout(left), walk.layout(right)
    for layout, axis in ((one, a), (other, b)):
        vector = layout.axes[axis]
        if layout.parameter and vector is not None:
            walk.ids.contract(layout.parameter, vector)
    first, second = one.axes[a], other.axes[b]
    if first is None or second is None:
        # A constant, such as a first hidden state of zeros, has as many channels as are wanted.
        for vector, met in ((first, other), (second, one)):
            if not met.is_uniform:
                walk.keep_intact(vector, node, "meets a size that no layer gives")
    else:
        walk.ids.join(first, second)
        if not one.parameter and not other.parameter:
            walk.across[walk.number] = Across("products", left, (a,))


def products(walk: Walk, node: Node) -> None:
    """Matrix products, with what is added to them."""
    kind, refs = node.kind, node.refs
    added = refs.pop(0) if kind in ("addmm", "addbmm", "baddbmm", "addmv") else None
    left, right = refs[:2]
    x, y = walk.layout(left), walk.layout(right)
    shapes = [walk.trace.values[r].shape for r in (left, right)]
    if kind == "linear":
        _contract(walk, node, left, len(shapes[0]) - 1, right, 1)
        axes = [*x.axes[:-1], y.axes[0]] if len(shapes[1]) == 2 else [*x.axes[:-1]]
        added = refs[2] if len(refs) > 2 else None
    elif kind in ("bmm", "baddbmm"):
        _contract(walk, node, left, 2, right, 1)
        batch = walk.meet(x, 0, y, 0, node)
        walk.note_heads(batch)
        axes = [batch, x.axes[1], y.axes[2]]
    else:  # mm, addmm, mv, dot
        _contract(walk, node, left, len(shapes[0]) - 1, right, 0)
        axes = [*x.axes[:-1], *y.axes[1:]]
    product = Layout(tuple(axes))
    if added is None:
        walk.give(node, product)
        return
    output = next(o for o in node.outputs if o is not None)
    shape = walk.trace.values[output].shape
    inputs = [product, walk.layout(added)]
    joined = walk.broadcast(inputs, [shape, walk.trace.values[added].shape], shape, node)
    walk.give(node, replace(joined, parameter=""))


def attention(walk: Walk, node: Node) -> None:
    """Fused attention: queries with keys, and the weights with values."""
    q, k, v = (walk.layout(ref) for ref in node.refs[:3])
    last = len(q.axes) - 1
    _contract(walk, node, node.refs[0], last, node.refs[1], last)
    heads: list[Vector | None] = []
    for axis in range(last - 1):
        first = walk.meet(q, axis, k, axis, node)
        walk.meet(q, axis, v, axis, node)
        walk.note_heads(first)
        heads.append(first)
    _mask(walk, node, heads)
    for layout in (k, v):
        walk.keep_intact(layout.axes[last - 1], node, "attends over them")
    given = Layout((*heads, q.axes[last - 1], v.axes[last]))
    walk.give_plain(node)
    first_output = node.outputs[0]
    assert first_output is not None
    walk.layouts[first_output] = given


def _mask(walk: Walk, node: Node, heads: Sequence[Vector | None]) -> None:
    """What is added to the scores of each head, such as a bias that is learned."""
    given = arguments(node).get("attn_mask")
    if not isinstance(given, Ref):
        return
    shape, mask = walk.trace.values[given.value].shape, walk.layout(given.value)
    full = Layout((*heads, None, None))
    for axis, size in enumerate(shape[:-2], start=len(full.axes) - len(shape)):
        if size > 1:
            walk.meet(full, axis, mask, axis - len(full.axes) + len(shape), node)


def convolution(walk: Walk, node: Node) -> None:
    """Convolutions, transposed ones and those with groups too."""
    given = arguments(node)
    x, w = walk.layout(given["input"].value), walk.layout(given["weight"].value)
    value, groups = given["input"].value, given["groups"]
    c, o = len(x.axes) - len(w.axes) + 1, (1 if given["transposed"] else 0)
    for kernel in w.axes[2:]:
        walk.keep_intact(kernel, node, "has a kernel of a fixed size")
        if w.parameter and kernel is not None:
            walk.ids.contract(w.parameter, kernel)
    if groups == 1:
        _contract(walk, node, value, c, given["weight"].value, 1 - o)
        out = w.axes[o]
    else:
        shape = walk.trace.values[given["weight"].value].shape
        out = _grouped(walk, node, x.axes[c], w, shape, groups, o)
    axes: list[Vector | None] = [None] * len(walk.trace.values[value].shape)
    w_shape = walk.trace.values[given["weight"].value].shape
    for axis, vector in enumerate(x.axes):
        if axis > c and _is_pointwise(given, w_shape, axis - c - 1):
            axes[axis] = vector
        elif axis > c:
            walk.keep_intact(vector, node, "sums over windows of them")
    axes[c] = out
    if c > 0:
        axes[0] = x.axes[0]
    bias = given.get("bias")
    if isinstance(bias, Ref) and out is not None:
        walk.meet(Layout(tuple(axes)), c, walk.layout(bias.value), 0, node)
    walk.give(node, Layout(tuple(axes)))


def _is_pointwise(given: Mapping[str, Any], shape: tuple[int, ...], axis: int) -> bool:
    """Whether a convolution looks at one place at a time along an axis of space."""
    stride, padding = given["stride"], given["padding"]
    at = [values[axis if len(values) > 1 else 0] for values in (stride, padding)]
    return shape[2 + axis] == 1 and at == [1, 0]


def _grouped(
    walk: Walk,
    node: Node,
    x: Vector | None,
    w: Layout,
    shape: tuple[int, ...],
    groups: int,
    o: int,
) -> Vector | None:
    """The ids of what a grouped convolution gives.

    Either complete groups are removed, or the same members of every group.
    """
    if x is None:
        for axis in w.axes[:2]:
            walk.keep_intact(axis, node, "meets a size that no layer gives")
        return None
    first, members = w.axes[0], x.reshape(groups, -1)
    if first is None:
        walk.keep_intact(x, node, "has groups")
        return None
    blocks = first.reshape(groups, -1)
    if w.parameter and (taken := w.axes[1 - o]) is not None:
        walk.ids.contract(w.parameter, taken, within_groups=True)
    steps = {"groups": members.shape[1], "members": groups}
    options = tuple(sorted(steps, key=lambda name: (steps[name], name)))
    is_depthwise = members.shape[1] == 1
    if is_depthwise or walk.decide(node, options, x) == "groups":
        for row, block in zip(members, blocks, strict=True):
            walk.ids.join_all([*row.tolist(), *block.tolist()])
        walk.keep_intact(w.axes[1], node, "removes complete groups")
        return first if o == 0 else np.repeat(blocks[:, 0], shape[1])
    align(walk, members)
    align(walk, blocks)
    if o == 1:
        walk.ids.join(x, first)
        return None if w.axes[1] is None else np.tile(w.axes[1], groups)
    if w.axes[1] is not None:
        walk.ids.join(members[0], w.axes[1])
    return first
