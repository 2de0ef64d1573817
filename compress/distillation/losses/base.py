"""What every loss in a recipe has: a kind, a weight that may move over the epochs, and a term."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from torch import Tensor

from compress.config.fields import LARGEST_FACTOR, Number, Pattern
from compress.distillation.context import Scene, Term
from compress.outputs import OUTPUT_KINDS, OutputKind

__all__ = ["LossBlock", "Paths", "WeightSchedule", "of_outputs"]


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


class WeightSchedule(BaseModel):
    """A weight that goes ``from`` one value in the first epoch ``to`` another in the last."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    start: Number = Field(alias="from", ge=0, le=LARGEST_FACTOR)
    end: Number = Field(alias="to", ge=0, le=LARGEST_FACTOR)
    schedule: Literal["linear", "cosine"] = "linear"

    @model_validator(mode="after")
    def _is_not_nothing(self) -> WeightSchedule:
        if self.start == self.end == 0:
            raise ValueError("a weight from 0 to 0 does nothing; leave the loss out")
        return self

    def at(self, epoch: int, epochs: int) -> float:
        """The weight in ``epoch``, counted from 0, of ``epochs``."""
        share = epoch / max(1, epochs - 1)
        if self.schedule == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share


def _sort_of_weight(value: Any) -> str:
    return "from-to" if isinstance(value, (dict, WeightSchedule)) else "number"


Weight = Annotated[
    Annotated[Number, Field(gt=0, le=LARGEST_FACTOR), Tag("number")]
    | Annotated[WeightSchedule, Tag("from-to")],
    Discriminator(_sort_of_weight),
]


class LossBlock(BaseModel, ABC):
    """One entry of ``losses``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Whether it needs the teacher's answer.
    asks_teacher: ClassVar[bool] = True
    #: Whether it takes a softmax of what both nets answer.
    takes_logits: ClassVar[bool] = False
    #: What outputs are, where this loss is chosen and nothing else says it.
    implies: ClassVar[OutputKind | None] = None
    #: Kinds of outputs that it means something for.
    takes: ClassVar[frozenset[OutputKind]] = frozenset(OUTPUT_KINDS)

    weight: Weight = 1.0
    kind: str

    @abstractmethod
    def term(self, scene: Scene) -> Term:
        """This loss, ready for one training.

        Raises:
            CompressError: student and teacher do not fit it.
        """

    def weight_at(self, epoch: int, epochs: int) -> float:
        """Its weight in ``epoch``, counted from 0, of ``epochs``."""
        return self.weight if isinstance(self.weight, float) else self.weight.at(epoch, epochs)

    @property
    def words(self) -> str:
        """Weight and kind, for a sentence."""
        if isinstance(self.weight, float):
            return f"{self.weight:g} x {self.kind}"
        return f"{self.weight.start:g} to {self.weight.end:g} x {self.kind}"


def of_outputs(function: Callable[[Tensor, Tensor], Tensor]) -> Term:
    """A term that looks at outputs only."""
    return Term(lambda student, teacher, _: function(student.outputs, teacher.outputs))
