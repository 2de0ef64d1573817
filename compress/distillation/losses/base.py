"""What every loss in a recipe has: a kind, a weight, and the function that it stands for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from torch import Tensor

from compress.config.fields import LARGEST_FACTOR, Name, Number, Pattern
from compress.config.references import CodeReferences
from compress.config.settings import Settings
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction
from compress.outputs import OUTPUT_KINDS, OutputKind

__all__ = ["LossBlock", "Paths", "WeightSchedule", "loss_on_outputs", "without_on"]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


#: One path or glob of modules, or several: ``blocks.*`` is one level, not what lies below it.
Paths = Annotated[
    tuple[Pattern, ...],
    BeforeValidator(_listed),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]


class WeightSchedule(Settings):
    """A weight that goes ``from`` one value in the first epoch ``to`` another in the last."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    start: Number = Field(alias="from", ge=0, le=LARGEST_FACTOR)
    """The weight in the first epoch."""
    end: Number = Field(alias="to", ge=0, le=LARGEST_FACTOR)
    """The weight in the last epoch."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How it goes from the one to the other: in a line, or along half a cosine."""

    @model_validator(mode="after")
    def _is_not_nothing(self) -> WeightSchedule:
        if self.start == self.end == 0:
            raise ValueError("a weight from 0 to 0 does nothing; leave the loss out")
        return self

    def at(self, epoch: int, epochs: int) -> float:
        """The weight in ``epoch``, counted from 0, of ``epochs``."""
        progress = epoch / max(1, epochs - 1)
        if self.schedule == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.end - self.start) * progress


def _sort_of_weight(value: Any) -> str:
    return "from-to" if isinstance(value, (dict, WeightSchedule)) else "number"


Weight = Annotated[
    Annotated[Number, Field(gt=0, le=LARGEST_FACTOR), Tag("number")]
    | Annotated[WeightSchedule, Tag("from-to")],
    Discriminator(_sort_of_weight),
]


class LossBlock(Settings, ABC):
    """One entry of ``losses``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Whether it compares the student with a teacher.
    needs_teacher: ClassVar[bool] = True
    #: Whether it takes a softmax of the outputs of both nets.
    takes_logits: ClassVar[bool] = False
    #: What the outputs are taken for, where this loss is chosen and the task does not say.
    implied_kind: ClassVar[OutputKind | None] = None
    #: The kinds of outputs that it is defined for.
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset(OUTPUT_KINDS)

    #: Whether without ``on`` it is about all outputs of a student that has several.
    takes_every_output: ClassVar[bool] = False

    weight: Weight = 1.0
    """What the loss is multiplied with in the sum of all: a number, or one that goes from a value
    in the first epoch to another in the last."""
    kind: str
    """Which loss it is."""
    on: Name | None = None
    """Which of several outputs of the student it is about, by name. Where not given, the only one;
    for the loss on labels and for losses of your own, all of them."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What identifies a loss that names no output is what it was.
        return without_on(handler(self))

    def known(self, info: ValidationInfo) -> LossBlock:
        """The loss as far as a validator can know it; see :meth:`resolved`."""
        return self

    def resolved(self, references: CodeReferences) -> LossBlock:
        """The loss itself; of a reference to the user's code, what it leads to.

        Raises:
            RecipeError: options that the user's loss does not take.
            CodeReferenceError: code that was not allowed, is not there, or failed.
        """
        return self

    @abstractmethod
    def loss_function(self, context: DistillationContext) -> LossFunction:
        """This loss, ready for one training.

        Args:
            context: the student, the teacher, and samples of the data.

        Raises:
            CompressError: student and teacher do not fit it.
        """

    def weight_at(self, epoch: int, epochs: int) -> float:
        """The weight in ``epoch``, counted from 0, of ``epochs``."""
        return self.weight if isinstance(self.weight, float) else self.weight.at(epoch, epochs)

    @property
    def description(self) -> str:
        """Weight, kind and output, for a sentence."""
        about = "" if self.on is None else f" on {self.on}"
        if isinstance(self.weight, float):
            return f"{self.weight:g} x {self.kind}{about}"
        return f"{self.weight.start:g} to {self.weight.end:g} x {self.kind}{about}"


def without_on(written: dict[str, Any]) -> dict[str, Any]:
    """A written loss without the key ``on`` where that says nothing."""
    return {key: value for key, value in written.items() if key != "on" or value is not None}


def loss_on_outputs(function: Callable[[Tensor, Tensor], Tensor]) -> LossFunction:
    """A loss on one output of both nets.

    Args:
        function: computes a scalar from the student's outputs and the teacher's, both ``(n, ...)``.
    """
    return LossFunction(lambda student, teacher, _: function(student.outputs, teacher.outputs))
