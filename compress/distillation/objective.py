"""The objective of one training: the weighted sum of its losses, and the mean of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from operator import add

from torch import Tensor, nn

from compress.distillation.context import DistillationContext
from compress.distillation.logits import check_logits
from compress.distillation.loss_function import (
    LossFunction,
    ModelOutputs,
    compared_outputs,
    student_forward,
)
from compress.distillation.losses import LossSettings, teacher_loss
from compress.distillation.teacher_cache import TeacherForward
from compress.errors import StageError
from compress.modules.inputs import batch_size_of
from compress.stage import unique_name
from compress.training.data import Batch

__all__ = ["WeightedLoss", "WeightedSum", "weighted_losses"]


@dataclass(frozen=True)
class WeightedLoss:
    """A loss of an objective.

    Args:
        name: its kind, made unique among the losses of the objective.
        weight: by epoch, counted from 0.
        function: computes it.
    """

    name: str
    weight: Callable[[int], float]
    function: LossFunction


def weighted_losses(
    losses: Sequence[LossSettings], context: DistillationContext, epochs: int
) -> list[WeightedLoss]:
    """The losses of a recipe, ready for one training.

    Args:
        losses: as the recipe has them.
        context: student, teacher and samples of the data.
        epochs: of the training, over which weights may change.

    Raises:
        CompressError: student and teacher do not fit them.
    """
    made: list[WeightedLoss] = []
    for loss in losses:
        _check_kind(loss, context)
        name = unique_name(loss.kind, [other.name for other in made])
        weight = partial(loss.weight_at, epochs=epochs)
        made.append(WeightedLoss(name, weight, _function_of(loss, context)))
    check_logits(losses, context)
    return made


def _function_of(loss: LossSettings, context: DistillationContext) -> LossFunction:
    made: object = loss.loss_function(context)
    if not isinstance(made, LossFunction):
        raise StageError(
            f"the loss {loss.kind!r}: its loss_function must return a LossFunction; "
            f"got {type(made).__name__}."
        )
    return made


def _check_kind(loss: LossSettings, context: DistillationContext) -> None:
    kind = context.supervision.kind
    if kind is None or kind in loss.output_kinds:
        return
    raise StageError(
        f"the loss {loss.kind!r} is for outputs that are {' or '.join(sorted(loss.output_kinds))}, "
        f"and those of task {context.stage.task.name!r}, {context.supervision.outputs}, are "
        f"{kind}: use {teacher_loss(kind).kind}, or say what they are in the task (outputs: ...)."
    )


class WeightedSum:
    """An objective for the training loop.

    Args:
        student: the module that is trained.
        losses: to be summed.
        teacher: its outputs by batch; ``None`` where no loss needs a teacher.
    """

    def __init__(
        self, student: nn.Module, losses: Sequence[WeightedLoss], teacher: TeacherForward | None
    ) -> None:
        self._student, self._losses, self._teacher = student, losses, teacher
        self._layers = _distinct(one.function.student_layers for one in losses)
        self._epoch = 0
        self._totals: dict[str, Tensor] = {}
        self._samples: dict[str, int] = {}
        self._range: dict[str, tuple[float, float]] = {}
        self._steps, self._outputs_differ = 0, False

    def start_epoch(self, epoch: int) -> None:
        """Use the weights of ``epoch``, counted from 0, and reset the means."""
        self._epoch = epoch
        self._totals, self._samples = {}, {}
        self._range, self._steps, self._outputs_differ = {}, 0, False

    def constant_losses(self) -> dict[str, float]:
        """The losses that had one value in every batch of the first epoch, with that value.

        Of an epoch of one batch, those that were 0.
        """
        return {
            name: low
            for name, (low, high) in self._range.items()
            if low == high and (self._steps > 1 or low == 0)
        }

    @property
    def outputs_differ(self) -> bool:
        """Whether the outputs of student and teacher differed in the first epoch."""
        return self._outputs_differ

    def means(self) -> dict[str, float]:
        """The mean of each loss over its samples of this epoch so far, before its weight."""
        return {
            name: float(total) / max(1, self._samples[name]) for name, total in self._totals.items()
        }

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum for one batch, a scalar; ``module`` is the student, perhaps wrapped."""
        student = cache(lambda: student_forward(module, self._student, batch, self._layers))
        if self._teacher is None:
            teacher = ModelOutputs(student().outputs.detach())
        else:
            teacher = self._teacher(batch)
        parts = []
        for one in self._losses:
            compared = compared_outputs(
                one.function, module, self._student, batch, teacher, student
            )
            value = _mixed_value(one.function, *compared, batch)
            parts.append(one.weight(self._epoch) * value)
            self._record(one, value.detach(), batch)
        self._steps += 1
        if self._epoch == 0 and not self._outputs_differ:
            ours = student().outputs.detach()
            # Without a teacher there are no outputs that the student could match already.
            differ = ours.shape != teacher.outputs.shape or not ours.equal(teacher.outputs)
            self._outputs_differ = self._teacher is None or differ
        return reduce(add, parts)

    def _record(self, loss: WeightedLoss, value: Tensor, batch: Batch) -> None:
        name, count = loss.name, _sample_count(loss.function, batch)
        if self._epoch == 0:
            low, high = self._range.get(name, (float(value), float(value)))
            self._range[name] = (min(low, float(value)), max(high, float(value)))
        self._totals[name] = self._totals.get(name, 0.0) + value * count
        self._samples[name] = self._samples.get(name, 0) + count


def _mixed_value(
    loss: LossFunction, student: ModelOutputs, teacher: ModelOutputs, batch: Batch
) -> Tensor:
    """The loss; where samples are mixed and it reads labels, the mean of that on both labels."""
    value = loss.compute(student, teacher, batch.labels)
    if batch.mixed_targets is None or not loss.reads_labels:
        return value
    mixed = loss.compute(student, teacher, batch.mixed_targets)
    return batch.lam * value + (1 - batch.lam) * mixed


def _sample_count(loss: LossFunction, batch: Batch) -> int:
    if loss.sample_mask is None or batch.labels is None:
        return batch_size_of(batch.inputs)
    return int(loss.sample_mask(batch.labels).sum())


def _distinct(layers: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in layers for name in some))
