"""compresskit: distill, quantize and prune in any order, and see what each step bought.

The public names; each is imported when it is first asked for, so that importing this costs nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # importing typing would cost more than all the rest of this file
if TYPE_CHECKING:
    from typing import Any

    from compress.budget import Budget
    from compress.candidate import Architecture, Candidate
    from compress.data.fields import Fields
    from compress.errors import CompressError
    from compress.measure.local import LocalTarget
    from compress.measure.remote.adb import AdbTarget
    from compress.measure.remote.ssh import SshTarget
    from compress.measure.replay import ReplayTarget
    from compress.measure.target import Target
    from compress.metrics import MetricOn
    from compress.notebook import Record
    from compress.preprocessing import (
        ArrayPreprocessing,
        ImagePreprocessing,
        TextPreprocessing,
    )
    from compress.recipe import Recipe
    from compress.stages import (
        Context,
        DistillStage,
        Effect,
        PruneStage,
        QuantizeStage,
        Stage,
        TrainStage,
    )
    from compress.task import Task

__version__ = "0.1.0"

_HOMES = {
    "AdbTarget": "compress.measure.remote.adb",
    "Architecture": "compress.candidate",
    "ArrayPreprocessing": "compress.preprocessing",
    "Budget": "compress.budget",
    "Candidate": "compress.candidate",
    "CompressError": "compress.errors",
    "Context": "compress.stages",
    "DistillStage": "compress.stages",
    "Effect": "compress.stages",
    "Fields": "compress.data.fields",
    "ImagePreprocessing": "compress.preprocessing",
    "LocalTarget": "compress.measure.local",
    "MetricOn": "compress.metrics",
    "PruneStage": "compress.stages",
    "QuantizeStage": "compress.stages",
    "Recipe": "compress.recipe",
    "Record": "compress.notebook",
    "ReplayTarget": "compress.measure.replay",
    "SshTarget": "compress.measure.remote.ssh",
    "Stage": "compress.stages",
    "Target": "compress.measure.target",
    "Task": "compress.task",
    "TextPreprocessing": "compress.preprocessing",
    "TrainStage": "compress.stages",
}

__all__ = [
    "AdbTarget",
    "Architecture",
    "ArrayPreprocessing",
    "Budget",
    "Candidate",
    "CompressError",
    "Context",
    "DistillStage",
    "Effect",
    "Fields",
    "ImagePreprocessing",
    "LocalTarget",
    "MetricOn",
    "PruneStage",
    "QuantizeStage",
    "Recipe",
    "Record",
    "ReplayTarget",
    "SshTarget",
    "Stage",
    "Target",
    "Task",
    "TextPreprocessing",
    "TrainStage",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
