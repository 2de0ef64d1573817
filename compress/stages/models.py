"""Models in recipes: a block that says how to build one, and where its weights are.

Used for the model that enters, for students and for teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from torch import Tensor, nn

from compress.algorithms.training import isolated
from compress.candidate import Architecture, load_weights
from compress.errors import DataError, RecipeError, StageError
from compress.huggingface import (
    Encoder,
    HubTask,
    Pooling,
    load_folder,
    read_architecture,
    tokenizer_digest,
)
from compress.inputs import Inputs, batch_size_of, forward
from compress.recipe_file import RecipePath, located
from compress.stages.base import Context, Teacher
from compress.task import Task

__all__ = [
    "BlocksSettings",
    "HubSettings",
    "ModelSettings",
    "ModuleTeacher",
    "StartSettings",
    "StudentSettings",
    "TeacherSettings",
    "build_model",
    "build_teacher",
    "frozen_teacher",
]


class ModelSettings(BaseModel):
    """``arch`` is a built-in name or ``module:name``; keys beside it are passed to it.

    ``weights`` is a safetensors file, or ``null`` to start from a seeded random initialisation.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    arch: str
    weights: RecipePath | None = None

    @property
    def architecture(self) -> Architecture:
        """How to build it from nothing."""
        return Architecture(arch=self.arch, options=dict(self.model_extra or {}))

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        return self.arch

    def fill(self, module: nn.Module) -> None:
        """Load the weights, where there are any."""
        if self.weights is not None:
            load_weights(module, self.weights)

    def check(self, task: Task) -> None:
        """Nothing is known of what an architecture was made for."""


class HubSettings(BaseModel):
    """``hf`` is a folder in the form of the Hugging Face hub: a path, or ``package:NAME/...``.

    ``task`` is what is asked of the model: sentence embeddings, or the logits of its classifier.
    ``config`` changes keys of its configuration; what then no longer fits its weights starts from
    ``pretrained: false``. ``pooling`` and ``normalize`` are those of the folder where not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hf: RecipePath
    task: HubTask = "feature-extraction"
    config: dict[str, Any] = {}
    pretrained: bool = True
    pooling: Pooling | None = None
    normalize: bool | None = None

    @property
    def architecture(self) -> Architecture:
        """How to build it from nothing, without the folder.

        Raises:
            RecipeError: no such folder, or none of an encoder.
        """
        return read_architecture(
            located(self.hf),
            self.task,
            changes=self.config,
            pooling=self.pooling,
            normalize=self.normalize,
        )

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        return f"model like {self.hf.name}"

    def fill(self, module: nn.Module) -> None:
        """Load the folder's weights, unless it starts from nothing."""
        if self.pretrained:
            assert isinstance(module, Encoder)
            load_folder(module, located(self.hf))

    def check(self, task: Task) -> None:
        """See that the task's tokens mean to this model what they mean to the task.

        Raises:
            RecipeError: the folder's tokenizer is another one.
        """
        own = tokenizer_digest(located(self.hf))
        if task.tokenizer is not None and own is not None and own != task.tokenizer:
            raise RecipeError(
                f"hf: {self.hf}: its tokenizer is not that of task {task.name!r}, so that ids "
                "would mean other words to it; teacher, student and task need one tokenizer."
            )


class BlocksSettings(BaseModel):
    """``layers``: the blocks of the present model that the student keeps, counted from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        return f"model of the blocks {', '.join(map(str, self.layers))}"


def _sort_of_model(block: Any) -> str:
    # Tags are no keys of a recipe, so that messages about the keys need not tell them apart.
    if isinstance(block, str):
        return "of-none"

    def has(key: str) -> bool:
        return key in block if isinstance(block, dict) else hasattr(block, key)

    return "of-" + next((key for key in ("arch", "hf", "layers") if has(key)), "arch")


_OfArchitecture = Annotated[ModelSettings, Tag("of-arch")]
_OfFolder = Annotated[HubSettings, Tag("of-hf")]
#: A model that a recipe starts from: ``arch`` or ``hf``.
StartSettings = Annotated[_OfArchitecture | _OfFolder, Discriminator(_sort_of_model)]
#: A model that learns: ``arch``, ``hf``, ``layers``, or the present one.
StudentSettings = Annotated[
    _OfArchitecture
    | _OfFolder
    | Annotated[BlocksSettings, Tag("of-layers")]
    | Annotated[Literal["self"], Tag("of-none")],
    Discriminator(_sort_of_model),
]


class TeacherSettings(BaseModel):
    """One of ``onnx`` (a file), ``callable`` (``module:name``), ``arch`` with ``weights``, ``hf``.

    ``hf`` is a folder, with the keys that a model from a folder has.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    onnx: RecipePath | None = None
    callable: str | None = None
    arch: str | None = None
    weights: RecipePath | None = None
    hf: RecipePath | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> TeacherSettings:
        given = [k for k in ("onnx", "callable", "arch", "hf") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a teacher is one of onnx, callable, hf, or arch with weights; got "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.arch is not None and self.weights is None:
            raise ValueError("a teacher of its own architecture needs weights")
        others = [] if self.hf is not None else sorted(self.model_extra or {})
        if self.arch is None and (self.weights is not None or others):
            extra = others or ["weights"]
            raise ValueError(f"{extra[0]} goes with arch, and the teacher is {given[0]}")
        if self.hf is not None:
            try:
                self.model  # noqa: B018 - its validators speak
            except ValidationError as error:
                first = error.errors()[0]
                raise ValueError(f"teacher.{first['loc'][0]}: {first['msg']}") from None
        return self

    @property
    def model(self) -> ModelSettings | HubSettings:
        """The module that it names, where it names one."""
        options = dict(self.model_extra or {})
        if self.hf is not None:
            return HubSettings(hf=self.hf, **options)
        assert self.arch is not None
        return ModelSettings(arch=self.arch, weights=self.weights, **options)


def build_model(
    settings: ModelSettings | HubSettings, build: Callable[[Architecture], nn.Module], seed: int
) -> nn.Module:
    """The module with its weights, float32, eval and trainable.

    Raises:
        RecipeError: no such architecture or folder, or options that it does not take.
        CheckpointError: weights that cannot be read or do not fit.
    """
    with isolated(seed):
        module = build(settings.architecture)
    settings.fill(module)
    return module.float().eval().requires_grad_(True)


@dataclass(frozen=True)
class ModuleTeacher:
    """A module as a teacher: no gradients, on the device of what it is asked.

    The one kind of teacher that losses can look into.
    """

    module: nn.Module

    @torch.no_grad()
    def __call__(self, inputs: Inputs) -> Tensor:
        """What the module says about a batch."""
        device = (next(iter(inputs.values())) if isinstance(inputs, dict) else inputs).device
        first = next(self.module.parameters(), None)
        if first is not None and first.device != device:
            self.module.to(device)
        return forward(self.module, inputs)


def frozen_teacher(module: nn.Module) -> ModuleTeacher:
    """The module as a teacher: eval, no gradients, its outputs detached."""
    return ModuleTeacher(module.eval())


def build_teacher(settings: TeacherSettings | None, context: Context) -> Teacher:
    """The teacher that the settings name; the context's own where they are ``None``.

    Raises:
        RecipeError, CheckpointError, CodeReferenceError: the teacher cannot be made.
    """
    if settings is None:
        return context.teacher
    if settings.onnx is not None:
        return _checked(_onnx_teacher(settings.onnx), str(settings.onnx))
    if settings.callable is not None:
        teach = context.references.resolve(settings.callable, "teacher.callable")
        return _checked(torch.no_grad()(teach), settings.callable)
    settings.model.check(context.task)
    return frozen_teacher(build_model(settings.model, context.build, context.seed))


def _checked(teach: Callable[[Inputs], Any], name: str) -> Teacher:
    def checked(inputs: Inputs) -> Tensor:
        outputs = teach(inputs)
        expected = batch_size_of(inputs)
        if not isinstance(outputs, Tensor) or len(outputs) != expected:
            given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise StageError(
                f"the teacher {name} must return one tensor with {expected} rows, one for each "
                f"sample; got {given}."
            )
        return outputs.detach()

    return checked


def _onnx_teacher(path: Path) -> Callable[[Inputs], Tensor]:
    import onnxruntime

    from compress.lower.feeds import batches

    if not path.is_file():
        raise RecipeError(f"teacher.onnx: {path}: there is no such file.")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, which share no base
        raise DataError(f"teacher.onnx: {path}: onnxruntime cannot load it ({error}).") from error
    names = [port.name for port in session.get_inputs()]

    def teach(inputs: Inputs) -> Tensor:
        given = list(inputs) if isinstance(inputs, dict) else names[:1]
        if set(given) != set(names):
            raise DataError(
                f"teacher.onnx: {path}: the file takes the inputs {sorted(names)} and the task "
                f"gives {sorted(given)}."
            )
        rows = [session.run(None, feeds)[0][-new:] for feeds, new in batches([inputs], session)]
        return torch.from_numpy(np.concatenate(rows))

    return teach
