"""The loss on labels: the task's own, or that of its kind of outputs."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock
from compress.errors import DataError

__all__ = ["LOSSES", "LabelLoss"]


class LabelLoss(LossBlock):
    """The task's own loss on its labels."""

    needs_teacher: ClassVar[bool] = False
    kind: Literal["label"] = "label"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The mean over the samples of a batch that have a label.

        Raises:
            DataError: the task has no loss of its own, and the kind of its outputs is not known.
        """
        supervision = context.supervision
        supervision.check_loss()

        def compute(student: ModelOutputs, _: ModelOutputs, labels: Tensor | None) -> Tensor:
            if labels is None:
                raise DataError("a batch of the training data came without labels.")
            return supervision.loss(student.outputs, labels)

        return LossFunction(
            compute,
            reads_labels=True,
            sample_mask=supervision.labeled,
            reads_teacher_outputs=False,
        )


LOSSES: tuple[type[LossBlock], ...] = (LabelLoss,)
