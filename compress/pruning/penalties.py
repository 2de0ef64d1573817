"""Penalties that drive what a cut will remove towards zero while a net is trained.

A penalty is a sum of norms, which is not smooth at zero: what contributes little to the loss is
pulled to it, and what contributes much stays. So the cut that follows removes what is nearly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor, nn

from compress.errors import StageError
from compress.pruning.channel_group import axes_of, rows_of
from compress.pruning.ids import Axis, ChannelIds
from compress.pruning.importance import is_norm_weight
from compress.pruning.search import Found
from compress.pruning.widths import Pool, pools_of

__all__ = ["Penalty", "PenaltyKind", "channel_penalty", "weight_penalty"]

PenaltyKind = Literal["group-lasso", "bn-scale", "l1"]

#: Below the root: of a group that is zero, the gradient is 0 and not infinite.
_LEAST_SQUARE = 1e-12


@dataclass(frozen=True)
class Penalty:
    """What is added to an objective.

    Args:
        name: of the losses in the history.
        weight: what it is multiplied with.
        value: of the module that is trained, a scalar with a gradient.
        norm: of the parameters that it is about, in a module that may have been cut since: of
            their squares for ``group-lasso``, else of their sizes.
    """

    name: PenaltyKind
    weight: float
    value: Callable[[nn.Module], Tensor]
    norm: Callable[[nn.Module], float]

    def share_of_cut(self, before: nn.Module, after: nn.Module) -> float:
        """The share of the norm that a cut has taken away, in 0 to 1."""
        whole, left = self.norm(before), self.norm(after)
        if whole == 0:
            return 0.0
        if self.name == "group-lasso":
            return float(max(0.0, 1 - (left / whole) ** 2) ** 0.5)
        return max(0.0, 1 - left / whole)


@dataclass(frozen=True)
class _Slices:
    """The places along one axis of a parameter that belong to channels, channel by channel."""

    parameter: str
    axis: int
    rows: Tensor

    def each(self, module: nn.Module, channels: int, size: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of ``size`` over the weights of each channel, ``(channels,)``."""
        weight = size(module.get_parameter(self.parameter))
        sums = weight.movedim(self.axis, 0).reshape(weight.shape[self.axis], -1).sum(1)
        # Each channel has as many places as any other, so that no sum depends on their order.
        return sums[self.rows.to(sums.device)].reshape(channels, -1).sum(1)


@dataclass(frozen=True)
class _Group:
    channels: int
    slices: tuple[_Slices, ...]


def channel_penalty(kind: PenaltyKind, weight: float, module: nn.Module, found: Found) -> Penalty:
    """The penalty on all channels that may be removed.

    ``group-lasso`` is the sum over channels of the norm of all weights that go with a channel: the
    groups that importance ``group-l2`` looks at (Wen et al. 2016, "Learning structured sparsity in
    deep neural networks"; Fang et al. 2023, for groups over several layers). ``bn-scale`` is the
    sum of the absolute scales of batch norms (Liu et al. 2017, "Learning efficient convolutional
    networks through network slimming").

    Args:
        kind: one of these two.
        weight: what it is multiplied with.
        module: whose channels they are.
        found: a cut of it, for which ids are known.

    Raises:
        StageError: no batch norm scales any of the channels, for ``bn-scale``.
    """
    ids = found.plan.ids
    pools = [pool for pool in pools_of(ids) if len(pool.classes) > 1]
    groups = [_group(kind, module, ids, pool) for pool in pools]
    groups = [group for group in groups if group.slices]
    if not groups:
        raise StageError(
            "prune: sparsify: penalty bn-scale has no batch norm to shrink: none scales a channel "
            "that may be removed; take penalty: group-lasso."
        )
    names = list(dict.fromkeys(one.parameter for group in groups for one in group.slices))
    if kind == "bn-scale":
        return Penalty(kind, weight, lambda net: _scales(net, groups), _sizes_of(names))

    def norm(net: nn.Module) -> float:
        squares = [net.get_parameter(name).detach().double().square().sum() for name in names]
        return float(reduce(add, squares).sqrt())

    return Penalty(kind, weight, lambda net: _group_lasso(net, groups), norm)


def weight_penalty(weight: float, names: Sequence[str]) -> Penalty:
    """The sum of the sizes of single weights (``l1``).

    Args:
        weight: what it is multiplied with.
        names: of the parameters.
    """

    def value(module: nn.Module) -> Tensor:
        return reduce(add, (module.get_parameter(name).abs().sum() for name in names))

    return Penalty("l1", weight, value, _sizes_of(names))


def _group_lasso(module: nn.Module, groups: Sequence[_Group]) -> Tensor:
    norms = []
    for group in groups:
        squares = [one.each(module, group.channels, torch.square) for one in group.slices]
        norms.append((reduce(add, squares) + _LEAST_SQUARE).sqrt().sum())
    return reduce(add, norms)


def _scales(module: nn.Module, groups: Sequence[_Group]) -> Tensor:
    sizes = [
        one.each(module, group.channels, torch.abs).sum()
        for group in groups
        for one in group.slices
    ]
    return reduce(add, sizes)


def _sizes_of(names: Sequence[str]) -> Callable[[nn.Module], float]:
    def norm(module: nn.Module) -> float:
        sizes = (module.get_parameter(name).detach().double().abs().sum() for name in names)
        return float(reduce(add, sizes))

    return norm


def _group(kind: PenaltyKind, module: nn.Module, ids: ChannelIds, pool: Pool) -> _Group:
    parameters = dict(module.named_parameters())
    return _Group(len(pool.classes), tuple(_slices(kind, module, parameters, ids, pool)))


def _slices(
    kind: PenaltyKind,
    module: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    ids: ChannelIds,
    pool: Pool,
) -> Iterator[_Slices]:
    for axis in axes_of(pool):
        parameter = parameters.get(axis.parameter)
        if parameter is None or not _is_penalized(kind, module, axis, parameter):
            continue
        rows, channels = rows_of(ids, pool, axis)
        order = [row for _, row in sorted(zip(channels, rows, strict=True))]
        yield _Slices(axis.parameter, axis.axis, torch.tensor(order))


def _is_penalized(
    kind: PenaltyKind, module: nn.Module, axis: Axis, parameter: nn.Parameter
) -> bool:
    if kind == "bn-scale":
        return is_norm_weight(module, axis, batch_norm=True)
    return parameter.dim() > 1 or is_norm_weight(module, axis)
