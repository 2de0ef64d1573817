"""Train: supervised training or fine-tuning, so that a recipe can start without a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import (
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from compress.candidate import Candidate
from compress.config.references import CodeReferences
from compress.distillation.losses import LabelLoss, LossSettings
from compress.outputs import Implied
from compress.stage import Context, Effect, Stage
from compress.stages.dry_run import dry_run_losses
from compress.stages.fit import fit, implied_outputs
from compress.stages.training_settings import Training

__all__ = ["TrainStage"]


class TrainStage(Training, Stage):
    """Train the model on the task's labels, as it computes: after a quantize stage this is QAT."""

    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.WEIGHTS})
    makes_teacher: ClassVar[bool] = True

    kind: Literal["train"] = "train"
    losses: tuple[LossSettings, ...] = ()
    """What is minimized: the weighted sum of these losses, none of which may need a teacher. Where
    not given, ``label``. Several are for several outputs, such as auxiliary heads, which a net has
    in training mode only."""

    @field_validator("losses")
    @classmethod
    def _needs_no_teacher(
        cls, losses: tuple[LossSettings, ...], info: ValidationInfo
    ) -> tuple[LossSettings, ...]:
        for loss in (given.known(info) for given in losses):
            if loss.needs_teacher:
                raise ValueError(f"the loss {loss.kind} needs a teacher; use distill")
        return losses

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What identifies a stage that does not use it is what it was.
        written: dict[str, Any] = handler(self)
        absent = () if self.losses else ("losses",)
        return {key: value for key, value in written.items() if key not in absent}

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate with trained weights."""
        return fit(candidate.fork(), context, self, self._losses, teacher=None)

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The candidate as it is, once its labels and its loss are seen to fit."""
        dry_run_losses(candidate, context, self, self._losses, teacher=None)
        return candidate

    def explain(self) -> str:
        """What this stage will do."""
        how = ""
        if self.losses:
            how = f" with {', '.join(loss.description for loss in self.losses)}"
        return f"train on the labels for {self.epochs} epochs{how}"

    def implied_outputs(self, references: CodeReferences) -> Sequence[Implied]:
        """What its losses imply that the outputs are."""
        return implied_outputs(self.losses, references)

    @property
    def _losses(self) -> tuple[LossSettings, ...]:
        return self.losses or (LabelLoss(),)

    def epochs_of_training(self) -> int:
        """Passes over the training data."""
        return self.epochs
