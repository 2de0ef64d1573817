"""Distill: train a student to reproduce a teacher on the inputs that it will really see."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from compress.algorithms.depth import keep_blocks
from compress.algorithms.fakequant import layers_with_formats
from compress.candidate import Candidate
from compress.plain import plain
from compress.stages.base import Context, Effect, Stage
from compress.stages.fitting import Training, fit, rehearse_losses
from compress.stages.losses import LossSettings, ResponseLoss
from compress.stages.models import BlocksSettings, StudentSettings, build_model
from compress.stages.teachers import TeacherBlock, build_teacher

__all__ = ["DistillStage"]


class DistillStage(Training, Stage):
    """Train a student on the teacher's outputs, with or without labels.

    ``student: self`` lets the present model learn, which is how a pruned or quantised model is
    brought back. ``student: {layers: [0, 2, 5]}`` starts from some blocks of the present model. A
    new student takes over declared formats where its layers match the patterns; promises about
    zeros are of the old weights and end with them.
    """

    effects: ClassVar[frozenset[Effect]] = frozenset(Effect)

    kind: Literal["distill"] = "distill"
    student: StudentSettings = "self"
    teacher: TeacherBlock | None = None
    losses: tuple[LossSettings, ...] = Field(default=(ResponseLoss(),), min_length=1)

    @field_validator("losses")
    @classmethod
    def _asks_the_teacher(cls, losses: tuple[LossSettings, ...]) -> tuple[LossSettings, ...]:
        if not any(loss.asks_teacher for loss in losses):
            raise ValueError("no loss asks the teacher; add one such as response, or use train")
        return losses

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The trained student."""
        student = self._enter(candidate, context)
        return fit(student, context, self, self.losses, build_teacher(self.teacher, context))

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The untrained student, once teacher and student are seen to fit together."""
        student = self._enter(candidate, context)
        rehearse_losses(student, context, self, self.losses, build_teacher(self.teacher, context))
        return student

    def explain(self) -> str:
        """What this stage will do."""
        who = "the present model" if self.student == "self" else f"a new {self.student.words}"
        how = ", ".join(loss.words for loss in self.losses)
        return f"distil into {who} for {self.epochs} epochs with {how}"

    def epochs_of_training(self) -> int:
        """Passes over the training data."""
        return self.epochs

    def _enter(self, candidate: Candidate, context: Context) -> Candidate:
        if self.student == "self":
            return candidate.fork()
        folded: list[str] = []
        if isinstance(self.student, BlocksSettings):
            module = candidate.fork().module
            keep_blocks(module, self.student.layers)
            architecture = candidate.architecture and candidate.architecture.keeping(
                self.student.layers
            )
        else:
            self.student.check(context.task)
            module = build_model(self.student, context.build, context.seed)
            architecture = self.student.architecture
            folded = plain(module)
        numerics, dropped = candidate.numerics.carried_to(layers_with_formats(module))
        notes = [
            *folded,
            *(f"formats for {pattern!r} end here: no such layer" for pattern in dropped),
        ]
        if candidate.invariants:
            notes.append("promised zeros end here: the new student has weights of its own")
        return replace(
            candidate,
            module=module,
            architecture=architecture,
            numerics=numerics,
            invariants=(),
            notes=tuple(notes),
        )
