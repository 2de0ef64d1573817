"""Teachers in recipes: a block that says what a student learns from, or a list of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

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

from compress.config.fields import LARGEST_FACTOR, Flag, Name, Number
from compress.config.own_parts import Role
from compress.config.own_settings import OwnSettings
from compress.config.recipe_file import RecipePath
from compress.config.references import is_reference
from compress.distillation.taught import Reading
from compress.models.settings import HubSettings, ModelSettings, is_onnx
from compress.quoting import shown

__all__ = ["EnsembleMember", "TeacherBlock", "TeacherSettings"]


_NAMED = ("onnx", "output", "outputs", "callable", "arch", "weights", "hf", "labels")
_KEYS = (*_NAMED, "from_probabilities", "weight")


class TeacherSettings(OwnSettings):
    """What a student learns from: ``onnx``, ``callable``, ``arch``, ``hf`` or ``labels``.

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
    labels: Literal[True] | None = None
    """``true``: the labels of the data, where they are what a teacher has said before the run, as
    in the task ``image-to-image``. Losses compare with them as with any teacher's outputs."""
    from_probabilities: Flag | Annotated[tuple[Name, ...], Field(min_length=1)] = False
    """Whether outputs are probabilities, whose logarithms are then logits; or which of several."""

    @model_serializer(mode="wrap")
    def _with_what_is_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        nulls = [option for option, value in self.options.items() if value is None]
        # What identifies a teacher whose outputs are not mapped is what it was.
        absent = [key for key in ("outputs", "labels") if not getattr(self, key)]
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
        kinds = ("onnx", "callable", "arch", "hf", "labels")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a teacher is one of onnx, callable, hf, or arch with weights, or labels; got "
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
