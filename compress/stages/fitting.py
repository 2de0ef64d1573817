"""Fitting: what every stage that trains has in common.

The settings, the losses, and one function that trains a candidate as it computes: with fake
quantisation where formats are declared, and with promised zeros put back after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator
from torch import Tensor, nn

from compress.algorithms import losses as functions
from compress.algorithms.batches import Batch, Views, is_labelled, read
from compress.algorithms.fakequant import simulate
from compress.algorithms.sparsity import keep_zeros
from compress.algorithms.training import EpochReport, Objective, Optimization, isolated, train
from compress.candidate import Candidate
from compress.errors import DataError, StageError
from compress.inputs import forward
from compress.references import is_reference
from compress.stages.base import Context, Teacher, formats_of, ranges_of

__all__ = [
    "CustomLoss",
    "LabelLoss",
    "LogitsLoss",
    "LossSettings",
    "ResponseLoss",
    "Training",
    "fit",
    "task_loss",
    "validation_loss",
]

_LARGEST_TEACHER_CACHE_BYTES = 2 << 30


class _Loss(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, gt=0)


class ResponseLoss(_Loss):
    """Match the teacher's softened probabilities (Hinton et al. 2015)."""

    kind: Literal["response"] = "response"
    temperature: float = Field(default=4.0, gt=0)


class LogitsLoss(_Loss):
    """Match the teacher's raw outputs; for regression and image outputs too."""

    kind: Literal["logits-mse"] = "logits-mse"


class LabelLoss(_Loss):
    """The task's own loss on its labels."""

    kind: Literal["label"] = "label"


class CustomLoss(_Loss):
    """A function of your own, ``module:name``, called with (student, teacher, labels)."""

    kind: str

    @field_validator("kind")
    @classmethod
    def _is_reference(cls, kind: str) -> str:
        if not is_reference(kind):
            raise ValueError(
                f"unknown loss {kind!r}; known are response, logits-mse, label, or module:name"
            )
        return kind


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return str(kind) if kind in ("response", "logits-mse", "label") else "custom"


LossSettings = Annotated[
    Annotated[ResponseLoss, Tag("response")]
    | Annotated[LogitsLoss, Tag("logits-mse")]
    | Annotated[LabelLoss, Tag("label")]
    | Annotated[CustomLoss, Tag("custom")],
    Discriminator(_tag),
]


class Training(BaseModel):
    """How to train; the keys that train, distill and finetune blocks share.

    ``views``: how many augmented views of the data to use before they repeat. With a teacher, its
    outputs are computed once for each view and kept, so that ``epochs`` beyond ``views`` cost no
    teacher; ``None`` makes a new view in every epoch and asks the teacher each time.
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
        StageError: a loss needs a teacher, or the teacher's outputs do not fit in memory.
        TrainingDiverged: a loss that is not finite.
    """
    _check(losses, context, teacher)
    module, task, formats = candidate.module, context.task, formats_of(candidate)
    augment = task.augment if training.augment else None
    views = Views(task.train, training.batch_size, context.seed, augment)
    simulation = ExitStack()

    def before_epoch() -> None:
        # Weights have moved, so ranges are taken anew: on the float module, as lowering takes them.
        simulation.close()
        simulation.enter_context(simulate(module, formats, ranges_of(module, formats, task)))

    def after_epoch(report: EpochReport) -> None:
        validation = validation_loss(module, context)
        context.report(
            {
                "event": "epoch",
                "epoch": report.epoch,
                "epochs": report.epochs,
                "loss": report.loss,
                "validation_loss": validation,
                "samples_per_s": report.samples_per_s,
            }
        )

    with isolated(context.seed), simulation:
        train(
            module,
            views,
            _objective(losses, context, _remembering(teacher, views, training)),
            training.optimization(),
            distinct_views=training.views,
            on_epoch_start=before_epoch,
            after_step=keep_zeros(module, candidate.invariants),
            on_epoch_end=after_epoch,
        )


def task_loss(context: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """The task's loss, or the one that its metric implies."""
    if context.task.loss is not None:
        return context.task.loss
    if context.task.metric == "mse":
        return nn.functional.mse_loss
    return nn.functional.cross_entropy


@torch.no_grad()
def validation_loss(module: nn.Module, context: Context) -> float | None:
    """The task's loss on the validation split; ``None`` where it has no labels."""
    if not is_labelled(context.task.validation):
        return None
    loss, total, seen = task_loss(context), 0.0, 0
    was_training, device = module.training, next(module.parameters()).device
    module.eval()
    for batch in read(context.task.validation, 256):
        assert batch.labels is not None
        inputs = batch.inputs if isinstance(batch.inputs, dict) else batch.inputs.to(device)
        value = loss(forward(module, inputs), batch.labels.to(device))
        total += float(value) * len(batch.labels)
        seen += len(batch.labels)
    module.train(was_training)
    return total / seen


def _check(losses: Sequence[LossSettings], context: Context, teacher: Teacher | None) -> None:
    for loss in losses:
        if loss.kind == "label" and not is_labelled(context.task.train):
            raise DataError(
                f"the loss `label` needs labels and the training data of task "
                f"{context.task.name!r} has none; leave it out and let the teacher speak."
            )
        if loss.kind != "label" and teacher is None:
            raise StageError(f"the loss {loss.kind!r} needs a teacher and there is none.")


def _objective(
    losses: Sequence[LossSettings], context: Context, teacher: Callable[[Batch], Tensor] | None
) -> Objective:
    terms = [(loss.weight, _term(loss, context)) for loss in losses]
    asks_teacher = any(loss.kind != "label" for loss in losses)

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        outputs = forward(module, batch.inputs)
        wisdom = teacher(batch) if teacher is not None and asks_teacher else outputs.detach()
        parts = [weight * term(outputs, wisdom, batch.labels) for weight, term in terms]
        return torch.stack(parts).sum()

    return objective


_Term = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _term(loss: LossSettings, context: Context) -> _Term:
    if isinstance(loss, ResponseLoss):
        return lambda student, teacher, _: functions.response(student, teacher, loss.temperature)
    if isinstance(loss, LogitsLoss):
        return lambda student, teacher, _: functions.logits_mse(student, teacher)
    if isinstance(loss, LabelLoss):
        supervised = task_loss(context)
        return lambda student, _, labels: supervised(student, _present(labels))
    return context.references.resolve(loss.kind, f"losses: {loss.kind}")


def _present(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise DataError("a batch of the training data came without labels.")
    return labels


def _remembering(
    teacher: Teacher | None, views: Views, training: Training
) -> Callable[[Batch], Tensor] | None:
    """The teacher by batch; where views repeat, each answer is computed once and kept."""
    if teacher is None:
        return None
    if training.views is None or training.views >= training.epochs:
        return lambda batch: teacher(batch.inputs)
    cache: dict[tuple[int, int], Tensor] = {}

    def answer(batch: Batch) -> Tensor:
        key = (batch.view, batch.index)
        if key not in cache:
            cache[key] = teacher(batch.inputs)
            _check_cache(cache[key], len(views), training)
        return cache[key]

    return answer


def _check_cache(answer: Tensor, batches: int, training: Training) -> None:
    expected = answer.nbytes * batches * (training.views or 1)
    if expected > _LARGEST_TEACHER_CACHE_BYTES:
        raise StageError(
            f"the teacher's outputs for {training.views} views would take "
            f"{expected / 2**30:.1f} GiB of memory; the limit is "
            f"{_LARGEST_TEACHER_CACHE_BYTES >> 30} GiB: set fewer views, or views: null to ask "
            "the teacher in every epoch."
        )
