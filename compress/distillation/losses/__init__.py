"""Losses in recipes: one class for each kind; its fields are the YAML keys.

Each makes a ``LossFunction`` (``compress.distillation.loss_function``) around a function of
``compress.distillation.functions``, where the papers are. Adding a kind is one class and one name
in ``BuiltInLoss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from compress.distillation.losses.base import LossBlock, WeightSchedule
from compress.distillation.losses.built_in import BUILT_IN, BuiltInLoss
from compress.distillation.losses.outputs import (
    BinaryKlLoss,
    DistLoss,
    L1Loss,
    LabelLoss,
    LogitsLoss,
    ResponseLoss,
)
from compress.distillation.losses.own import CustomLoss
from compress.outputs import CLASS_KINDS, OutputKind, Shape

__all__ = [
    "BUILT_IN",
    "BuiltInLoss",
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


LossSettings = Annotated[
    Annotated[BuiltInLoss, Field(discriminator="kind"), Tag("built-in")]
    | Annotated[CustomLoss, Tag("custom")],
    Discriminator(_tag),
]


#: Beside labels or a response: more of it learns slower in the first hundred steps.
_DIST_WEIGHT = 0.3


def teacher_loss(kind: OutputKind) -> LossSettings:
    """The loss on a teacher's outputs that fits their kind, where none is chosen."""
    if kind in CLASS_KINDS:
        return ResponseLoss()
    if kind == "independent-logits":
        return BinaryKlLoss()
    return LogitsLoss() if kind == "values" else L1Loss()


def default_losses(kind: OutputKind, outputs: Shape, *, labeled: bool) -> tuple[LossSettings, ...]:
    """What a student is taught by where no losses are chosen: the teacher, and labels if any.

    For scores of three classes and more the teacher speaks through correlations (DIST): these were
    never worse than labels alone at equal steps and mostly better, where a divergence at the usual
    temperature of 4 is far behind in short trainings (``benchmarks/defaults.py``). Two classes have
    no correlation within a sample.

    Args:
        kind: of the outputs.
        outputs: their shape.
        labeled: whether training data have labels.
    """
    if kind == "class-scores" and outputs[1] > 2:
        return DistLoss(weight=_DIST_WEIGHT), LabelLoss() if labeled else ResponseLoss()
    return (teacher_loss(kind), LabelLoss()) if labeled else (teacher_loss(kind),)
