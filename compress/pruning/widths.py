"""How many channels of which layer to remove, and which: as near to what was requested as can be.

Classes of ids that look alike (one channel in every one of the same layers) form a pool, from which
some number is removed. A pool is never emptied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from compress.pruning.ids import NOTHING, Axis, ChannelIds

__all__ = ["Layer", "Pool", "Scores", "Width", "layer_of", "layers_of", "pools_of"]
__all__ += ["Shapes", "first_size", "select_classes", "widths_of"]

#: The least important classes of a pool have the smallest scores.
Scores = Callable[["Pool"], Sequence[float]]
#: Of parameters, by name.
Shapes = Mapping[str, Sequence[int]]

_MOST_OF_A_POOL = 0.9
_AS_IT_IS: Shapes = MappingProxyType({})


@dataclass(frozen=True)
class Pool:
    """Classes that may be removed and are alike.

    Args:
        classes: representatives, in the order of the first layer's channels.
        members: for every axis of a parameter that has ids of these classes, how many each has.
        outputs: those of the axes that are channels that a layer gives.
    """

    classes: tuple[int, ...]
    members: Mapping[Axis, int]
    outputs: tuple[Axis, ...]


@dataclass(frozen=True)
class Layer:
    """An axis of channels that a layer gives: its size, and how many of them have to stay."""

    axis: Axis
    size: int
    intact: int
    reason: str


@dataclass(frozen=True)
class Width:
    """What became of one layer; ``reason`` is why some of its channels could not be removed.

    ``is_output`` is of layers that make the model's outputs, or that were to be ignored.
    """

    layer: str
    before: int
    after: int
    reason: str = ""
    is_output: bool = False


def layer_of(axis: Axis) -> str:
    """The path of the layer that a parameter belongs to; of a model's own parameter, its name."""
    return axis.parameter.rpartition(".")[0] or axis.parameter


def layers_of(ids: ChannelIds) -> list[Layer]:
    """All axes of channels that layers give, in order of use."""
    summed = {place.parameter for place in ids.contracted}
    layers = []
    for axis, vector in ids.of_axis.items():
        if axis.parameter not in summed or axis in ids.contracted:
            continue
        classes = ids.classes(vector)
        intact = np.flatnonzero(classes == NOTHING)
        reason = ids.why_intact(int(vector[intact[0]])) if len(intact) else ""
        layers.append(Layer(axis, len(vector), len(intact), reason))
    return layers


def pools_of(ids: ChannelIds) -> list[Pool]:
    """All classes that may be removed, in pools."""
    places: dict[int, dict[Axis, int]] = defaultdict(lambda: defaultdict(int))
    outputs = {layer.axis for layer in layers_of(ids)}
    for axis, vector in ids.of_axis.items():
        for root in ids.classes(vector).tolist():
            if root != NOTHING:
                places[root][axis] += 1
    alike: dict[tuple[tuple[Axis, int], ...], list[int]] = defaultdict(list)
    for root, members in places.items():
        if outputs.intersection(members):
            alike[tuple(members.items())].append(root)
    return [
        Pool(tuple(classes), dict(key), tuple(axis for axis, _ in key if axis in outputs))
        for key, classes in alike.items()
    ]


def select_classes(
    ids: ChannelIds,
    *,
    ratio: float,
    layer_ratios: Mapping[str, float],
    round_to: int,
    scope: Literal["local", "global"],
    scores: Scores,
    least: Callable[[Pool], int] = lambda _: 1,
    first_shapes: Shapes = _AS_IT_IS,
) -> set[int]:
    """The classes to remove.

    A pool keeps the number of classes that is nearest to what was requested, of two equally near
    ones the larger: one that leaves every layer of it a multiple of ``round_to``, or all.

    Args:
        ids: of a model.
        ratio: share of each layer's channels to remove (of all channels, for ``scope: global``).
        layer_ratios: ratios of single layers, by path, over ``ratio``.
        round_to: a layer that is cut has a multiple of this.
        scope: rank within each pool, or over all of them.
        scores: of the classes of a pool.
        least: how many classes of a pool stay in any case.
        first_shapes: of parameters before the first of several cuts, which ratios are shares of;
            what is gone already counts. Of others the present ones.
    """
    pools = pools_of(ids)
    if scope == "global":
        return _ranked_over_all(pools, ids, ratio, round_to, scores, least, first_shapes)
    removed: set[int] = set()
    # What one pool of a layer was rounded by, the next one makes up for.
    owed: dict[Axis, float] = defaultdict(float)
    for pool, share in zip(pools, _shares(pools, ids), strict=True):
        named = [layer_of(axis) for axis in pool.outputs]
        own = next((layer_ratios[name] for name in named if name in layer_ratios), ratio)
        first, count = pool.outputs[0], pool.members[pool.outputs[0]]
        own = _of_present(own, len(ids.of_axis[first]), first_size(first, ids, first_shapes))
        target = len(pool.classes) * max(0.0, 1 - own / share)
        allowed = _allowed(pool, pools, ids, round_to, least(pool))
        kept = _nearest(target + owed[first] / count, allowed)
        owed[first] += (target - kept) * count
        removed |= _weakest(pool, len(pool.classes) - kept, scores)
    return removed


def first_size(axis: Axis, ids: ChannelIds, first_shapes: Shapes) -> int:
    """How many channels an axis had before the first of several cuts."""
    shape = first_shapes.get(axis.parameter)
    return len(ids.of_axis[axis]) if shape is None else shape[axis.axis]


def _of_present(ratio: float, present: int, first: int) -> float:
    """What is left to be removed of a width, so that ``ratio`` of its first one is gone."""
    return ratio if present == first else max(0.0, 1 - (1 - ratio) * first / present)


def widths_of(ids: ChannelIds, removed: set[int]) -> list[Width]:
    """Every layer's number of channels, before and after."""
    found = []
    for layer in layers_of(ids):
        roots = ids.roots(ids.of_axis[layer.axis])
        lost = sum(int(root) in removed for root in roots)
        fixed = layer.intact == layer.size and layer.reason.endswith(("outputs", "be ignored"))
        path, left = layer_of(layer.axis), layer.size - lost
        found.append(Width(path, layer.size, left, layer.reason, fixed))
    return found


def _shares(pools: Sequence[Pool], ids: ChannelIds) -> list[float]:
    """The share of the channels of each pool's first layer that can be removed at all."""
    able: dict[Axis, int] = defaultdict(int)
    for pool in pools:
        for axis in pool.outputs:
            able[axis] += pool.members[axis] * len(pool.classes)
    return [able[pool.outputs[0]] / len(ids.of_axis[pool.outputs[0]]) for pool in pools]


def _allowed(
    pool: Pool, pools: Sequence[Pool], ids: ChannelIds, round_to: int, least: int
) -> list[int]:
    """The numbers of classes that the pool may keep."""
    total = len(pool.classes)
    if round_to == 1:
        return list(range(min(least, total), total + 1))
    shared = {axis for other in pools if other is not pool for axis in other.members}
    bounds = []
    for axis, count in pool.members.items():
        size = len(ids.of_axis[axis])
        alone = axis not in shared
        if axis in pool.outputs:
            bounds.append((count, size - count * total if alone else 0))
        elif alone and axis in ids.contracted - ids.within_groups and count * total == size:
            bounds.append((count, 0))
    fits = [k for k in range(least, total) if all((c * k + w) % round_to == 0 for c, w in bounds)]
    return [*fits, total]


def _nearest(target: float, allowed: Sequence[int]) -> int:
    return min(allowed, key=lambda kept: (round(abs(kept - target), 9), -kept))


def _weakest(pool: Pool, count: int, scores: Scores) -> set[int]:
    if count == 0:
        return set()
    order = np.argsort(np.asarray(scores(pool)), kind="stable")
    return {pool.classes[place] for place in order[:count].tolist()}


def _ranked_over_all(
    pools: Sequence[Pool],
    ids: ChannelIds,
    ratio: float,
    round_to: int,
    scores: Scores,
    least: Callable[[Pool], int],
    first_shapes: Shapes,
) -> set[int]:
    sizes = {axis: len(ids.of_axis[axis]) for pool in pools for axis in pool.outputs}
    first = {axis: first_size(axis, ids, first_shapes) for axis in sizes}
    wanted = ratio * sum(first.values()) - sum(first[axis] - sizes[axis] for axis in sizes)
    weights = [sum(pool.members[axis] for axis in pool.outputs) for pool in pools]
    ranked = sorted(
        (float(score), number) for number, pool in enumerate(pools) for score in scores(pool)
    )
    floors = [
        max(least(pool), _floor(pool, ratio, first[pool.outputs[0]] - sizes[pool.outputs[0]]))
        for pool in pools
    ]
    kept, done = [len(pool.classes) for pool in pools], 0.0
    for _, number in ranked:
        if done + weights[number] / 2 > wanted:
            break
        if kept[number] > floors[number]:
            kept[number] -= 1
            done += weights[number]
    allowed = [
        _allowed(pool, pools, ids, round_to, floor)
        for pool, floor in zip(pools, floors, strict=True)
    ]
    kept = [_nearest(k, options) for k, options in zip(kept, allowed, strict=True)]
    _settle(kept, allowed, weights, [len(pool.classes) for pool in pools], wanted)
    removed: set[int] = set()
    for pool, count in zip(pools, kept, strict=True):
        removed |= _weakest(pool, len(pool.classes) - count, scores)
    return removed


def _floor(pool: Pool, ratio: float, gone: int) -> int:
    """How many classes a pool keeps of those that it had, before ``gone`` of its channels were."""
    total = len(pool.classes) + gone // pool.members[pool.outputs[0]]
    return min(len(pool.classes), total - int(max(ratio, _MOST_OF_A_POOL) * total))


def _settle(
    kept: list[int],
    allowed: Sequence[Sequence[int]],
    weights: Sequence[int],
    totals: Sequence[int],
    wanted: float,
) -> None:
    """Move single pools to a neighboring number for as long as the total comes nearer."""

    def missing(number: int, count: int) -> float:
        done = sum(w * (t - k) for w, t, k in zip(weights, totals, kept, strict=True))
        return abs(wanted - done - weights[number] * (kept[number] - count))

    while True:
        moves = [
            (missing(number, option), number, option)
            for number, options in enumerate(allowed)
            for option in _beside(options, kept[number])
        ]
        if not moves:
            return
        error, number, count = min(moves)
        if error >= missing(number, kept[number]) - 1e-9:
            return
        kept[number] = count


def _beside(options: Sequence[int], kept: int) -> list[int]:
    place = list(options).index(kept)
    return [options[p] for p in (place - 1, place + 1) if 0 <= p < len(options)]
