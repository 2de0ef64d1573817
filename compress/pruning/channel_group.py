"""Channel groups: what a pruning criterion looks at.

A group is channels that are alike, such as all outputs of one convolution with what depends on
them. Each is removed together with its slices of every parameter; a criterion gives one score each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from compress.pruning.ids import Axis, ChannelIds
from compress.pruning.widths import Pool

__all__ = ["ChannelGroup", "ParameterSlices", "axes_of", "group_of", "rows_of"]


@dataclass(frozen=True)
class ParameterSlices:
    """The slices of one parameter along one axis, a row for each channel.

    Args:
        parameter: its name in the module.
        axis: along which it is cut.
        is_output: whether the channels are what its layer gives; else what it takes.
        weights: ``(channels, values)``.
        gradients: in the same shape, where gradients were asked for and there are any.
    """

    parameter: str
    axis: int
    is_output: bool
    weights: Tensor
    gradients: Tensor | None = None


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are alike. The layers that give them come first.

    Biases and the weights of norms are among the slices; running statistics are not.

    Args:
        channels: how many there are.
        slices: of every parameter along every axis that has these channels.
    """

    channels: int
    slices: tuple[ParameterSlices, ...]

    @cached_property
    def weights(self) -> Tensor:
        """``(channels, values)``: in row i every weight that is removed with channel i."""
        return self._beside([one.weights for one in self.slices])

    @cached_property
    def gradients(self) -> Tensor:
        """Of ``weights``, of the loss on a part of the training data; 0 where there is none."""
        return self._beside(
            [
                torch.zeros_like(one.weights) if one.gradients is None else one.gradients
                for one in self.slices
            ]
        )

    def _beside(self, slices: list[Tensor]) -> Tensor:
        return torch.cat(slices, dim=1) if slices else torch.empty(self.channels, 0)


def group_of(module: nn.Module, ids: ChannelIds, pool: Pool) -> ChannelGroup:
    """The channels of a pool, with their slices of the module's parameters.

    Args:
        module: whose weights are looked at, and gradients, where it has any.
        ids: of its channels.
        pool: of those that are alike.
    """
    slices = tuple(_slices(dict(module.named_parameters()), ids, pool))
    return ChannelGroup(len(pool.classes), slices)


def rows_of(ids: ChannelIds, pool: Pool, axis: Axis) -> tuple[list[int], list[int]]:
    """The places along an axis that belong to channels of a pool, and the channel of each."""
    channel_of = {root: channel for channel, root in enumerate(pool.classes)}
    roots = ids.roots(ids.of_axis[axis])
    rows = np.flatnonzero(np.isin(roots, pool.classes)).tolist()
    return rows, [channel_of[int(roots[row])] for row in rows]


def axes_of(pool: Pool) -> list[Axis]:
    """The axes that a pool's channels lie along; those of the layers that give them first."""
    return [*pool.outputs, *(axis for axis in pool.members if axis not in pool.outputs)]


def _slices(
    parameters: Mapping[str, nn.Parameter], ids: ChannelIds, pool: Pool
) -> Iterator[ParameterSlices]:
    for axis in axes_of(pool):
        parameter = parameters.get(axis.parameter)
        if parameter is None:
            continue
        rows, channels = rows_of(ids, pool, axis)
        order = [row for _, row in sorted(zip(channels, rows, strict=True))]

        def slices(tensor: Tensor, order: list[int] = order, axis: int = axis.axis) -> Tensor:
            return tensor.detach().movedim(axis, 0)[order].reshape(len(pool.classes), -1)

        grad = parameter.grad
        yield ParameterSlices(
            axis.parameter,
            axis.axis,
            axis in pool.outputs,
            slices(parameter),
            None if grad is None else slices(grad),
        )
