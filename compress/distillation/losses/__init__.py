"""Losses in recipes: one class for each kind; its fields are the YAML keys.

Each makes a term (``compress.distillation.context``) around a function of
``compress.distillation.functions``, where the papers are. Adding a kind is one class and one name
in ``BuiltInLoss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, get_args

from pydantic import Discriminator, Field, Tag, field_validator
from torch import Tensor

from compress.config.fields import Name
from compress.config.references import is_reference
from compress.distillation.context import Answer, Scene, Term
from compress.distillation.losses.base import LossBlock, WeightSchedule
from compress.distillation.losses.features import (
    AttentionMapsLoss,
    AttentionTransferLoss,
    HiddenLoss,
    HintLoss,
)
from compress.distillation.losses.outputs import (
    AdversarialLoss,
    BinaryKlLoss,
    DistLoss,
    DkdLoss,
    HardLoss,
    L1Loss,
    LabelLoss,
    LogitsLoss,
    PerceptualLoss,
    ResponseLoss,
    SsimLoss,
    TopKLoss,
)
from compress.distillation.losses.relations import (
    CrdLoss,
    PktLoss,
    RkdAngleLoss,
    RkdDistanceLoss,
    SimilarityLoss,
)
from compress.distillation.losses.sequences import GkdLoss, SequenceLoss
from compress.errors import StageError
from compress.outputs import CLASS_KINDS, OutputKind, Shape
from compress.quoting import shown
from compress.training.supervision import not_a_mean

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

BuiltInLoss = (
    ResponseLoss
    | BinaryKlLoss
    | LogitsLoss
    | HardLoss
    | DkdLoss
    | DistLoss
    | TopKLoss
    | L1Loss
    | SsimLoss
    | PerceptualLoss
    | AdversarialLoss
    | HintLoss
    | AttentionTransferLoss
    | HiddenLoss
    | AttentionMapsLoss
    | RkdDistanceLoss
    | RkdAngleLoss
    | SimilarityLoss
    | PktLoss
    | CrdLoss
    | SequenceLoss
    | GkdLoss
    | LabelLoss
)

#: Every kind that recipes know by name, and its class.
BUILT_IN: Mapping[str, type[LossBlock]] = MappingProxyType(
    {loss.model_fields["kind"].default: loss for loss in get_args(BuiltInLoss)}
)


class CustomLoss(LossBlock):
    """A function of your own, ``module:name``, called with (student, teacher, labels).

    Labels come as they are for a loss on such outputs: of classes int64, with -100 where there is
    none; else numbers in the outputs' shape, with NaN where there is none.
    """

    kind: Name

    @field_validator("kind")
    @classmethod
    def _is_reference(cls, kind: str) -> str:
        if not is_reference(kind):
            raise ValueError(
                f"unknown loss {shown(kind)}; known are {', '.join(BUILT_IN)}, or module:name"
            )
        return kind

    def term(self, scene: Scene) -> Term:
        """The function as a term."""
        own = scene.context.references.resolve(self.kind, f"losses: {self.kind}")
        supervision = scene.supervision

        def function(student: Answer, teacher: Answer, labels: Tensor | None) -> Tensor:
            if labels is not None:
                labels = supervision.fitted(student.outputs, labels)
            value: Tensor = own(student.outputs, teacher.outputs, labels)
            if (problem := not_a_mean(value)) is not None:
                raise StageError(f"the loss {self.kind!r} must return {problem}.")
            return value

        return Term(function, reads_labels=True)


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
