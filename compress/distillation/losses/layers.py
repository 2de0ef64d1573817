"""Layers that a loss looks at: where their channels are, and what they gave in a pass, if they ran.

A layer may not run in every pass: stochastic depth leaves some out. What did not run teaches
nothing in that pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from torch import Tensor, nn

from compress.config.fields import Whole
from compress.distillation.context import Answer, Layers
from compress.errors import SelectorError
from compress.modules.features import channels_first

__all__ = ["AxisOfEach", "AxisSetting", "Seen", "axes_of", "mean_of", "seen"]


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


class AxisOfEach(BaseModel):
    """The axis of the channels of what each net's layers give; of a net left out it is found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: Axis | None = None
    teacher: Axis | None = None

    @model_validator(mode="after")
    def _says_something(self) -> AxisOfEach:
        if self.student is None and self.teacher is None:
            raise ValueError("axis says nothing; give student or teacher an axis, or leave it out")
        return self


def _sort_of_axis(value: Any) -> str:
    return "each" if isinstance(value, (dict, AxisOfEach)) else "both"


#: The axis of channels, counted from the samples on axis 0: one for both nets, or by net.
AxisSetting = Annotated[
    Annotated[Axis, Tag("both")] | Annotated[AxisOfEach, Tag("each")],
    Discriminator(_sort_of_axis),
]


def axes_of(axis: int | AxisOfEach | None) -> tuple[int | None, int | None]:
    """The student's axis of channels and the teacher's, as far as they are given."""
    return (axis.student, axis.teacher) if isinstance(axis, AxisOfEach) else (axis, axis)


@dataclass(frozen=True)
class Seen:
    """A layer of one net: the axis of its channels, and how many they are."""

    name: str
    axis: int
    channels: int

    def of(self, answer: Answer) -> Tensor | None:
        """What the layer gave, ``(n, channels, ...)``; ``None`` where it did not run."""
        given = answer.features.get(self.name)
        return None if given is None else channels_first(given, self.axis)


def seen(loss: str, layers: Layers, name: str, axis: int | None) -> Seen:
    """A layer whose channels a loss looks at.

    Args:
        loss: its kind.
        layers: of a net.
        name: of the layer.
        axis: of channels; ``None`` where it is to be found.

    Raises:
        SelectorError: an axis that the layer's tensor has not, or one that cannot be found.
    """
    shape = layers.features[name].shape
    rank = len(shape) + 1
    found = layers.axis(name) if axis is None else axis
    text = f"{name!r} of {layers.whose}, ({', '.join(['n', *map(str, shape)])})"
    if found is None:
        side = layers.whose.removeprefix("the ")
        ways = [f"{{{side}: {place}}}" for place in range(1, rank)]
        raise SelectorError(
            f"the loss {loss!r}: which axis of {text}, has its channels cannot be told; add axis: "
            f"{', '.join(ways[:-1])} or {ways[-1]}."
        )
    place = found + rank if found < 0 else found
    if not 0 < place < rank:
        raise SelectorError(
            f"the loss {loss!r}: axis {found} is none of {text}, that could have channels; give "
            f"one from 1 to {rank - 1}."
        )
    return Seen(name, place, shape[place - 1])


def mean_of(parts: Sequence[Tensor], student: Answer, idle: Sequence[nn.Module] = ()) -> Tensor:
    """The mean of what layers taught, without those that did not run; 0 where none did.

    Args:
        parts: scalars.
        student: its answer.
        idle: what is trained beside the student and had nothing to do in this pass.
    """
    # Gradients of 0 rather than none: several processes average what each has.
    rest = [(weight * 0).sum() for module in idle for weight in module.parameters()]
    value = torch.stack(list(parts)).mean() if parts else (student.outputs * 0).sum()
    return sum(rest, value)
