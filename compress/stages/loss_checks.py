"""Checks of a training: its losses and its length before it starts, and after its first epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from compress.distillation.context import DistillationContext
from compress.distillation.losses import LossSettings
from compress.distillation.objective import WeightedSum
from compress.errors import DataError, StageError
from compress.events import StageWarning
from compress.modules.outputs import by_name
from compress.quoting import in_yaml
from compress.stage import Context
from compress.stages.training_settings import Training
from compress.training.supervision import has_a_label

__all__ = ["about_few_steps", "check_losses", "check_losses_change"]

# On digits, after 27 steps a small residual net is right for two thirds of what it will be, after
# 90 for nearly all (benchmarks/defaults.py).
_FEW_STEPS = 50


def check_losses(
    losses: Sequence[LossSettings], context: DistillationContext, training: Training
) -> None:
    """See that a training has the labels and the teacher that it needs.

    Args:
        losses: of the training.
        context: student, teacher and data.
        training: its other settings.

    Raises:
        DataError: a loss, or early stopping, needs labels and the data has none; or the model has
            other outputs than the task has classes.
        StageError: a loss needs a teacher and there is none.
    """
    task, supervision = context.stage.task, context.task_supervision
    supervision.check_classes("the model that learns")
    _check_names_of_labels(context)
    for loss in losses:
        if loss.kind == "label" and not has_a_label(task.train, supervision, loss.on):
            of = "" if loss.on is None else f" for {loss.on!r}"
            raise DataError(
                f"the loss `label` needs labels{of} and the training data of task {task.name!r} "
                "has none; leave it out and learn from the teacher alone."
            )
        if loss.needs_teacher and context.teacher is None:
            raise StageError(f"the loss {loss.kind!r} needs a teacher and there is none.")
    if training.patience is not None and not has_a_label(task.validation, supervision):
        raise DataError(
            f"patience needs labels in the validation data, and that of task {task.name!r} has "
            "none; leave it out."
        )


def _check_names_of_labels(context: DistillationContext) -> None:
    """Check that labels by name are for outputs; a loss of the task's own takes any names.

    Raises:
        DataError: some are for no output of several.
    """
    task, labels = context.stage.task, context.example.labels
    is_several = len(context.task_supervision.by_output) > 1
    if not isinstance(labels, dict) or task.loss is not None or not is_several:
        return
    outputs = by_name(context.all_outputs)
    if labels.keys() - outputs.keys():
        outputs = {**outputs, **by_name(context.training_outputs)}
    if unknown := [name for name in labels if name not in outputs]:
        raise DataError(
            f"task {task.name!r}: its labels {', '.join(unknown)} are for no output of the model, "
            f"which gives {', '.join(outputs)}; give labels the names of outputs, as in fields: "
            f"{{label: {{{in_yaml(next(iter(outputs)))}: KEY}}}}."
        )


def check_losses_change(objective: WeightedSum, context: Context) -> None:
    """After the first epoch, look for losses that had one value in every batch, over all processes.

    Args:
        objective: after its first epoch.
        context: takes a warning where only some losses were constant, or where the student's
            outputs equal the teacher's.

    Raises:
        StageError: all losses were constant, though the outputs of student and teacher differ.
    """
    constant, names = objective.constant_losses(), list(objective.means())
    facts = [float(name in constant) for name in names] + [float(not objective.outputs_differ)]
    *stuck, equal = context.processes.gather(torch.tensor(facts)).min(0).values.bool().tolist()
    idle = [name for name, is_stuck in zip(names, stuck, strict=True) if is_stuck]
    if not idle:
        return
    value = constant.get(idle[0], 0.0) + 0.0  # no -0
    what = (
        f"the loss {' and '.join(map(repr, idle))} was {value:g} in every step of the first epoch"
    )
    if equal:
        text = f"{what}: the student's outputs equal the teacher's, and there was nothing to learn"
        context.report(StageWarning(text))
    elif len(idle) == len(names):
        raise StageError(
            f"{what}, so that nothing is learned: it does not depend on the student's outputs; "
            "choose a loss that fits the outputs, and a batch_size that gives it samples to "
            "compare."
        )
    else:
        context.report(StageWarning(f"{what}, and taught nothing"))


def about_few_steps(steps: int) -> list[str]:
    """A sentence where a training is shorter than any that was seen to teach a net much."""
    if steps >= _FEW_STEPS:
        return []
    text = (
        f"{steps} step{'s' * (steps > 1)} of training are too few to learn from: set more epochs "
        f"or a smaller batch_size, for {_FEW_STEPS} steps at least"
    )
    return [text]
