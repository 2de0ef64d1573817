"""What losses are made for: a student, its teacher, and a few samples to try them on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from compress.distillation.loss_function import (
    EXAMPLE,
    LossFunction,
    ModelOutputs,
    RequiredOutputs,
    compared_outputs,
    student_forward,
    teacher_forward,
)
from compress.distillation.net_layers import NetLayers
from compress.distillation.selection import Selection
from compress.distillation.teachers import ModuleTeacher
from compress.errors import DataError, SelectorError, StageError
from compress.modules.features import module_outputs, uniform_map
from compress.modules.inputs import forward
from compress.modules.outputs import Outputs, by_name
from compress.outputs import Implied
from compress.stage import Context, Teacher
from compress.training.data import Batch, head
from compress.training.output_supervision import OutputSupervision
from compress.training.rng import isolated
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
        selection: the output that a loss is about; ``None`` for the only one.
        root: the same for all losses, where this is for one.
    """

    student: nn.Module
    teacher: Teacher | None
    stage: Context
    implied: tuple[Implied, ...] = ()
    selection: Selection | None = None
    root: DistillationContext | None = None

    def about(self, loss: str, on: str | None, *, takes_every_output: bool) -> DistillationContext:
        """The same, for a loss on one output.

        Args:
            loss: its kind, for messages.
            on: the student's output; ``None`` for the only one.
            takes_every_output: whether the loss is about all of them without ``on``.

        Raises:
            DataError: the student has no such output.
        """
        selection = Selection(loss, on, self.task_supervision, takes_every_output)
        view = replace(self, selection=selection, root=self.root or self)
        shared = ("example", "all_outputs", "task_supervision", "training_outputs")
        vars(view).update({name: vars(self)[name] for name in shared if name in vars(self)})
        if on is not None and on not in self.task_supervision.by_output:
            self._check_there(loss, on)
        return view

    def _check_there(self, loss: str, on: str) -> None:
        known = by_name(self.all_outputs)
        every = {**known, **by_name(self.training_outputs)}
        if on not in every:
            more = [name for name in every if name not in known]
            also = f", and in training mode also {', '.join(more)}" if more else ""
            raise DataError(
                f"the loss {loss!r} is on {on!r}, and the student has no such output; its outputs "
                f"are {', '.join(known)}{also}."
            )

    @cached_property
    def example(self) -> Batch:
        """A few samples of the training data."""
        return replace(head(self.stage.task.train, _EXAMPLE_SAMPLES), epoch_seed=EXAMPLE)

    @cached_property
    def all_outputs(self) -> Outputs:
        """The student's outputs for the example in eval mode, without gradients."""
        with torch.no_grad():
            return forward(self.student, self.example.inputs)

    @cached_property
    def training_outputs(self) -> Outputs:
        """The student's outputs for the example in training mode, which may be more."""
        with isolated(self.stage.seed), torch.no_grad():
            return forward(self.in_training(), self.example.inputs)

    def in_training(self) -> nn.Module:
        """A copy of the student in training mode, which changes nothing of the student."""
        return copy.deepcopy(self.student).train()

    @property
    def example_outputs(self) -> Tensor:
        """The student's output for the example that the loss is about, without gradients."""
        return self.of_student(self._outputs_with(self._selection.output))

    @property
    def taught_outputs(self) -> Tensor:
        """The teacher's output for the example that the loss is about."""
        assert self.teacher is not None
        given = teacher_forward(self.teacher, self.example, RequiredOutputs())
        return self._selection.of_teacher(given).outputs

    @cached_property
    def task_supervision(self) -> Supervision:
        """What all outputs that ship are, and what labels they can be compared with."""
        inputs = self.example.inputs
        return Supervision.of(self.stage.task, self.all_outputs, self.implied, inputs)

    @property
    def supervision(self) -> OutputSupervision:
        """What the output is that a loss is about, and what labels it can be compared with."""
        self._selection.check_named()
        name = self._selection.output
        assert name is not None
        if name in self.task_supervision.by_output:
            return self.task_supervision.on(name)
        given = by_name(self._outputs_with(name))[name]
        return self.task_supervision.of_training(name, given, self.implied)

    def of_student(self, outputs: Outputs) -> Tensor:
        """Of the student's outputs, the one that the loss is about."""
        self._selection.check_named()
        return self._selection.of_student(ModelOutputs(outputs)).outputs

    def of_teacher(self, outputs: Outputs) -> Tensor:
        """Of the teacher's outputs, the one that the loss is about."""
        self._selection.check_named()
        return self._selection.of_teacher(ModelOutputs(outputs)).outputs

    def taught_name(self, outputs: Outputs) -> str | None:
        """Which of the teacher's outputs that is."""
        return self._selection.of_teacher(ModelOutputs(outputs)).on

    @property
    def _selection(self) -> Selection:
        return self.selection or Selection("loss", None, self.task_supervision)

    def _outputs_with(self, name: str | None) -> Outputs:
        """The student's outputs in eval mode, or in training mode where only these have a name."""
        if name is None or name in by_name(self.all_outputs):
            return self.all_outputs
        return self.training_outputs

    @property
    def student_layers(self) -> NetLayers:
        """The student's layers."""
        return (self.root or self)._student_layers

    @property
    def teacher_layers(self) -> NetLayers:
        """The layers of a teacher that is a module."""
        return (self.root or self)._teacher_layers

    @cached_property
    def _student_layers(self) -> NetLayers:
        inputs = self.example.inputs
        return NetLayers("the student", self.student, module_outputs(self.student, inputs), inputs)

    @cached_property
    def _teacher_layers(self) -> NetLayers:
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
        in_eval = loss.on is None or loss.on <= by_name(self.all_outputs).keys()
        net = self.student if in_eval else self.in_training()
        student = student_forward(net, net, self.example, loss.student_layers)
        teacher = student
        if self.teacher is not None:
            teacher = teacher_forward(self.teacher, self.example, RequiredOutputs.of([loss]))
        try:
            compared = compared_outputs(loss, net, net, self.example, teacher, lambda: student)
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
