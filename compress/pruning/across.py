"""Operators that compute across channels: norms, sums and means, softmax, pooling."""

from __future__ import annotations

from dataclasses import replace

from compress.pruning.moves import align
from compress.pruning.trace import Node
from compress.pruning.walk import Across, Layout, Walk, arguments, axis_of

__all__ = ["batch_norm", "group_norm", "layer_norm", "ordered", "reduce", "softmax", "spatial"]

_MEANS = {"mean", "var", "std", "var_mean", "std_mean"}


def batch_norm(walk: Walk, node: Node) -> None:
    """Scales and moves every channel by itself."""
    x = walk.layout(node.refs[0])
    known = x.axes[1] if len(x.axes) > 1 else None
    for ref in node.refs[1:]:
        other = walk.layout(ref)
        if known is None and other.axes and other.axes[0] is not None:
            walk.keep_intact(other.axes[0], node, "meets a size that no layer gives")
        elif known is not None and other.axes:
            walk.meet(x, 1, other, 0, node)
    _give_first(walk, node, x)


def _give_first(walk: Walk, node: Node, layout: Layout) -> None:
    walk.give_plain(node)
    first = node.outputs[0]
    assert first is not None
    walk.layouts[first] = replace(layout, parameter="")


def layer_norm(walk: Walk, node: Node) -> None:
    """Normalizes over the last axes."""
    given, x = arguments(node), walk.layout(node.refs[0])
    count = len(given["normalized_shape"])
    normed = tuple(range(len(x.axes) - count, len(x.axes)))
    axes = list(x.axes)
    for ref in node.refs[1:]:
        other = walk.layout(ref)
        for axis in normed:
            axes[axis] = walk.meet(x, axis, other, axis - normed[0], node)
    if any(x.axes[a] is not None for a in normed):
        walk.across[walk.number] = Across("layer norm", node.refs[0], normed)
    _give_first(walk, node, replace(x, axes=tuple(axes)))


def group_norm(walk: Walk, node: Node) -> None:
    """Normalizes over groups of channels: groups are removed, or members of every group."""
    given, x = arguments(node), walk.layout(node.refs[0])
    vector, groups = x.axes[1], given["group"]
    if vector is not None:
        rows = vector.reshape(groups, -1)
        options = {"groups": rows.shape[1], "members": groups}
        if rows.shape[1] == 1:
            choice = "groups"
        elif groups == 1:
            choice = "members"
        else:
            # Whole groups leave the statistics of the others as they are.
            order = sorted(options, key=lambda name: (options[name], name))
            choice = walk.decide(node, tuple(order), vector)
        if choice == "groups":
            for row in rows:
                walk.ids.join_all(row.tolist())
        else:
            align(walk, rows)
            walk.across[walk.number] = Across("group norm", node.refs[0], (1,))
    for ref in node.refs[1:]:
        walk.meet(x, 1, walk.layout(ref), 0, node)
    _give_first(walk, node, x)


def reduce(walk: Walk, node: Node) -> None:
    """Sums, means, norms and extremes over axes."""
    if len(node.refs) > 1:
        return walk.pointwise(node)
    given, value = arguments(node), node.refs[0]
    x = walk.layout(value)
    dims = given.get("dim")
    listed = list(range(len(x.axes))) if dims in (None, []) else dims
    listed = [listed] if isinstance(listed, int) else listed
    reduced = sorted({axis_of(d, value, walk.trace) for d in listed})
    summed = [v for a in reduced if (v := x.axes[a]) is not None]
    if summed:
        walk.across[walk.number] = Across(
            node.kind, value, tuple(a for a in reduced if x.axes[a] is not None)
        )
    means = (*x.mean_of, *(summed if node.kind in _MEANS else ()))
    axes = [
        None if a in reduced else v
        for a, v in enumerate(x.axes)
        if given.get("keepdim") or a not in reduced
    ]
    walk.give(node, Layout(tuple(axes), x.parameter, means))
    return None


def softmax(walk: Walk, node: Node) -> None:
    """Normalizes over one axis."""
    x = walk.layout(node.refs[0])
    axis = axis_of(arguments(node)["dim"], node.refs[0], walk.trace)
    if x.axes[axis] is not None:
        walk.across[walk.number] = Across("softmax", node.refs[0], (axis,))
    walk.give(node, replace(x, parameter=""))


def ordered(walk: Walk, node: Node) -> None:
    """Depends on the order along an axis: sorting, cumulative sums, positions of extremes."""
    x, given = walk.layout(node.refs[0]), arguments(node)
    dim = given.get("dim")
    axes = range(len(x.axes)) if dim is None else [axis_of(dim, node.refs[0], walk.trace)]
    for axis in axes:
        walk.keep_intact(x.axes[axis], node, "depends on their order")
    kept = [None if a in axes else v for a, v in enumerate(x.axes)]
    output = next(o for o in node.outputs if o is not None)
    if len(walk.trace.values[output].shape) < len(kept):
        kept = [v for a, v in enumerate(kept) if a not in axes]
    walk.give(node, Layout(tuple(kept)))


def spatial(walk: Walk, node: Node, dimensions: int) -> None:
    """Pools or resamples the last axes, those of space."""
    x = walk.layout(node.refs[0])
    first = len(x.axes) - dimensions
    for vector in x.axes[first:]:
        walk.keep_intact(vector, node, "pools over them")
    for ref in node.refs[1:]:
        for vector in walk.layout(ref).axes:
            walk.keep_intact(vector, node, "takes them for places")
    walk.give(node, Layout((*x.axes[:first], *(None,) * dimensions)))
