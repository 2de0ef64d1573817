"""Settings of a training; the keys that train, distill and finetune blocks share."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from compress.config.fields import LARGEST_COUNT, LARGEST_FACTOR, LARGEST_RATE, Flag, Number, Whole
from compress.config.settings import Settings
from compress.distillation.teacher_cache import CacheSettings
from compress.stage import Context
from compress.training.data import SeededEpochs
from compress.training.mixup import Mix
from compress.training.optim import Optimization, Schedule

__all__ = ["MixSettings", "Training"]

_WARMUP, _ONE_CYCLE_WARMUP = 0.05, 0.3


class MixSettings(Settings):
    """Mixed samples, the same for teacher and student.

    A mixture is drawn once for each batch, from the seed, and is a part of the view.

    Source: Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent",
    for the same mixture for both nets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mixup", "cutmix"] = "mixup"
    """How two samples are mixed: ``mixup`` averages them, ``cutmix`` puts a box of one into the
    other.

    Source: Zhang et al. 2018, "mixup: beyond empirical risk minimization"; Yun et al. 2019,
    "CutMix".
    """
    alpha: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """The share of a sample is drawn from ``Beta(alpha, alpha)``: 1 is uniform, and small values
    leave most batches nearly unmixed."""


class Training(Settings):
    """How to train; the keys that train, distill and finetune blocks share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Whole = Field(default=10, ge=1, le=LARGEST_COUNT)
    """Passes over the training data; ``compresskit plan`` warns where they are too few steps to
    learn from."""
    batch_size: Whole = Field(default=128, ge=1, le=LARGEST_COUNT)
    """Samples for one step, of all processes together: a recipe trains in the same steps however
    many processes share the work."""
    learning_rate: Number = Field(default=3e-3, gt=0, le=LARGEST_RATE)
    """The highest learning rate; the schedule sets those of the other steps as shares of it. A
    pretrained transformer wants less."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """What updates the weights: ``adamw``, or ``sgd`` with Nesterov momentum 0.9.

    Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization".
    """
    weight_decay: Number = Field(default=1e-2, ge=0, le=LARGEST_FACTOR)
    """Decay of the weights; norms and biases are not decayed."""
    schedule: Schedule = "cosine"
    """How the learning rate changes: ``cosine`` rises in a line and falls to 0 along half a cosine,
    ``constant`` rises and stays, ``one-cycle`` rises from 1/25 of the highest rate and falls to
    1/250,000 of it.

    Source: Loshchilov and Hutter 2017, "SGDR"; Smith and Topin 2018, "Super-convergence".
    """
    warmup: Number | None = Field(default=None, ge=0, lt=1)
    """Share of all steps in which the learning rate rises; where not given 0.05, and of
    ``one-cycle`` 0.3."""
    clip_norm: Number | None = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """The largest norm of the gradient of one step; a larger one is scaled down to it. ``null``
    clips nothing."""
    ema: Number | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, such as 0.999; the average is then the result.
    Where not given, the result is the last weights."""
    patience: Whole | None = Field(default=None, ge=1, le=LARGEST_COUNT)
    """Stop after so many epochs without a lower validation loss, and take the weights of the epoch
    where it was lowest. Where not given, all epochs are trained."""
    augment: Flag = True
    """Whether training samples are augmented as the task says; ``false`` shows them as they are."""
    views: Whole | None = Field(default=None, ge=1, le=LARGEST_COUNT)
    """How many epochs differ in order and augmentation before they repeat. A teacher's outputs are
    computed once for each view and cached on disk, so that epochs beyond ``views`` need no teacher.
    Where not given, every epoch is a new view, in which the teacher is run again."""
    cache: CacheSettings | None = None
    """How the teacher's outputs are cached on disk; goes with ``views``."""
    mix: MixSettings | None = None
    """Mix the samples of a batch with each other. Where not given, they are not mixed."""
    by_length: Flag | None = None
    """Batches of texts of similar lengths, cut to the longest of them. Where not given, this is
    done if the data have lengths and no net's outputs depend on the padding; ``true`` makes it an
    error if it cannot be done, ``false`` never does it."""

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
