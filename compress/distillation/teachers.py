"""Teachers: what a student learns from, by a block of a recipe or as the run provides it.

A module, an ONNX file, a callable, or several of them as one. Every teacher returns outputs for a
batch; losses on features need a module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor, nn

from compress.candidate import Candidate
from compress.distillation.taught import AS_IT_IS, Reading
from compress.distillation.teacher_settings import EnsembleMember, TeacherSettings
from compress.errors import ContractViolation, DataError, StageError
from compress.models.settings import build_model
from compress.modules.inputs import Inputs, batch_size_of, copied, device_of, forward
from compress.modules.memory_format import arrange, laid_out, layout_of
from compress.modules.outputs import Outputs, as_outputs, by_name, each_output
from compress.modules.parametrizations import fold_parametrizations
from compress.stage import Context, Teacher
from compress.training.labels import Labels

__all__ = [
    "Ensemble",
    "LabelTeacher",
    "ModuleTeacher",
    "OutputTeacher",
    "build_teacher",
    "frozen_teacher",
    "identity_of",
    "mapped_outputs",
]


@dataclass(frozen=True)
class ModuleTeacher:
    """A module as a teacher, the one kind that has features for losses.

    Args:
        module: in eval mode; it is moved to the device of its inputs.
        layout: memory format that its inputs are brought to.
        reading: how its outputs are read.
    """

    module: nn.Module
    layout: torch.memory_format = torch.contiguous_format
    reading: Reading = AS_IT_IS

    @torch.no_grad()
    def __call__(self, inputs: Inputs) -> Outputs:
        """The module's outputs, ``(n, ...)`` each, for a batch, without gradients.

        Raises:
            RecipeError: one is not there, or they should be probabilities, and are not.
        """
        device = device_of(inputs)
        first = next(self.module.parameters(), None)
        if first is not None and first.device != device:
            self.module.to(device)
        # A student's batch may lie as this module cannot take it.
        return self.reading.read(forward(self.module, laid_out(inputs, self.layout)), "")

    @property
    def identity(self) -> str:
        """A digest of its weights and structure."""
        content = Candidate(self.module, torch.empty(0)).fingerprint
        digest = hashlib.blake2b(f"{content}{self.module}".encode(), digest_size=16).hexdigest()
        return f"{digest}{self.reading.suffix}"


@dataclass(frozen=True)
class OutputTeacher:
    """A teacher of which only the outputs are known: an ONNX file, or a callable.

    Args:
        compute: its outputs for a batch.
        name: of the file or the callable.
        content: identifies it: a digest of the file's bytes, or the callable's name and options.
        reading: how its outputs are read.
        softmax: returns, of an output by the teacher's name, a clause that says that it is a
            softmax, where that is known.
    """

    compute: Callable[[Inputs], Any]
    name: str
    content: str
    reading: Reading = AS_IT_IS
    softmax: Callable[[str | None], str | None] = lambda _: None

    @torch.no_grad()
    def __call__(self, inputs: Inputs) -> Outputs:
        """Its outputs, ``(n, ...)`` each, for a batch, without gradients.

        Raises:
            StageError: they are no tensors with a row for each sample.
            RecipeError: one is not there, or they should be probabilities, and are not.
        """
        given, expected, device = self.compute(inputs), batch_size_of(inputs), device_of(inputs)
        try:
            outputs = as_outputs(given)
        except ContractViolation:
            raise self._without_rows(expected, type(given).__name__) from None
        for name, one in by_name(outputs).items():
            if one.shape[:1] != (expected,):
                of = f" for {name!r}" if isinstance(outputs, dict) else ""
                raise self._without_rows(expected, f"{tuple(one.shape)}{of}")
        outputs = each_output(outputs, lambda one: one.detach().to(device))
        return self.reading.read(outputs, f" {self.name}")

    def _without_rows(self, expected: int, given: str) -> StageError:
        return StageError(
            f"the teacher {self.name} must return one tensor with {expected} rows, one for each "
            f"sample, or several by name; got {given}."
        )

    @property
    def identity(self) -> str:
        """A digest of the file's bytes, or the callable's name and options."""
        return f"{self.content}{self.reading.suffix}"


@dataclass(frozen=True)
class Ensemble:
    """Several teachers as one, whose outputs are the weighted mean of theirs.

    The softmax of a mean of logits is, at every temperature, the normalized geometric mean of the
    teachers' distributions, one of the two means that Hinton et al. 2015 give for an ensemble. The
    other, of probabilities, is of one temperature only, and means nothing for outputs that are
    values.

    Args:
        members: the teachers.
        weights: of the members, relative to each other.
    """

    members: tuple[Teacher, ...]
    weights: tuple[float, ...]

    def __call__(self, inputs: Inputs) -> Outputs:
        """The weighted mean of the members' outputs for a batch, by name, ``(n, ...)`` each.

        Raises:
            DataError: their outputs differ in name or shape.
        """
        given = [member(inputs) for member in self.members]
        if all(len(by_name(one)) == 1 for one in given):
            return self._mean([next(iter(by_name(one).values())) for one in given], "outputs")
        named = [by_name(one) for one in given]
        for number, one in enumerate(named[1:], start=1):
            if one.keys() != named[0].keys():
                raise DataError(
                    f"teacher[0] gives {', '.join(named[0])} and teacher[{number}] gives "
                    f"{', '.join(one)}; teachers that are averaged must have outputs of the same "
                    "names: map them in their blocks, with outputs: {STUDENT'S: TEACHER'S}."
                )
        return {
            name: self._mean([one[name] for one in named], f"outputs {name!r}") for name in named[0]
        }

    def _mean(self, outputs: Sequence[Tensor], what: str) -> Tensor:
        for number, one in enumerate(outputs[1:], start=1):
            if one.shape != outputs[0].shape:
                raise DataError(
                    f"the {what} of teacher[0] are {tuple(outputs[0].shape)} and those of "
                    f"teacher[{number}] are {tuple(one.shape)}; teachers that are averaged must "
                    "have outputs of one shape: give them the same number of classes."
                )
        total = sum(self.weights)
        normalized = [weight / total for weight in self.weights]
        parts = [weight * one for weight, one in zip(normalized, outputs, strict=True)]
        return torch.stack(parts).sum(0)

    @property
    def identity(self) -> str:
        """The identities of its members, and their weights."""
        return str([*map(identity_of, self.members), *self.weights])


@dataclass(frozen=True)
class LabelTeacher:
    """The labels of each batch, for losses that compare with a teacher's outputs.

    It is asked for the labels of a batch (:meth:`for_labels`), of which its inputs say nothing.
    """

    def for_labels(self, labels: Labels | None) -> Outputs:
        """The labels as a teacher's outputs, ``(n, ...)`` each.

        Raises:
            DataError: there are none, or they are the indices of classes.
        """
        if labels is None:
            raise DataError(
                "the teacher is the labels of the data, and a batch came without labels; give a "
                "task with labels, or another teacher."
            )
        for one in by_name(labels).values():
            if not one.is_floating_point():
                raise DataError(
                    f"the teacher is the labels of the data, and these are {one.dtype}, which no "
                    "net's outputs are; labels that are values or images teach, and for classes "
                    "there is the loss `label`."
                )
        return labels

    def __call__(self, inputs: Inputs) -> Outputs:
        """Inputs say nothing of labels.

        Raises:
            StageError: always.
        """
        raise StageError(
            "the teacher is the labels of the data, which cannot be asked for by inputs alone: it "
            "goes with losses on outputs such as l1, and not among several teachers."
        )

    @property
    def identity(self) -> str:
        """Labels are part of the data, whose digest is in every key."""
        return "labels"


def mapped_outputs(teacher: Teacher | None) -> Mapping[str, str]:
    """The outputs that a teacher's block maps: the teacher's names by the student's."""
    if isinstance(teacher, (ModuleTeacher, OutputTeacher)):
        return teacher.reading.outputs
    members = teacher.members if isinstance(teacher, Ensemble) else ()
    return {ours: name for one in members for ours, name in mapped_outputs(one).items()}


def identity_of(teacher: Teacher) -> str:
    """Identifies what a teacher computes; empty for a function of unknown content."""
    if isinstance(teacher, (ModuleTeacher, OutputTeacher, Ensemble, LabelTeacher)):
        return teacher.identity
    return ""


def frozen_teacher(module: nn.Module, example: Inputs | None = None) -> ModuleTeacher:
    """A module as a teacher, in eval mode and without gradients.

    Its weights are brought, in place, to the memory format that training uses: in another they
    would be converted in every forward pass. Half precision becomes float32, in which losses are
    computed.

    Args:
        module: the teacher.
        example: a few samples, to find the memory format that it runs fastest in; ``None`` for the
            contiguous one.
    """
    module.float()
    layout = torch.contiguous_format if example is None else layout_of(module, example)
    arrange(module, layout)
    return ModuleTeacher(module.eval(), layout)


def build_teacher(
    settings: TeacherSettings | Sequence[EnsembleMember] | None, context: Context
) -> Teacher:
    """Build the teacher of a stage.

    Args:
        settings: of one teacher or several; ``None`` for the context's own.
        context: what the stage was given.

    Raises:
        RecipeError, CheckpointError, CodeReferenceError: the teacher cannot be built.
    """
    if settings is None:
        return context.teacher
    if not isinstance(settings, TeacherSettings):
        members = tuple(build_teacher(member, context) for member in settings)
        return Ensemble(members, tuple(member.weight for member in settings))
    if settings.labels:
        return LabelTeacher()
    if settings.onnx is not None:
        from compress.distillation.onnx_teacher import open_teacher  # which loads onnxruntime

        wanted = () if settings.output is None else (settings.output,)
        file = open_teacher(settings.onnx, tuple((settings.outputs or {}).values()) or wanted)
        reading = settings.reading
        compute = replace(file, is_named=reading.needs_names)
        return OutputTeacher(compute, str(file.path), file.identity, reading, file.softmax)
    if settings.callable is not None:
        name, where = settings.callable, "teacher.callable"
        own = settings.part(context.references, where).bound(settings.options, where)
        content = name
        if settings.options:
            content += json.dumps(to_jsonable_python(settings.options), sort_keys=True)
        # A copy: the callable may write to its batch, which the student is given as well.
        return OutputTeacher(lambda inputs: own(copied(inputs)), name, content, settings.reading)
    module = build_model(settings.model.for_task(context.task), context.build, context.seed)
    fold_parametrizations(module)
    return replace(frozen_teacher(module, context.origin.example), reading=settings.reading)
