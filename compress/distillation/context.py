"""What losses are made for: a student, its teacher, and a few samples to try them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from compress.distillation.loss_function import (
    EXAMPLE,
    LossFunction,
    RequiredOutputs,
    compared_outputs,
    student_forward,
    teacher_forward,
)
from compress.distillation.net_layers import NetLayers
from compress.distillation.teachers import ModuleTeacher
from compress.errors import DataError, SelectorError, StageError
from compress.modules.features import module_outputs, uniform_map
from compress.modules.inputs import forward
from compress.modules.outputs import one_output
from compress.outputs import OutputKind
from compress.stage import Context, Teacher
from compress.training.data import Batch, head
from compress.training.output_supervision import OutputSupervision
from compress.training.supervision import Supervision

__all__ = ["DistillationContext"]

_EXAMPLE_SAMPLES = 2


@dataclass(frozen=True)
class DistillationContext:
    """What losses are made for.

    Args:
        student: in eval mode while losses are made.
        teacher: ``None`` where no loss needs one.
        stage: what the stage that trains was given.
        implied: what the outputs are according to the losses, where the task does not say.
    """

    student: nn.Module
    teacher: Teacher | None
    stage: Context
    implied: tuple[OutputKind, ...] = ()

    @cached_property
    def example(self) -> Batch:
        """A few samples of the training data."""
        return replace(head(self.stage.task.train, _EXAMPLE_SAMPLES), epoch_seed=EXAMPLE)

    @cached_property
    def example_outputs(self) -> Tensor:
        """The student's outputs for the example, ``(n, ...)``, without gradients."""
        with torch.no_grad():
            return one_output(forward(self.student, self.example.inputs))

    @cached_property
    def task_supervision(self) -> Supervision:
        """What all outputs are, and what labels they can be compared with."""
        inputs = self.example.inputs
        return Supervision.of(self.stage.task, self.example_outputs, self.implied, inputs)

    @property
    def supervision(self) -> OutputSupervision:
        """What the output is that a loss is about, and what labels it can be compared with."""
        return self.task_supervision.on(None)

    @cached_property
    def student_layers(self) -> NetLayers:
        """The student's layers."""
        inputs = self.example.inputs
        return NetLayers("the student", self.student, module_outputs(self.student, inputs), inputs)

    @cached_property
    def teacher_layers(self) -> NetLayers:
        """The layers of a teacher that is a module."""
        module = self._teacher_module
        assert module is not None
        inputs = self.example.inputs
        return NetLayers("the teacher", module, module_outputs(module, inputs), inputs)

    def teacher_module(self, kind: str) -> nn.Module:
        """The teacher as a module.

        Args:
            kind: of the loss that needs it, for the message.

        Raises:
            StageError: the teacher is not a module.
        """
        if self._teacher_module is None:
            raise StageError(
                f"the loss {kind!r} looks inside the teacher, which is no module: of an ONNX file, "
                "a callable or several teachers only the outputs are known; give one with arch and "
                "weights, or use a loss of outputs such as response or rkd-distance."
            )
        return self._teacher_module

    def pairs(
        self, kind: str, student: Sequence[str], teacher: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Pairs of a layer of the student and the layer of the teacher that it learns from.

        One to one where there are as many of each; else TinyBERT's uniform map.

        Args:
            kind: of the loss, for messages.
            student: paths or globs of the student's layers.
            teacher: paths or globs of the teacher's.

        Raises:
            SelectorError: a pattern that matches nothing, or too few layers of the teacher's.
            StageError: the teacher is not a module.
        """
        self.teacher_module(kind)
        try:
            students = self.student_layers.choose(student)
            teachers = self.teacher_layers.choose(teacher)
            indices = uniform_map(len(students), len(teachers))
        except ValueError as error:
            raise self.misfit(kind, str(error)) from None
        return [(name, teachers[index]) for name, index in zip(students, indices, strict=True)]

    def misfit(self, kind: str, problem: str) -> SelectorError:
        """An error about the layers that a loss names; it lists those of both nets.

        Args:
            kind: of the loss.
            problem: what is wrong, as a clause.
        """
        return SelectorError(
            f"the loss {kind!r}: {problem.rstrip('.')}; {self.student_layers}; "
            f"{self.teacher_layers}."
        )

    def dry_run(self, kind: str, loss: LossFunction) -> LossFunction:
        """Compute a loss for the example, to see that student and teacher fit it; the same loss.

        Args:
            kind: of the loss, for messages.
            loss: to be tried.

        Raises:
            SelectorError: layers whose features do not fit together.
            DataError: outputs that do not fit together.
            StageError: the value does not depend on the student's outputs.
        """
        student = student_forward(self.student, self.student, self.example, loss.student_layers)
        teacher = student
        if self.teacher is not None:
            teacher = teacher_forward(self.teacher, self.example, RequiredOutputs.of([loss]))
        try:
            compared = compared_outputs(
                loss, self.student, self.student, self.example, teacher, lambda: student
            )
            value = loss.compute(*compared, self.example.labels)
        except DataError as error:
            if not loss.teacher_layers:
                raise
            raise self.misfit(kind, str(error)) from error
        if not value.requires_grad:
            raise StageError(
                f"the loss {kind!r} does not depend on the student's outputs, so that nothing can "
                "be learned from it; it must be computed from them with torch."
            )
        return loss

    @property
    def _teacher_module(self) -> nn.Module | None:
        return self.teacher.module if isinstance(self.teacher, ModuleTeacher) else None
