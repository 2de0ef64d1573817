"""Fitting: one function that trains a candidate, for every stage that trains.

The candidate is trained as it computes: with fake quantization where formats are declared, and with
the zeros that it must keep restored after every step. What formats learn is trained beside the
module, and becomes part of the candidate's numerics.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from compress.candidate import Candidate
from compress.config.references import CodeReferences
from compress.distillation.context import DistillationContext
from compress.distillation.losses import LossSettings
from compress.distillation.objective import WeightedSum, weighted_losses
from compress.distillation.teacher_cache import cached_teacher
from compress.events import EpochEnd, Resumed, StageWarning, StepEnd
from compress.modules.inputs import forward, to_device
from compress.outputs import Implied
from compress.pruning.movement import Movement
from compress.pruning.penalties import Penalty
from compress.pruning.sparsity import keep_zeros
from compress.quantization.clips import LearnedClips
from compress.quantization.fakequant import layers_with_formats, learned_clips, simulate
from compress.stage import Context, Teacher, formats_of, ranges_of
from compress.stages.by_length import training_data
from compress.stages.loss_checks import about_few_steps, check_losses, check_losses_change
from compress.stages.prune_schedule import Part
from compress.stages.training_settings import Training
from compress.training.data import SeededEpochs, is_labeled, read
from compress.training.loop import (
    AuxiliaryModules,
    Callbacks,
    CheckpointConfig,
    TrainResult,
    isolated,
    train,
)
from compress.training.supervision import Supervision

__all__ = ["distillation_context", "fit", "implied_outputs", "supervision_of", "validation_loss"]

_VALIDATION_BATCH = 256


def fit(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
    part: Part | None = None,
    movement: Movement | None = None,
) -> Candidate:
    """Train the candidate's module in place; an unfinished training resumes from its checkpoint.

    Args:
        candidate: to be trained.
        context: what the stage was given.
        training: settings of the loop and the data.
        losses: whose weighted sum is minimized.
        teacher: ``None`` where no loss needs one.
        part: which of several trainings of the stage it is; ``None`` for the only one.
        movement: chooses weights of the module to become zero while it is trained.

    Returns:
        The candidate, with the clips that its formats have learned, and with notes.

    Raises:
        DataError: a loss, or early stopping, needs labels and the data has none.
        SelectorError: a loss names layers that are not there or do not fit.
        StageError: a loss needs a teacher, or another; or its outputs would take too much disk.
        StorageError: the disk is full.
        TrainingDiverged: a loss that is not finite.
    """
    losses = [loss.resolved(context.references) for loss in losses]
    distillation = distillation_context(candidate, context, losses, teacher)
    check_losses(losses, distillation, training)
    checkpointing = _checkpointing(candidate, context, training, losses, part)
    simulation, history = ExitStack(), checkpointing.history
    clips = learned_clips(candidate.module, formats_of(candidate))
    data = training_data(distillation, training)

    with isolated(context.seed), simulation:
        penalty = None if part is None else part.penalty
        objective, auxiliary = _objective(distillation, training, losses, data.epochs, penalty)
        auxiliary = replace(auxiliary, kept=(clips,) if len(clips) else ())
        callbacks = _callbacks(candidate, distillation, objective, simulation, history, clips, part)
        if movement is not None:
            movement.begin(len(data.epochs) * training.epochs)
            updating = (*auxiliary.self_updating, movement)
            auxiliary = replace(auxiliary, self_updating=updating)
            callbacks = _with_movement(callbacks, movement)
        result = train(
            candidate.module,
            data.epochs,
            objective,
            training.optimization(),
            auxiliary=auxiliary,
            distinct_epochs=training.views,
            callbacks=callbacks,
            checkpointing=checkpointing,
            processes=context.processes,
        )
    numerics = candidate.numerics.with_clips(clips.values(), layers_with_formats(candidate.module))
    epochs = training.epochs if part is None else part.since_cut
    few = about_few_steps(len(data.epochs) * epochs) if epochs else []
    notes = [*([data.note] if data.note else []), *_notes(result, training, part), *few]
    return replace(candidate, numerics=numerics, notes=(*candidate.notes, *notes))


@torch.no_grad()
def supervision_of(candidate: Candidate, context: Context) -> Supervision:
    """What the outputs of a candidate are, and what labels they can be compared with."""
    return DistillationContext(candidate.module, None, context).task_supervision


@torch.no_grad()
def validation_loss(
    module: nn.Module, context: Context, supervision: Supervision | None = None
) -> float | None:
    """The task's loss on the validation split, over all processes.

    Args:
        module: is left in the mode that it was in.
        context: has the task.
        supervision: what is known of the labels; ``None`` to derive it from the first batch.

    Returns:
        The mean over the labeled samples; ``None`` where there are none.
    """
    if not is_labeled(context.task.validation):
        return None
    known, total, seen = supervision, 0.0, 0
    was_training, device = module.training, next(module.parameters()).device
    module.eval()
    rank, world_size = context.processes.rank, context.processes.world_size
    batches = read(context.task.validation, _VALIDATION_BATCH, rank=rank, world_size=world_size)
    for batch in batches:
        assert batch.labels is not None
        outputs = forward(module, to_device(batch.inputs, device))
        if known is None:
            known = Supervision.of(context.task, outputs)
        if not known.has_loss(batch.labels):
            break  # nothing says what the loss on labels would be
        value = known.loss(outputs, to_device(batch.labels, device))
        count = int(known.labeled(batch.labels).sum())
        total, seen = total + float(value) * count, seen + count
    module.train(was_training)
    sums = context.processes.gather(torch.tensor([total, seen], dtype=torch.float64)).sum(0)
    return float(sums[0] / sums[1]) if sums[1] else None


def distillation_context(
    candidate: Candidate,
    context: Context,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> DistillationContext:
    """What the losses of a training are made for, with the candidate as the student."""
    implied = implied_outputs(losses, context.references)
    return DistillationContext(candidate.module, teacher, context, implied)


def implied_outputs(
    losses: Sequence[LossSettings], references: CodeReferences
) -> tuple[Implied, ...]:
    """What losses imply that the outputs of a model are, each once.

    A loss on one of several outputs implies it of that output, and one on labels that labels of one
    tensor are for it.
    """
    found: list[Implied] = []
    for loss in (given.resolved(references) for given in losses):
        if loss.on is not None and (loss.kind == "label" or loss.implied_kind is not None):
            found.append((loss.on, loss.implied_kind))
        elif loss.implied_kind is not None:
            found.append(loss.implied_kind)
    return tuple(dict.fromkeys(found))


def _checkpointing(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    part: Part | None,
) -> CheckpointConfig:
    # A stage may train twice, and what enters a training may differ: the checkpoint of one is not
    # that of another.
    checkpoint = context.checkpoint
    if checkpoint is not None:
        settings = [training.model_dump(mode="json"), [x.model_dump(mode="json") for x in losses]]
        checkpoint = checkpoint.within(candidate.fingerprint, settings)
        if part is not None:
            # What a part ended with is kept, since all that follow begin with it.
            checkpoint = checkpoint.beside(part.folder).within(*part.facts)
    diverged = context.workdir / "diverged-batch.safetensors"
    if context.processes.is_rank_zero:
        diverged.unlink(missing_ok=True)  # of an earlier try
    return CheckpointConfig(checkpoint, [], diverged)


def _callbacks(
    candidate: Candidate,
    distillation: DistillationContext,
    objective: WeightedSum,
    simulation: ExitStack,
    history: list[dict[str, Any]],
    clips: LearnedClips,
    part: Part | None,
) -> Callbacks:
    context, supervision = distillation.stage, distillation.task_supervision
    samples = len(context.task.train)
    module, task, formats = candidate.module, context.task, formats_of(candidate)
    restore_zeros = keep_zeros(module, candidate.invariants)

    def epoch_start(epoch: int) -> None:
        # Weights have changed, so ranges are taken anew: on the float module, as lowering does.
        objective.start_epoch(epoch)
        simulation.close()
        ranges = ranges_of(module, formats, task)
        simulation.enter_context(simulate(module, formats, ranges, clips=clips))

    def after_step() -> None:
        restore_zeros()
        clips.keep_within_bounds()

    def epoch_end(of_loop: EpochEnd) -> None:
        means = objective.means()
        mean = context.processes.gather(torch.tensor(list(means.values()))).mean(0).tolist()
        event = replace(of_loop, losses=dict(zip(means, mean, strict=True)))
        if event.epoch == 1:
            check_losses_change(objective, context)
        if part is not None:
            event = replace(part.placed(event, samples), part=part.name)
        history.append({k: v for k, v in event.items() if k not in ("event", "left_s")})
        context.report(event)

    def step_end(event: StepEnd) -> None:
        context.report(event if part is None else part.placed(event, samples))

    def resumed(epochs: int, seconds: float) -> None:
        done = epochs if part is None else part.before + epochs
        context.report(Resumed(done, seconds, list(history)))

    return Callbacks(
        epoch_start=epoch_start,
        after_step=after_step,
        validate=lambda: validation_loss(module, context, supervision),
        epoch_end=epoch_end,
        step=step_end,
        resumed=resumed,
        warn=lambda text: context.report(StageWarning(text)),
    )


def _with_movement(callbacks: Callbacks, movement: Movement) -> Callbacks:
    def after_step() -> None:
        callbacks.after_step()
        movement.after_step()

    def validate() -> float | None:
        movement.hide()  # averaged weights are not masked
        return callbacks.validate()

    return replace(
        callbacks, before_step=movement.before_step, after_step=after_step, validate=validate
    )


def _notes(result: TrainResult, training: Training, part: Part | None) -> list[str]:
    if result.epoch_of_weights == training.epochs:
        return []
    best, epochs = result.epoch_of_weights, f"{result.epochs} of {training.epochs} epochs"
    of = "" if part is None else f"{part.name}: "
    return [f"{of}trained {epochs}; the weights are of epoch {best}, of lowest validation loss"]


def _objective(
    distillation: DistillationContext,
    training: Training,
    losses: Sequence[LossSettings],
    data: SeededEpochs,
    penalty: Penalty | None,
) -> tuple[WeightedSum, AuxiliaryModules]:
    weighted = weighted_losses(losses, distillation, training.epochs)
    functions = [one.function for one in weighted]
    teacher = None
    if any(loss.needs_teacher for loss in losses):
        teacher = cached_teacher(
            distillation, functions, data, training.repeated_epochs, training.cache
        )
    auxiliary = AuxiliaryModules(
        trained=tuple(one.auxiliary for one in functions if one.auxiliary is not None),
        self_updating=tuple(updating for one in functions for updating in one.self_updating),
    )
    return WeightedSum(distillation.student, weighted, teacher, penalty), auxiliary
