"""Distill: train a student to reproduce a teacher on the inputs that it will really see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from compress.candidate import Candidate
from compress.config.references import CodeReferences
from compress.distillation.default_losses import losses_by_default
from compress.distillation.loss_function import RequiredOutputs, teacher_forward
from compress.distillation.losses import LossSettings
from compress.distillation.teacher_settings import TeacherBlock, TeacherSettings
from compress.distillation.teachers import build_teacher
from compress.models.settings import BlocksSettings, StudentSettings, build_model
from compress.modules.edits import Edit, renumbered
from compress.modules.outputs import Outputs
from compress.modules.parametrizations import fold_parametrizations
from compress.outputs import Implied
from compress.pruning.depth import blocks_of, check_blocks, keep_blocks
from compress.quantization.fakequant import layers_with_formats
from compress.stage import Context, Effect, Stage, Teacher
from compress.stages.dry_run import dry_run_losses
from compress.stages.fit import fit, implied_outputs, supervision_of
from compress.stages.training_settings import Training
from compress.training.data import head

__all__ = ["DistillStage"]


class DistillStage(Training, Stage):
    """Train a student on the teacher's outputs, with or without labels.

    A new student takes over declared formats where its layers match the patterns; zeros that had to
    be kept are of the old weights and end with them.

    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """

    effects: ClassVar[frozenset[Effect]] = frozenset(Effect)

    kind: Literal["distill"] = "distill"
    student: StudentSettings = "self"
    """What learns: ``self`` is the present model, which is how a pruned or quantized one is brought
    back; a block with ``arch`` or ``hf`` is a new model; ``{layers: [0, 2, 5]}`` starts from some
    blocks of the present one."""
    teacher: TeacherBlock | None = None
    """What it learns from: a block, or a list of several whose outputs are averaged. Where not
    given, the model that entered the recipe, or that its last train stage made."""
    losses: tuple[LossSettings, ...] | None = Field(default=None, min_length=1)
    """What is minimized: the weighted sum of these losses, one of which at least compares with the
    teacher. Where not given, the one that fits the outputs, and the labels if there are any."""

    @field_validator("losses")
    @classmethod
    def _needs_the_teacher(
        cls, losses: tuple[LossSettings, ...] | None, info: ValidationInfo
    ) -> tuple[LossSettings, ...] | None:
        known = [loss.known(info) for loss in losses or ()]
        if losses is not None and not any(loss.needs_teacher for loss in known):
            raise ValueError("no loss needs the teacher; add one such as response, or use train")
        return losses

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """The trained student, with a note that names the losses where they are the default."""
        teacher = build_teacher(self.teacher, context)
        student, losses = self._with_losses(self._student_of(candidate, context), context, teacher)
        return fit(student, context, self, losses, teacher)

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """The untrained student, after a dry run of all losses."""
        teacher = build_teacher(self.teacher, context)
        student, losses = self._with_losses(self._student_of(candidate, context), context, teacher)
        dry_run_losses(student, context, self, losses, teacher)
        return student

    def explain(self) -> str:
        """What this stage will do."""
        who = "the present model" if self.student == "self" else f"a new {self.student.words}"
        how = ""
        if self.losses is not None:
            how = f" with {', '.join(loss.description for loss in self.losses)}"
        return f"distill into {who} for {self.epochs} epoch{'s' * (self.epochs > 1)}{how}"

    def epochs_of_training(self) -> int:
        """Passes over the training data."""
        return self.epochs

    def makes_baseline(self) -> bool:
        """Whether it is the first that learns, from what a teacher has said before the run."""
        return isinstance(self.teacher, TeacherSettings) and bool(self.teacher.labels)

    def named_teacher(self) -> TeacherBlock | None:
        """The teacher that it learns from, where that is not the run's."""
        return self.teacher

    def implied_outputs(self, references: CodeReferences) -> Sequence[Implied]:
        """What its losses imply that the outputs are."""
        return implied_outputs(self.losses or (), references)

    def _with_losses(
        self, student: Candidate, context: Context, teacher: Teacher
    ) -> tuple[Candidate, Sequence[LossSettings]]:
        """The student and its losses; it has a note that names them where they are the default."""
        if self.losses is not None:
            return student, self.losses
        supervision = supervision_of(student, context)
        outputs = supervision.by_output
        taught: Outputs = torch.empty(0)
        if len(outputs) > 1:
            first = head(context.task.train, 1)
            taught = teacher_forward(teacher, first, RequiredOutputs()).every
        losses = losses_by_default(supervision, taught)
        words = " and ".join(loss.description for loss in losses)
        kinds = ", ".join(f"{name} ({one.kind})" for name, one in outputs.items())
        if len(outputs) == 1:
            kinds = f"outputs that are {supervision.on(None).kind}"
        note = f"losses by default, for {kinds}: {words}"
        return replace(student, notes=(*student.notes, note)), losses

    def _student_of(self, candidate: Candidate, context: Context) -> Candidate:
        if self.student == "self":
            return candidate.fork()
        folded: list[str] = []
        edits: tuple[Edit, ...] = ()
        if isinstance(self.student, BlocksSettings):
            module = candidate.fork().module
            edits = _after_layers(module, candidate.edits, self.student.layers)
            keep_blocks(module, self.student.layers)
            check_blocks(module, self.student.layers, candidate.example)
            architecture = candidate.architecture and candidate.architecture.keeping(
                self.student.layers
            )
        else:
            settings = self.student.for_task(context.task)
            module = build_model(settings, context.build, context.seed)
            architecture = settings.architecture
            folded = fold_parametrizations(module)
        numerics, dropped = candidate.numerics.carried_to(layers_with_formats(module))
        notes = [
            *folded,
            *(f"formats for {pattern!r} end here: no such layer" for pattern in dropped),
        ]
        if candidate.numerics.clip_rules:
            notes.append("learned clips end here: the new student has weights of its own")
        if candidate.invariants:
            notes.append("kept zeros end here: the new student has weights of its own")
        return replace(
            candidate,
            module=module,
            architecture=architecture,
            numerics=numerics,
            invariants=(),
            notes=tuple(notes),
            edits=edits,
        )


def _after_layers(
    module: nn.Module, edits: Sequence[Edit], kept: Sequence[int]
) -> tuple[Edit, ...]:
    """The edits of a module of which some blocks will be kept, under the names of then."""
    if not edits:
        return ()
    row = blocks_of(module)
    names = [name for name, _ in module.get_submodule(row).named_children()]
    places = [place for place in kept if 0 <= place < len(names)]
    return renumbered(edits, row, {names[old]: str(new) for new, old in enumerate(places)})
