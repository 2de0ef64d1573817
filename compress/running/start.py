"""What a run begins with: a candidate, however its model was given."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from torch import nn

from compress.candidate import Candidate, Inputs
from compress.errors import RecipeError
from compress.measure.target import Mode, Target
from compress.models.settings import is_onnx, uses_of_onnx
from compress.quoting import shown
from compress.task import Task
from compress.training.data import head

__all__ = ["candidate_from", "check_run_arguments", "example_of"]

_EXAMPLE_SAMPLES = 4


def check_run_arguments(workdir: object, targets: object, mode: object, imports: object) -> None:
    """See that a call of ``run`` is what it takes, before anything is done.

    Raises:
        RecipeError: it is not; the sentence says what is taken.
    """
    if targets is not None:
        given = list(targets) if isinstance(targets, (list, tuple)) else []
        if not given or not all(isinstance(one, Target) for one in given):
            raise RecipeError(
                "run takes a list of targets, such as targets=[LocalTarget()]; got "
                f"{shown(targets)}."
            )
    if not (workdir is None or isinstance(workdir, (str, Path))):
        raise RecipeError(f"workdir is the path of a folder; got {shown(workdir)}.")
    if mode not in get_args(Mode):
        raise RecipeError(f"mode is one of {', '.join(get_args(Mode))}; got {shown(mode)}.")
    if isinstance(imports, str):
        raise RecipeError(f"imports is a list of modules: [{imports!r}].")


def candidate_from(model: object, task: object) -> Candidate:
    """A candidate as it is, or one around a copy of a module.

    Raises:
        RecipeError: it is neither, or the task is none.
    """
    if not isinstance(task, Task):
        raise RecipeError(f"run takes a compress.Task after the model; got {shown(task)}.")
    if isinstance(model, Candidate):
        return model
    if isinstance(model, nn.Module):
        return Candidate.of(model, example_of(task))
    cure = "run takes an nn.Module, or a Candidate"
    if is_onnx(model):
        raise RecipeError(f"an ONNX file cannot begin a recipe yet: {uses_of_onnx(model)}; {cure}.")
    raise RecipeError(f"{cure}; got {shown(model)}.")


def example_of(task: Task) -> Inputs:
    """The first validation samples, which stand for all inputs where a model is looked at."""
    return head(task.validation, min(_EXAMPLE_SAMPLES, len(task.validation))).inputs
