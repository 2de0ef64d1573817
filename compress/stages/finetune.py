"""Training after a cut, and between the cuts of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from compress.candidate import Candidate
from compress.config.fields import LARGEST_RATE, Number
from compress.distillation.default_losses import teacher_losses
from compress.distillation.losses import LabelLoss, LossSettings
from compress.distillation.teacher_settings import TeacherBlock
from compress.distillation.teachers import build_teacher
from compress.events import Pace
from compress.pruning.movement import Movement
from compress.stage import Context, Teacher
from compress.stages.dry_run import dry_run_losses
from compress.stages.fit import fit, supervision_of
from compress.stages.prune_schedule import Part
from compress.stages.training_settings import Training
from compress.training.supervision import has_a_label

__all__ = ["FineTune", "dry_run", "only_pace", "trained"]


class FineTune(Training):
    """Training after the cut."""

    # Lower than for training from scratch, so that what was learned is kept.
    learning_rate: Number = Field(default=1e-3, gt=0, le=LARGEST_RATE)
    """The highest learning rate; lower than in training from scratch, so that what was learned is
    kept."""
    losses: tuple[LossSettings, ...] = ()
    """What is minimized: the weighted sum of these losses. Where not given, ``label``, or, of data
    without labels, the loss on the teacher's outputs that fits them."""
    teacher: TeacherBlock | None = None
    """What losses such as ``response`` learn from. Where not given, the model that entered the
    recipe, or that its last train stage made."""


def trained(
    pruned: Candidate,
    context: Context,
    finetune: FineTune,
    part: Part | None = None,
    movement: Movement | None = None,
) -> Candidate:
    """The candidate, its module trained in place.

    Args:
        pruned: to be trained.
        context: of the stage.
        finetune: the settings, but for the epochs of a part.
        part: which of several trainings of the stage it is; ``None`` for the only one.
        movement: chooses weights of the module to become zero while it is trained.
    """
    losses, teacher = _losses_and_teacher(finetune, pruned, context)
    if part is None:
        return fit(pruned, context, finetune, losses, teacher, movement=movement)
    if finetune.views is None:  # views come again in every training
        context = replace(context, seed=part.seed(context.seed))
    settings = finetune.model_copy(update={"epochs": part.epochs})
    return fit(pruned, context, settings, losses, teacher, part, movement)


def dry_run(candidate: Candidate, context: Context, finetune: FineTune, epochs: int) -> None:
    """Try a training of so many epochs on two samples, and report about how long it will take.

    Raises:
        CompressError: what the training would fail with.
    """
    settings = finetune.model_copy(update={"epochs": epochs})
    losses, teacher = _losses_and_teacher(settings, candidate, context)
    dry_run_losses(candidate, context, settings, losses, teacher)


def only_pace(report: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
    """Hands on how long a training will take, and nothing else of its dry run."""
    return lambda event: report(event) if event["event"] == Pace.event else None


def _losses_and_teacher(
    finetune: FineTune, pruned: Candidate, context: Context
) -> tuple[tuple[LossSettings, ...], Teacher]:
    losses = finetune.losses
    if not losses:
        supervision = supervision_of(pruned, context)
        labeled = has_a_label(context.task.train, supervision)
        losses = (LabelLoss(),) if labeled else teacher_losses(supervision)
    return losses, build_teacher(finetune.teacher, context)
