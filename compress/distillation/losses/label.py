"""The loss on labels: the task's own, or that of its kind of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from torch import Tensor

from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock
from compress.errors import DataError
from compress.training.labels import Labels

__all__ = ["LOSSES", "LabelLoss"]


class LabelLoss(LossBlock):
    """The task's own loss on its labels; with ``on``, the one that fits that output.

    Without ``on``, of a model with several outputs and a task without a loss of its own, it is the
    sum over the outputs that have labels. It needs no teacher.
    """

    needs_teacher: ClassVar[bool] = False
    takes_every_output: ClassVar[bool] = True
    kind: Literal["label"] = "label"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The mean over the samples of a batch that have a label.

        Raises:
            DataError: the task has no loss of its own, and the kind of its outputs is not known.
        """
        if self.on is None:
            every = context.task_supervision
            every.check_loss(context.example.labels)
            return _on_labels(lambda given, labels: every.loss(given.every, labels), every.labeled)
        one = context.supervision
        one.check_loss()
        return _on_labels(lambda given, labels: one.loss(given.outputs, labels), one.labeled)


def _on_labels(
    loss: Callable[[ModelOutputs, Any], Tensor], sample_mask: Callable[[Any], Tensor]
) -> LossFunction:
    def compute(student: ModelOutputs, _: ModelOutputs, labels: Labels | None) -> Tensor:
        if labels is None:
            raise DataError("a batch of the training data came without labels.")
        return loss(student, labels)

    return LossFunction(
        compute, reads_labels=True, sample_mask=sample_mask, reads_teacher_outputs=False
    )


LOSSES: tuple[type[LossBlock], ...] = (LabelLoss,)
