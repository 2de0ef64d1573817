"""Models in recipes: a block that says how to build one, and where its weights are.

Used for the model that enters, for students and for teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from compress.algorithms.training import isolated
from compress.candidate import Architecture, load_weights
from compress.errors import DataError, RecipeError, StageError
from compress.inputs import Inputs, batch_size_of, device_of, forward, to_device
from compress.recipe_file import RecipePath
from compress.stages.base import Context, Teacher

__all__ = [
    "ModelSettings",
    "ModuleTeacher",
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


class TeacherSettings(BaseModel):
    """One of ``onnx`` (a file), ``callable`` (``module:name``), or ``arch`` with ``weights``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    onnx: RecipePath | None = None
    callable: str | None = None
    arch: str | None = None
    weights: RecipePath | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> TeacherSettings:
        given = [k for k in ("onnx", "callable", "arch") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a teacher is one of onnx, callable or arch with weights; got "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.arch is not None and self.weights is None:
            raise ValueError("a teacher of its own architecture needs weights")
        if self.arch is None and (self.weights is not None or self.model_extra):
            extra = sorted(self.model_extra or {}) or ["weights"]
            raise ValueError(f"{extra[0]} goes with arch, and the teacher is {given[0]}")
        return self


def build_model(
    settings: ModelSettings, build: Callable[[Architecture], nn.Module], seed: int
) -> nn.Module:
    """The module with its weights, float32, eval and trainable.

    Raises:
        RecipeError: no such architecture, or options that it does not take.
        CheckpointError: weights that cannot be read or do not fit.
    """
    with isolated(seed):
        module = build(settings.architecture)
    if settings.weights is not None:
        load_weights(module, settings.weights)
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
        device = device_of(inputs)
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
    assert settings.arch is not None
    options = dict(settings.model_extra or {})
    model = ModelSettings(arch=settings.arch, weights=settings.weights, **options)
    return frozen_teacher(build_model(model, context.build, context.seed))


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
        return outputs.detach().to(device_of(inputs))

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
        there = to_device(inputs, torch.device("cpu"))
        rows = [session.run(None, feeds)[0][-new:] for feeds, new in batches([there], session)]
        return torch.from_numpy(np.concatenate(rows))

    return teach
