"""Features of layers with their channels on axis 1, and the ``axis`` key that says where they are.

A layer may not run in every forward pass: stochastic depth leaves some out. It has no part in the
loss of that pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from torch import Tensor, nn

from compress.config.fields import Whole
from compress.config.settings import Settings
from compress.distillation.loss_function import ModelOutputs
from compress.distillation.net_layers import NetLayers
from compress.errors import SelectorError
from compress.modules.features import channels_first

__all__ = [
    "AxisOfEach",
    "AxisSetting",
    "LayerChannels",
    "axes_of",
    "layer_channels",
    "mean_over_layers",
]

_MOST_AXES = 64


def _of_no_samples(axis: int) -> int:
    if axis == 0:
        raise ValueError("axis 0 is that of the samples; channels are on axis 1, 2, ... or -1")
    return axis


Axis = Annotated[
    Whole,
    Field(ge=-_MOST_AXES, lt=_MOST_AXES),
    AfterValidator(_of_no_samples),
    WithJsonSchema({"type": "integer", "not": {"const": 0}, "minimum": -64, "maximum": 63}),
]


class AxisOfEach(Settings):
    """The axis of channels for the layers of each net; for a net left out it is derived."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: Axis | None = None
    """The axis of channels of the student's layers; samples are on axis 0."""
    teacher: Axis | None = None
    """The axis of channels of the teacher's layers; samples are on axis 0."""

    @model_validator(mode="after")
    def _says_something(self) -> AxisOfEach:
        if self.student is None and self.teacher is None:
            raise ValueError("axis says nothing; give student or teacher an axis, or leave it out")
        return self


def _sort_of_axis(value: Any) -> str:
    return "each" if isinstance(value, (dict, AxisOfEach)) else "both"


#: The axis of channels, where samples are on axis 0: one for both nets, or one for each.
AxisSetting = Annotated[
    Annotated[Axis, Tag("both")] | Annotated[AxisOfEach, Tag("each")],
    Discriminator(_sort_of_axis),
]


def axes_of(axis: int | AxisOfEach | None) -> tuple[int | None, int | None]:
    """The axes of channels of student and teacher; ``None`` where they are not given."""
    return (axis.student, axis.teacher) if isinstance(axis, AxisOfEach) else (axis, axis)


@dataclass(frozen=True)
class LayerChannels:
    """Where a layer of one net has its channels.

    Args:
        name: of the layer.
        axis: of its channels; samples are on axis 0.
        channels: how many.
    """

    name: str
    axis: int
    channels: int

    def of(self, outputs: ModelOutputs) -> Tensor | None:
        """The layer's features as ``(n, channels, ...)``; ``None`` where it did not run."""
        features = outputs.features.get(self.name)
        return None if features is None else channels_first(features, self.axis)


def layer_channels(kind: str, layers: NetLayers, name: str, axis: int | None) -> LayerChannels:
    """Where a layer has its channels.

    Args:
        kind: of the loss, for messages.
        layers: of the net.
        name: of the layer.
        axis: of its channels; ``None`` to derive it.

    Raises:
        SelectorError: an axis that the layer's output does not have, or one that cannot be derived.
    """
    shape = layers.features[name].shape
    rank = len(shape) + 1
    found = layers.channel_axis(name) if axis is None else axis
    text = f"{name!r} of {layers.owner}, ({', '.join(['n', *map(str, shape)])})"
    if found is None:
        side = layers.owner.removeprefix("the ")
        ways = [f"{{{side}: {place}}}" for place in range(1, rank)]
        raise SelectorError(
            f"the loss {kind!r}: which axis of {text}, has its channels cannot be told; add axis: "
            f"{', '.join(ways[:-1])} or {ways[-1]}."
        )
    place = found + rank if found < 0 else found
    if not 0 < place < rank:
        raise SelectorError(
            f"the loss {kind!r}: axis {found} is none of {text}, that could have channels; give "
            f"one from 1 to {rank - 1}."
        )
    return LayerChannels(name, place, shape[place - 1])


def mean_over_layers(
    parts: Sequence[Tensor], student: ModelOutputs, idle: Sequence[nn.Module] = ()
) -> Tensor:
    """The mean of the losses of layers; 0 where none of them ran.

    Args:
        parts: a scalar for each pair of layers that ran.
        student: outputs of the student, to which a mean of nothing stays connected.
        idle: auxiliary modules of pairs that did not run.
    """
    # Gradients of 0 rather than none: several processes average what each has.
    zeros = [(weight * 0).sum() for module in idle for weight in module.parameters()]
    value = torch.stack(list(parts)).mean() if parts else _zero_of(student)
    return sum(zeros, value)


def _zero_of(student: ModelOutputs) -> Tensor:
    floating = [one for one in student.named.values() if one.is_floating_point()]
    return torch.stack([(one * 0).sum() for one in floating]).sum()
