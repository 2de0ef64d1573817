"""The objective of one training: the weighted sum of its losses, and the mean of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from operator import add

from torch import Tensor, nn

from compress.config.block_names import unique_name
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
from compress.distillation.teachers import mapped_outputs
from compress.errors import RecipeError, StageError
from compress.modules.inputs import batch_size_of
from compress.modules.outputs import Outputs, by_name, each_output
from compress.pruning.penalties import Penalty
from compress.training.data import Batch

__all__ = ["WeightedLoss", "WeightedSum", "weighted_losses"]


@dataclass(frozen=True)
class WeightedLoss:
    """A loss of an objective.

    Args:
        name: its kind, made unique among the losses of the objective.
        weight: by epoch, counted from 0.
        function: computes it, from the outputs and labels that it is about.
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
    check_mapping(context)
    made: list[WeightedLoss] = []
    taking_logits: dict[str | None, tuple[LossSettings, DistillationContext]] = {}
    for loss in losses:
        takes_all = loss.takes_every_output
        view = context.about(loss.kind, loss.on, takes_every_output=takes_all)
        _check_kind(loss, view)
        of = loss.kind if loss.on is None else f"{loss.kind}({loss.on})"
        name = unique_name(of, [other.name for other in made])
        weight = partial(loss.weight_at, epochs=epochs)
        made.append(WeightedLoss(name, weight, _function_of(loss, view)))
        if loss.takes_logits:
            taking_logits.setdefault(loss.on, (loss, view))
    for loss, view in taking_logits.values():
        check_logits(loss.kind, view)
    return made


def check_mapping(context: DistillationContext) -> None:
    """Check that a teacher whose outputs are mapped has them mapped to the student's.

    Raises:
        RecipeError: one is mapped to an output that the student does not have.
    """
    mapped = mapped_outputs(context.teacher)
    if not mapped.keys() - by_name(context.all_outputs).keys():
        return
    known = {**by_name(context.all_outputs), **by_name(context.training_outputs)}
    if unknown := [name for name in mapped if name not in known]:
        raise RecipeError(
            f"teacher.outputs: the student has no output {unknown[0]!r}, which is to learn from "
            f"the teacher's {mapped[unknown[0]]!r}; the student's outputs are {', '.join(known)}."
        )


def _function_of(loss: LossSettings, view: DistillationContext) -> LossFunction:
    made: object = loss.loss_function(view)
    if not isinstance(made, LossFunction):
        raise StageError(
            f"the loss {loss.kind!r}: its loss_function must return a LossFunction; "
            f"got {type(made).__name__}."
        )
    assert view.selection is not None
    if not (loss.takes_every_output or made.student_layers):
        view.selection.check_named()
    return view.selection.applied(made)


def _check_kind(loss: LossSettings, view: DistillationContext) -> None:
    assert view.selection is not None
    if view.selection.output is None:
        return
    known = view.supervision
    if known.kind is None or known.kind in loss.output_kinds:
        return
    of = "those" if known.is_only else f"the output {known.name!r}"
    are, they = ("are", "they are") if known.is_only else ("is", "it is")
    raise StageError(
        f"the loss {loss.kind!r} is for outputs that are {' or '.join(sorted(loss.output_kinds))}, "
        f"and {of} of task {view.stage.task.name!r}, {known.outputs}, {are} {known.kind}: use "
        f"{teacher_loss(known.kind).kind}, or say what {they} in the task (outputs: ...)."
    )


class WeightedSum:
    """An objective for the training loop.

    Args:
        student: the module that is trained.
        losses: to be summed.
        teacher: its outputs by batch; ``None`` where no loss needs a teacher.
        penalty: on the weights of ``student``, added to the sum; ``None`` for none.
    """

    def __init__(
        self,
        student: nn.Module,
        losses: Sequence[WeightedLoss],
        teacher: TeacherForward | None,
        penalty: Penalty | None = None,
    ) -> None:
        self._student, self._losses, self._teacher = student, losses, teacher
        self._penalty = penalty
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
            teacher = ModelOutputs(each_output(student().every, Tensor.detach))
        else:
            teacher = self._teacher(batch)
        parts = []
        for one in self._losses:
            compared = compared_outputs(
                one.function, module, self._student, batch, teacher, student
            )
            value = _mixed_value(one.function, *compared, batch)
            parts.append(one.weight(self._epoch) * value)
            self._record(one.name, value.detach(), _sample_count(one.function, batch))
        if self._penalty is not None:
            value = self._penalty.value(self._student)
            parts.append(self._penalty.weight * value)
            name = unique_name(self._penalty.name, [one.name for one in self._losses])
            self._record(name, value.detach(), batch_size_of(batch.inputs))
        self._steps += 1
        if self._epoch == 0 and not self._outputs_differ:
            # Without a teacher there are no outputs that the student could match already.
            self._outputs_differ = self._teacher is None or _differ(student().every, teacher.every)
        return reduce(add, parts)

    def _record(self, name: str, value: Tensor, count: int) -> None:
        if self._epoch == 0:
            low, high = self._range.get(name, (float(value), float(value)))
            self._range[name] = (min(low, float(value)), max(high, float(value)))
        self._totals[name] = self._totals.get(name, 0.0) + value * count
        self._samples[name] = self._samples.get(name, 0) + count


def _differ(ours: Outputs, theirs: Outputs) -> bool:
    """Whether an output of the student's differs from the teacher's of the same name."""
    student, teacher = by_name(ours), by_name(theirs)
    if len(student) == 1 and len(teacher) == 1:
        pairs = list(zip(student.values(), teacher.values(), strict=True))
    else:
        pairs = [(student[name], teacher[name]) for name in student if name in teacher]
    return not pairs or any(a.shape != b.shape or not a.detach().equal(b) for a, b in pairs)


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
