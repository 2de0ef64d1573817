"""Fitting: what every stage that trains has in common.

The settings, and one function that trains a candidate as it computes: with fake
quantization where formats are declared, and with promised zeros put back after every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from compress.candidate import Candidate
from compress.config.fields import LARGEST_COUNT, LARGEST_FACTOR, LARGEST_RATE, Flag, Number, Whole
from compress.distillation.context import Scene
from compress.distillation.losses import LossSettings
from compress.distillation.objective import WeightedSum, weighted
from compress.distillation.teacher_cache import CacheSettings, remembering
from compress.errors import DataError, StageError
from compress.modules.inputs import forward, to_device
from compress.pruning.sparsity import keep_zeros
from compress.quantization.fakequant import simulate
from compress.stage import Context, Teacher, formats_of, ranges_of
from compress.training.data import Views, is_labeled, read
from compress.training.loop import (
    Beside,
    EpochReport,
    Hooks,
    Keeping,
    Optimization,
    Outcome,
    StepReport,
    isolated,
    train,
)
from compress.training.mixup import Mix
from compress.training.optim import Schedule
from compress.training.supervision import Supervision, has_a_label

__all__ = ["Training", "check_losses", "fit", "scene_of", "supervision_of", "validation_loss"]

_WARMUP, _ONE_CYCLE_WARMUP = 0.05, 0.3


class MixSettings(BaseModel):
    """Mixtures of samples (``compress.training.mixup``), seen by teacher and student alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mixup", "cutmix"] = "mixup"
    alpha: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)


class Training(BaseModel):
    """How to train; the keys that train, distill and finetune blocks share.

    ``batch_size``: samples for one step, of all processes together: a recipe trains in the same
    steps however many processes share the work.

    ``views``: how many augmented views of the data to use before they repeat. With a teacher, its
    answers are worked out once for each view and kept on disk as ``cache`` says, so that ``epochs``
    beyond ``views`` cost no teacher; ``None`` makes a new view in every epoch and asks the teacher
    each time. ``mix`` makes mixtures of samples part of the view.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Whole = Field(default=10, ge=1, le=LARGEST_COUNT)
    batch_size: Whole = Field(
        default=128,
        ge=1,
        le=LARGEST_COUNT,
        description="Samples for one step, of all processes together.",
    )
    learning_rate: Number = Field(
        default=3e-3, gt=0, le=LARGEST_RATE, description="The highest one."
    )
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Number = Field(default=1e-2, ge=0, le=LARGEST_FACTOR)
    schedule: Schedule = "cosine"
    warmup: Number | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of all steps in which the learning rate rises; 0.05, of one-cycle 0.3.",
    )
    clip_norm: Number | None = Field(
        default=1.0,
        gt=0,
        le=LARGEST_FACTOR,
        description="The largest norm of the gradient of one step.",
    )
    ema: Number | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, which then are the result.",
    )
    patience: Whole | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="Stop after so many epochs without a lower validation loss, and take the "
        "weights of the epoch where it was lowest.",
    )
    augment: Flag = True
    views: Whole | None = Field(default=None, ge=1, le=LARGEST_COUNT)
    cache: CacheSettings | None = None
    mix: MixSettings | None = None

    @model_validator(mode="after")
    def _cache_needs_views(self) -> Training:
        if self.cache is not None and self.views is None:
            raise ValueError("cache goes with views: without them no answer is asked for twice")
        return self

    @property
    def repeated_views(self) -> int | None:
        """How many different views there are; ``None`` where none comes again."""
        return self.views if self.views is not None and self.views < self.epochs else None

    def data(self, context: Context) -> Views:
        """The training data as these settings show them."""
        task = context.task
        augment = task.augment if self.augment else None
        mix = None if self.mix is None else Mix(self.mix.kind, self.mix.alpha)
        part = context.processes.part
        return Views(task.train, self.batch_size, context.seed, augment, part, mix)

    def optimization(self) -> Optimization:
        """These settings for the training loop."""
        usual = _ONE_CYCLE_WARMUP if self.schedule == "one-cycle" else _WARMUP
        return Optimization(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=usual if self.warmup is None else self.warmup,
            clip_norm=self.clip_norm,
            ema=self.ema,
            patience=self.patience,
        )


def fit(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> Candidate:
    """Train the candidate's module in place, as it computes; the candidate, with notes.

    An unfinished training that left a checkpoint is gone on with.

    Raises:
        DataError: a loss, or the wish to stop early, needs labels and the data has none.
        SelectorError: a loss names layers that are not there or do not fit.
        StageError: a loss needs a teacher, or another; or its answers would take too much disk.
        StorageError: the disk is full.
        TrainingDiverged: a loss that is not finite.
    """
    scene = scene_of(candidate, context, losses, teacher)
    check_losses(losses, scene, training)
    module, views = candidate.module, training.data(context)
    keeping = _keeping(candidate, context, training, losses)
    simulation = ExitStack()

    with isolated(context.seed), simulation:
        objective, beside = _objective(scene, training, losses)
        outcome = train(
            module,
            views,
            objective,
            training.optimization(),
            beside=beside,
            distinct_views=training.views,
            hooks=_hooks(candidate, scene, objective, simulation, keeping.journal),
            keeping=keeping,
            processes=context.processes,
        )
    return replace(candidate, notes=(*candidate.notes, *_notes(outcome, training)))


@torch.no_grad()
def supervision_of(candidate: Candidate, context: Context) -> Supervision:
    """What the outputs of a candidate are, and what labels ask of them."""
    return Scene(candidate.module, None, context).supervision


@torch.no_grad()
def validation_loss(
    module: nn.Module, context: Context, supervision: Supervision | None = None
) -> float | None:
    """The task's loss on the validation split; ``None`` where it has no labels.

    Args:
        module: is left in the mode that it was in.
        context: has the task.
        supervision: what is known of the labels; without, it is looked at anew.
    """
    if not is_labeled(context.task.validation):
        return None
    known, total, seen = supervision, 0.0, 0
    was_training, device = module.training, next(module.parameters()).device
    module.eval()
    for batch in read(context.task.validation, 256, part=context.processes.part):
        assert batch.labels is not None
        outputs = forward(module, to_device(batch.inputs, device))
        if known is None:
            known = Supervision.of(context.task, outputs)
        if known.kind is None and context.task.loss is None:
            break  # nothing says what the loss on labels would be
        value = known.loss(outputs, batch.labels.to(device))
        count = int(known.labeled(batch.labels).sum())
        total, seen = total + float(value) * count, seen + count
    module.train(was_training)
    everyone = context.processes.gather(torch.tensor([total, seen], dtype=torch.float64)).sum(0)
    return float(everyone[0] / everyone[1]) if everyone[1] else None


def scene_of(
    candidate: Candidate,
    context: Context,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> Scene:
    """What the losses of a training are made on."""
    implied = dict.fromkeys(loss.implies for loss in losses if loss.implies is not None)
    return Scene(candidate.module, teacher, context, tuple(implied))


def check_losses(losses: Sequence[LossSettings], scene: Scene, training: Training) -> None:
    """See that there are the labels and the teacher that a training asks for.

    Raises:
        DataError: a loss, or the wish to stop early, needs labels and the data has none; or the
            model has other outputs than the task has classes.
        StageError: a loss needs a teacher and there is none.
    """
    task = scene.context.task
    scene.supervision.check_classes("the model that learns")
    for loss in losses:
        if loss.kind == "label" and not has_a_label(task.train, scene.supervision):
            raise DataError(
                f"the loss `label` needs labels and the training data of task "
                f"{task.name!r} has none; leave it out and let the teacher speak."
            )
        if loss.asks_teacher and scene.teacher is None:
            raise StageError(f"the loss {loss.kind!r} needs a teacher and there is none.")
    if training.patience is not None and not has_a_label(task.validation, scene.supervision):
        raise DataError(
            f"patience needs labels in the validation data, and that of task "
            f"{task.name!r} has none; leave it out."
        )


def _keeping(
    candidate: Candidate, context: Context, training: Training, losses: Sequence[LossSettings]
) -> Keeping:
    # A stage may train twice, and what enters a training may come out otherwise than before: the
    # checkpoint of one is not that of another.
    checkpoint = context.checkpoint
    if checkpoint is not None:
        settings = [training.model_dump(mode="json"), [x.model_dump(mode="json") for x in losses]]
        checkpoint = checkpoint.within(candidate.fingerprint, settings)
    diverged = context.workdir / "diverged-batch.safetensors"
    if context.processes.is_first:
        diverged.unlink(missing_ok=True)  # of an earlier try
    return Keeping(checkpoint, [], diverged)


def _hooks(
    candidate: Candidate,
    scene: Scene,
    objective: WeightedSum,
    simulation: ExitStack,
    journal: list[dict[str, Any]],
) -> Hooks:
    context, supervision = scene.context, scene.supervision
    module, task, formats = candidate.module, context.task, formats_of(candidate)

    def epoch_start(epoch: int) -> None:
        # Weights have moved, so ranges are taken anew: on the float module, as lowering does.
        objective.start_epoch(epoch)
        simulation.close()
        simulation.enter_context(simulate(module, formats, ranges_of(module, formats, task)))

    def epoch_end(report: EpochReport) -> None:
        means = objective.means()
        everyone = context.processes.gather(torch.tensor(list(means.values()))).mean(0).tolist()
        entry = {
            "epoch": report.epoch,
            "epochs": report.epochs,
            "loss": report.loss,
            "losses": dict(zip(means, everyone, strict=True)),
            "validation_loss": report.validation_loss,
            "samples_per_s": report.samples_per_s,
        }
        if report.epoch == 1:
            _check_movement(objective, context)
        journal.append(entry)
        context.report({"event": "epoch", **entry, "left_s": report.left_s})

    def step(report: StepReport) -> None:
        context.report({"event": "step", **asdict(report)})

    def resumed(epochs: int, seconds: float) -> None:
        history = list(journal)
        context.report(
            {"event": "resumed", "epoch": epochs, "seconds": seconds, "history": history}
        )

    return Hooks(
        epoch_start=epoch_start,
        after_step=keep_zeros(module, candidate.invariants),
        validate=lambda: validation_loss(module, context, supervision),
        epoch_end=epoch_end,
        step=step,
        resumed=resumed,
        warn=lambda text: context.report({"event": "warning", "text": text}),
    )


def _check_movement(objective: WeightedSum, context: Context) -> None:
    """Look at the first epoch for losses that had one value in every batch.

    Raises:
        StageError: all of them, though the student answers otherwise than the teacher.
    """
    still, names = objective.still(), list(objective.means())
    facts = [float(name in still) for name in names] + [float(not objective.answers_differ)]
    *stuck, alike = context.processes.gather(torch.tensor(facts)).min(0).values.bool().tolist()
    idle = [name for name, is_stuck in zip(names, stuck, strict=True) if is_stuck]
    if not idle:
        return
    value = still.get(idle[0], 0.0) + 0.0  # no -0
    what = (
        f"the loss {' and '.join(map(repr, idle))} was {value:g} in every step of the first epoch"
    )
    if alike:
        text = f"{what}: the student answers as the teacher does, and there was nothing to learn"
        context.report({"event": "warning", "text": text})
    elif len(idle) == len(names):
        raise StageError(
            f"{what}, so that nothing is learned: it does not depend on what the student answers; "
            "choose a loss that fits the outputs, and a batch_size that gives it samples to "
            "compare."
        )
    else:
        context.report({"event": "warning", "text": f"{what}, and taught nothing"})


def _notes(outcome: Outcome, training: Training) -> list[str]:
    if outcome.epoch_of_weights == training.epochs:
        return []
    best, epochs = outcome.epoch_of_weights, f"{outcome.epochs} of {training.epochs} epochs"
    return [f"trained {epochs}; the weights are of epoch {best}, of lowest validation loss"]


def _objective(
    scene: Scene, training: Training, losses: Sequence[LossSettings]
) -> tuple[WeightedSum, Beside]:
    terms = weighted(losses, scene, training.epochs)
    ask = None
    if any(loss.asks_teacher for loss in losses):
        views, kept = training.data(scene.context), training.repeated_views
        ask = remembering(scene, [one.term for one in terms], views, kept, training.cache)
    beside = Beside(
        tuple(one.term.companion for one in terms if one.term.companion is not None),
        tuple(other for one in terms for other in one.term.others),
    )
    return WeightedSum(scene.student, terms, ask), beside
