"""Train: supervised training or fine-tuning, so that a recipe can start without a checkpoint."""

from __future__ import annotations

from typing import ClassVar, Literal

from compress.candidate import Candidate
from compress.distillation.losses import LabelLoss
from compress.stage import Context, Effect, Stage
from compress.stages.dry_run import dry_run_losses
from compress.stages.fit import fit
from compress.stages.training_settings import Training

__all__ = ["TrainStage"]


class TrainStage(Training, Stage):
    """Train the model on the task's labels, as it computes: after a quantize stage this is QAT."""

    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.WEIGHTS})
    makes_teacher: ClassVar[bool] = True

    kind: Literal["train"] = "train"

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate with trained weights."""
        return fit(candidate.fork(), context, self, [LabelLoss()], teacher=None)

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate as it is, once its labels and its loss are seen to fit."""
        dry_run_losses(candidate, context, self, [LabelLoss()], teacher=None)
        return candidate

    def explain(self) -> str:
        """What this stage will do."""
        return f"train on the labels for {self.epochs} epochs"

    def epochs_of_training(self) -> int:
        """Passes over the training data."""
        return self.epochs
