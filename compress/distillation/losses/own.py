"""Losses of your own, ``module:name`` in a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from torch import Tensor

from compress.config.fields import Name
from compress.config.own_parts import OwnPart, Role
from compress.config.own_settings import OwnSettings
from compress.config.references import CodeReferences, is_reference
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock, without_on
from compress.distillation.losses.families import BUILT_IN
from compress.errors import StageError
from compress.quoting import shown
from compress.training.labels import Labels
from compress.training.output_supervision import not_a_mean

__all__ = ["CustomLoss"]


class CustomLoss(OwnSettings, LossBlock):
    """A loss of your own, ``module:name``: a function or a class; further keys reach it.

    A function is called with (student outputs, teacher outputs, labels) and the keys; a class is
    made of the keys, and its object called with these three. A subclass of :class:`LossBlock` is a
    loss as built-in ones are: its fields are the keys, and it may use features.

    Labels come as they are for a loss on such outputs: of classes int64, with -100 where there is
    none; else numbers in the outputs' shape, with NaN where there is none. Of several outputs, and
    without ``on``, all come by name, and labels as the data have them.
    """

    takes_every_output: ClassVar[bool] = True

    model_config = ConfigDict(frozen=True, extra="allow")

    role: ClassVar[Role] = Role(
        "loss", ("student", "teacher", "labels"), ("kind", "weight", "on"), base=LossBlock
    )

    kind: Name = Field(json_schema_extra={"pattern": ":"})
    """The function or class, as ``module:name``."""

    @field_validator("kind")
    @classmethod
    def _is_reference(cls, kind: str) -> str:
        if not is_reference(kind):
            raise ValueError(
                f"unknown loss {shown(kind)}; known are {', '.join(BUILT_IN)}, or module:name"
            )
        return kind

    @model_serializer(mode="wrap")
    def _with_what_is_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        nulls = [option for option, value in self.options.items() if value is None]
        return {**dict.fromkeys(nulls), **without_on(handler(self))}

    @property
    def description(self) -> str:
        """Weight, reference, options and output, for a sentence."""
        weight, _, about = super().description.partition(self.kind)
        return f"{weight}{self.described}{about}"

    def part(self, references: CodeReferences, where: str) -> OwnPart:
        """The function or class that the reference names.

        Raises:
            CodeReferenceError: code that was not allowed, or is not there.
        """
        part = super().part(references, where)
        if part.own_class is None or not issubclass(part.own_class, LossBlock):
            return part
        named = {"kind": self.kind} if part.own_class.model_fields["kind"].is_required() else {}
        about = {} if self.on is None else {"on": self.on}
        return replace(part, fixed={"weight": self.weight, **named, **about})

    def known(self, info: ValidationInfo) -> LossBlock:
        """The loss that the reference names, where its code may be followed already."""
        references = self.references(info)
        return self if references is None else self.resolved(references)

    def resolved(self, references: CodeReferences) -> LossBlock:
        """The loss that the reference names, with its options.

        Raises:
            RecipeError: options that it does not take.
            CodeReferenceError: code that was not allowed, is not there, or failed.
        """
        where = f"the loss {self.kind!r}"
        part = self.part(references, where)
        if not part.follows_base:
            return self
        made: Any = part.bound(self.options, where)
        loss: LossBlock = made.model_copy(update={"kind": self.kind})
        return loss

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The function, or the object of the class, on outputs and labels; returns a scalar."""
        where = f"the loss {self.kind!r}"
        own = self.part(context.stage.references, where).bound(self.options, where)
        every = context.task_supervision
        one = None if self.on is None and len(every.by_output) > 1 else context.supervision

        def compute(student: ModelOutputs, teacher: ModelOutputs, labels: Labels | None) -> Tensor:
            given: Any = (every.shipped(student.every), teacher.named)
            if one is not None:
                given = (student.outputs, teacher.outputs)
            if one is not None and isinstance(labels, Tensor):
                labels = one.fitted(student.outputs, labels)
            value: Tensor = own(*given, labels)
            if (problem := not_a_mean(value)) is not None:
                raise StageError(f"the loss {self.kind!r} must return {problem}.")
            return value

        return LossFunction(compute, reads_labels=True)
