"""Teachers: what a student learns from, by a block of a recipe or as the run provides it.

A module, an ONNX file, a callable, or several of them as one. Every teacher returns outputs for a
batch; losses on features need a module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import to_jsonable_python
from torch import Tensor, nn

from compress.candidate import Candidate
from compress.config.fields import LARGEST_FACTOR, Flag, Name, Number
from compress.config.own_parts import Role
from compress.config.own_settings import OwnSettings
from compress.config.recipe_file import RecipePath
from compress.config.references import is_reference
from compress.distillation.taught import AS_IT_IS, Reading
from compress.errors import ContractViolation, DataError, StageError
from compress.models.settings import HubSettings, ModelSettings, build_model, is_onnx
from compress.modules.inputs import Inputs, batch_size_of, copied, device_of, forward
from compress.modules.memory_format import arrange, laid_out, layout_of
from compress.modules.outputs import Outputs, as_outputs, by_name, each_output
from compress.modules.parametrizations import fold_parametrizations
from compress.quoting import shown
from compress.stage import Context, Teacher

__all__ = [
    "Ensemble",
    "EnsembleMember",
    "ModuleTeacher",
    "OutputTeacher",
    "TeacherBlock",
    "TeacherSettings",
    "build_teacher",
    "frozen_teacher",
    "identity_of",
    "mapped_outputs",
]


_NAMED = ("onnx", "output", "outputs", "callable", "arch", "weights", "hf")
_KEYS = (*_NAMED, "from_probabilities", "weight")


class TeacherSettings(OwnSettings):
    """What a student learns from: one of ``onnx``, ``callable``, ``arch`` with ``weights``, ``hf``.

    The teacher exists in training alone, and changing it changes nothing in the student.
    """

    role: ClassVar[Role] = Role("teacher", ("inputs",), _KEYS)
    named_by: ClassVar[str] = "callable"

    onnx: RecipePath | None = None
    """An ONNX file that teaches by its outputs; losses on features need a module."""
    output: Name | None = None
    """The one output of an ONNX file that teaches, where it has several."""
    outputs: dict[Name, Name] | None = Field(default=None, min_length=1)
    """The teacher's output that teaches, by the student's that learns from it, where the two have
    other names."""
    callable: Name | None = None
    """Code of your own, ``module:name``: a function of a batch and the further keys, or a class of
    these keys whose object is called with the batch."""
    arch: Name | None = None
    """The architecture of a module that teaches: built in, or ``module:name``. The keys beside it
    are its options; it needs ``weights``."""
    weights: RecipePath | None = None
    """The weights of ``arch``: a safetensors file, or a state dict of ``torch.save``."""
    hf: RecipePath | None = None
    """A folder in the form of the Hugging Face hub, with the keys that such a model has."""
    from_probabilities: Flag | Annotated[tuple[Name, ...], Field(min_length=1)] = False
    """Whether outputs are probabilities, whose logarithms are then logits; or which of several."""

    @model_serializer(mode="wrap")
    def _with_what_is_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        nulls = [option for option, value in self.options.items() if value is None]
        # What identifies a teacher whose outputs are not mapped is what it was.
        absent = () if self.outputs else ("outputs",)
        written = {key: value for key, value in handler(self).items() if key not in absent}
        return {**dict.fromkeys(nulls), **written}

    @model_validator(mode="before")
    @classmethod
    def _is_a_block(cls, value: Any) -> Any:
        if isinstance(value, dict):
            given = [value.get(key) for key in ("arch", "weights", "hf")]
            if files := [one for one in given if is_onnx(one)]:
                raise ValueError(f"of an ONNX file the key is onnx; write {{onnx: {files[0]}}}")
        if isinstance(value, (dict, BaseModel)):
            return value
        block = "{arch: resnet, weights: FILE}"
        if isinstance(value, (str, Path)):
            key = "onnx" if is_onnx(value) else "callable" if is_reference(str(value)) else None
            block = f"{{{key}: {value}}}" if key else block
        raise ValueError(f"a teacher is a block such as {block}; got {shown(str(value))}")

    @model_validator(mode="after")
    def _exactly_one(self) -> TeacherSettings:
        given = [k for k in ("onnx", "callable", "arch", "hf") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a teacher is one of onnx, callable, hf, or arch with weights; got "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.output is not None and self.onnx is None:
            raise ValueError(f"output goes with onnx, and the teacher is {given[0]}")
        if self.output is not None and self.outputs is not None:
            raise ValueError(
                "output takes one output of the file and outputs maps several; give one of the two"
            )
        if self.arch is not None and self.weights is None:
            raise ValueError("a teacher of its own architecture needs weights")
        takes_more = self.hf is not None or self.callable is not None
        others = [] if takes_more else sorted(self.options)
        if self.arch is None and (self.weights is not None or others):
            extra = others or ["weights"]
            raise ValueError(f"{extra[0]} goes with arch, and the teacher is {given[0]}")
        if self.hf is not None or self.arch is not None:
            try:
                self.model  # noqa: B018 - for its validators
            except ValidationError as error:
                first = error.errors()[0]
                place = "".join(f".{part}" for part in first["loc"][:1])
                problem = str(first["msg"]).removeprefix("Value error, ")
                raise ValueError(f"teacher{place}: {problem}") from None
        return self

    @property
    def own(self) -> tuple[str, Role] | None:
        """The key that names the user's code, a callable or an architecture, and what it is for."""
        if self.arch is not None and is_reference(self.arch):
            return "arch", ModelSettings.role
        return super().own

    @property
    def reading(self) -> Reading:
        """How its outputs are read."""
        return Reading(self.outputs or {}, self.from_probabilities)

    @property
    def model(self) -> ModelSettings | HubSettings:
        """Settings of the module, where the teacher is one."""
        options = self.options
        if self.hf is not None:
            return HubSettings.model_validate({"hf": self.hf, **options})
        assert self.arch is not None
        return ModelSettings.model_validate({"arch": self.arch, "weights": self.weights, **options})


class EnsembleMember(TeacherSettings):
    """One of several teachers; weights are relative to each other."""

    weight: Number = Field(default=1.0, gt=0, le=LARGEST_FACTOR)
    """Weight of this teacher in the mean, relative to those of the others."""


def _how_many(value: Any) -> str:
    return "several" if isinstance(value, (list, tuple)) else "one"


#: One teacher, or a list of several that are averaged.
TeacherBlock = Annotated[
    Annotated[TeacherSettings, Tag("one")]
    | Annotated[tuple[EnsembleMember, ...], Field(min_length=1), Tag("several")],
    Discriminator(_how_many),
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


def mapped_outputs(teacher: Teacher | None) -> Mapping[str, str]:
    """The outputs that a teacher's block maps: the teacher's names by the student's."""
    if isinstance(teacher, (ModuleTeacher, OutputTeacher)):
        return teacher.reading.outputs
    members = teacher.members if isinstance(teacher, Ensemble) else ()
    return {ours: name for one in members for ours, name in mapped_outputs(one).items()}


def identity_of(teacher: Teacher) -> str:
    """Identifies what a teacher computes; empty for a function of unknown content."""
    if isinstance(teacher, (ModuleTeacher, OutputTeacher, Ensemble)):
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
