"""Fitting: what every stage that trains has in common.

The settings, and one function that trains a candidate as it computes: with fake
quantisation where formats are declared, and with promised zeros put back after every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from compress.algorithms.batches import Views, is_labelled, read
from compress.algorithms.fakequant import simulate
from compress.algorithms.mixing import Mix
from compress.algorithms.sparsity import keep_zeros
from compress.algorithms.training import EpochReport, Optimization, isolated, train
from compress.candidate import Candidate
from compress.errors import DataError, StageError
from compress.inputs import forward, to_device
from compress.stages.base import Context, Teacher, formats_of, ranges_of
from compress.stages.losses import LossSettings, labelled, task_loss
from compress.stages.memory import CacheSettings, TeacherMemory, remembering
from compress.stages.objective import WeightedSum, weighted
from compress.stages.terms import Scene

__all__ = ["Training", "fit", "rehearse_losses", "validation_loss"]


class MixSettings(BaseModel):
    """Mixtures of samples (``compress.algorithms.mixing``), seen by teacher and student alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mixup", "cutmix"] = "mixup"
    alpha: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Training(BaseModel):
    """How to train; the keys that train, distill and finetune blocks share.

    ``views``: how many augmented views of the data to use before they repeat. With a teacher, its
    answers are worked out once for each view and kept on disk as ``cache`` says, so that ``epochs``
    beyond ``views`` cost no teacher; ``None`` makes a new view in every epoch and asks the teacher
    each time. ``mix`` makes mixtures of samples part of the view.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(default=1e-2, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    clip_norm: float | None = Field(default=1.0, gt=0)
    augment: bool = True
    views: int | None = Field(default=None, ge=1)
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
        return Views(task.train, self.batch_size, context.seed, augment, mix)

    def optimization(self) -> Optimization:
        """These settings for the training loop."""
        return Optimization(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=self.warmup,
            clip_norm=self.clip_norm,
        )


def fit(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> None:
    """Train the candidate's module in place, as it computes.

    Raises:
        DataError: a loss needs labels and the training data has none.
        SelectorError: a loss names layers that are not there or do not fit.
        StageError: a loss needs a teacher, or another; or its answers would take too much disk.
        StorageError: the disk is full.
        TrainingDiverged: a loss that is not finite.
    """
    _check(losses, context, teacher)
    module, task, formats = candidate.module, context.task, formats_of(candidate)
    views = training.data(context)
    simulation = ExitStack()

    with isolated(context.seed), simulation:
        objective, companions = _objective(candidate, context, training, losses, teacher)

        def before_epoch() -> None:
            # Weights have moved, so ranges are taken anew: on the float module, as lowering does.
            objective.next_epoch()
            simulation.close()
            simulation.enter_context(simulate(module, formats, ranges_of(module, formats, task)))

        def after_epoch(report: EpochReport) -> None:
            context.report(
                {
                    "event": "epoch",
                    "epoch": report.epoch,
                    "epochs": report.epochs,
                    "loss": report.loss,
                    "losses": objective.means(),
                    "validation_loss": validation_loss(module, context),
                    "samples_per_s": report.samples_per_s,
                }
            )

        train(
            module,
            views,
            objective,
            training.optimization(),
            companions=companions,
            distinct_views=training.views,
            on_epoch_start=before_epoch,
            after_step=keep_zeros(module, candidate.invariants),
            on_epoch_end=after_epoch,
        )


def rehearse_losses(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> None:
    """Work out every loss once, on two samples: what does not fit is found before the training.

    Reports what the teacher's answers will take on disk.

    Raises:
        CompressError: what :func:`fit` would fail with.
    """
    _check(losses, context, teacher)
    with isolated(context.seed):
        scene = Scene(candidate.module, teacher, context)
        terms = [scene.tried(loss.kind, loss.term(scene)) for loss in losses]
        views, kept = training.data(context), training.repeated_views
        if kept is not None and any(loss.asks_teacher for loss in losses):
            memory = TeacherMemory(scene, terms, views, kept, training.cache)
            memory.check_room()
            context.report({"event": "answers", "bytes": memory.nbytes})


@torch.no_grad()
def validation_loss(module: nn.Module, context: Context) -> float | None:
    """The task's loss on the validation split; ``None`` where it has no labels."""
    if not is_labelled(context.task.validation):
        return None
    loss, total, seen = task_loss(context.task), 0.0, 0
    was_training, device = module.training, next(module.parameters()).device
    module.eval()
    for batch in read(context.task.validation, 256):
        assert batch.labels is not None
        value = loss(forward(module, to_device(batch.inputs, device)), batch.labels.to(device))
        count = int(labelled(context.task, batch.labels).sum())
        total, seen = total + float(value) * count, seen + count
    module.train(was_training)
    return total / seen if seen else None


def _check(losses: Sequence[LossSettings], context: Context, teacher: Teacher | None) -> None:
    for loss in losses:
        if loss.kind == "label" and not _has_a_label(context):
            raise DataError(
                f"the loss `label` needs labels and the training data of task "
                f"{context.task.name!r} has none; leave it out and let the teacher speak."
            )
        if loss.asks_teacher and teacher is None:
            raise StageError(f"the loss {loss.kind!r} needs a teacher and there is none.")


def _has_a_label(context: Context) -> bool:
    # Mostly the first batch has one.
    return is_labelled(context.task.train) and any(
        batch.labels is not None and bool(labelled(context.task, batch.labels).any())
        for batch in read(context.task.train, 64)
    )


def _objective(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> tuple[WeightedSum, list[nn.Module]]:
    scene = Scene(candidate.module, teacher, context)
    terms = weighted(losses, scene, training.epochs)
    ask = None
    if any(loss.asks_teacher for loss in losses):
        views, kept = training.data(context), training.repeated_views
        ask = remembering(scene, [one.term for one in terms], views, kept, training.cache)
    companions = [one.term.companion for one in terms if one.term.companion is not None]
    return WeightedSum(candidate.module, terms, ask), companions
