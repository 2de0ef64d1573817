"""Settings of a training; the keys that train, distill and finetune blocks share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compress.config.fields import LARGEST_COUNT, LARGEST_FACTOR, LARGEST_RATE, Flag, Number, Whole
from compress.distillation.teacher_cache import CacheSettings
from compress.stage import Context
from compress.training.data import SeededEpochs
from compress.training.mixup import Mix
from compress.training.optim import Optimization, Schedule

__all__ = ["MixSettings", "Training"]

_WARMUP, _ONE_CYCLE_WARMUP = 0.05, 0.3


class MixSettings(BaseModel):
    """Mixed samples (``compress.training.mixup``), the same for teacher and student."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mixup", "cutmix"] = "mixup"
    alpha: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)


class Training(BaseModel):
    """How to train; the keys that train, distill and finetune blocks share.

    ``batch_size``: samples for one step, of all processes together: a recipe trains in the same
    steps however many processes share the work.

    ``views``: how many epochs differ in order and augmentation before they repeat. The outputs of a
    teacher are computed once for each view and cached on disk as ``cache`` says, so that ``epochs``
    beyond ``views`` need no teacher; ``None`` makes every epoch a new view, in which the teacher is
    run again. ``mix`` mixes samples, as a part of the view.
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
    by_length: Flag | None = Field(
        default=None,
        description="Batches of texts of similar lengths, cut to the longest of them. null: where "
        "the data have lengths and no net's outputs depend on the padding; true: or else an error.",
    )

    @model_validator(mode="after")
    def _cache_needs_views(self) -> Training:
        if self.cache is not None and self.views is None:
            raise ValueError("cache goes with views: without them the teacher sees no batch twice")
        return self

    @property
    def repeated_epochs(self) -> int | None:
        """How many epoch seeds there are; ``None`` where none repeats."""
        return self.views if self.views is not None and self.views < self.epochs else None

    def data(self, context: Context) -> SeededEpochs:
        """The training data of this process, in seeded epochs."""
        task = context.task
        augment = task.augment if self.augment else None
        mix = None if self.mix is None else Mix(self.mix.kind, self.mix.alpha)
        return SeededEpochs(
            dataset=task.train,
            batch_size=self.batch_size,
            seed=context.seed,
            augment=augment,
            rank=context.processes.rank,
            world_size=context.processes.world_size,
            mix=mix,
        )

    def optimization(self) -> Optimization:
        """The settings of the training loop."""
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
