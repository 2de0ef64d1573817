"""Losses in recipes: one file for each family, with its functions and their settings.

The settings of a loss are a class whose fields are the YAML keys; it makes a ``LossFunction``
(``compress.distillation.loss_function``) for a student and a teacher. The function beside it has
the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Discriminator, Field, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema

from compress.distillation.losses.base import LossBlock, WeightSchedule
from compress.distillation.losses.families import BUILT_IN
from compress.distillation.losses.image import L1Loss
from compress.distillation.losses.label import LabelLoss
from compress.distillation.losses.logits import BinaryKlLoss, LogitsLoss
from compress.distillation.losses.own import CustomLoss
from compress.distillation.losses.response import DistLoss, ResponseLoss
from compress.outputs import CLASS_KINDS, OutputKind, Shape

__all__ = [
    "BUILT_IN",
    "CustomLoss",
    "LabelLoss",
    "LossBlock",
    "LossSettings",
    "ResponseLoss",
    "WeightSchedule",
    "default_losses",
    "teacher_loss",
]


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "built-in" if kind in BUILT_IN else "custom"


@dataclass(frozen=True)
class _ByKind:
    """Reads a block by its kind: as a built-in loss, or else as one of your own."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        built_in: Any = reduce(or_, BUILT_IN.values())
        return handler.generate_schema(
            Annotated[
                Annotated[built_in, Field(discriminator="kind"), Tag("built-in")]
                | Annotated[CustomLoss, Tag("custom")],
                Discriminator(_tag),
            ]
        )


#: One entry of ``losses`` in a recipe.
LossSettings = Annotated[LossBlock, _ByKind()]


#: In the default: a larger weight learns slower in the first hundred steps.
_DIST_WEIGHT = 0.3


def teacher_loss(kind: OutputKind) -> LossSettings:
    """The default loss on a teacher's outputs of a kind."""
    if kind in CLASS_KINDS:
        return ResponseLoss()
    if kind == "independent-logits":
        return BinaryKlLoss()
    return LogitsLoss() if kind == "values" else L1Loss()


def default_losses(kind: OutputKind, outputs: Shape, *, labeled: bool) -> tuple[LossSettings, ...]:
    """The losses where a recipe names none: one on the teacher's outputs, and the labels if any.

    For scores of three classes and more, that on the teacher's outputs is DIST: it was never worse
    than labels alone at equal steps and mostly better, where a divergence at the usual temperature
    of 4 is far behind in short trainings (``benchmarks/defaults.py``). Two classes have no
    correlation within a sample.

    Args:
        kind: of the outputs.
        outputs: their shape, ``(n, ...)``.
        labeled: whether the training data have labels.
    """
    if kind == "class-scores" and outputs[1] > 2:
        return DistLoss(weight=_DIST_WEIGHT), LabelLoss() if labeled else ResponseLoss()
    return (teacher_loss(kind), LabelLoss()) if labeled else (teacher_loss(kind),)
