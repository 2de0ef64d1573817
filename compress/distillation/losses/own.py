"""Losses of your own, ``module:name`` in a recipe."""

from __future__ import annotations

from pydantic import field_validator
from torch import Tensor

from compress.config.fields import Name
from compress.config.references import is_reference
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock
from compress.distillation.losses.built_in import BUILT_IN
from compress.errors import StageError
from compress.quoting import shown
from compress.training.supervision import not_a_mean

__all__ = ["CustomLoss"]


class CustomLoss(LossBlock):
    """A function of your own, ``module:name``, called with (student, teacher, labels).

    Labels come as they are for a loss on such outputs: of classes int64, with -100 where there is
    none; else numbers in the outputs' shape, with NaN where there is none.
    """

    kind: Name

    @field_validator("kind")
    @classmethod
    def _is_reference(cls, kind: str) -> str:
        if not is_reference(kind):
            raise ValueError(
                f"unknown loss {shown(kind)}; known are {', '.join(BUILT_IN)}, or module:name"
            )
        return kind

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The function on the outputs and the labels, which must return a scalar."""
        own = context.stage.references.resolve(self.kind, f"losses: {self.kind}")
        supervision = context.supervision

        def compute(student: ModelOutputs, teacher: ModelOutputs, labels: Tensor | None) -> Tensor:
            if labels is not None:
                labels = supervision.fitted(student.outputs, labels)
            value: Tensor = own(student.outputs, teacher.outputs, labels)
            if (problem := not_a_mean(value)) is not None:
                raise StageError(f"the loss {self.kind!r} must return {problem}.")
            return value

        return LossFunction(compute, reads_labels=True)
