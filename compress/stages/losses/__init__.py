"""Losses in recipes: one class for each kind; its fields are the YAML keys.

Each makes a term (``compress.stages.terms``) around a function of ``compress.algorithms.losses``,
where the papers are. Adding a kind is one class and one name in ``BuiltInLoss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, get_args

from pydantic import Discriminator, Field, Tag, field_validator
from torch import Tensor

from compress.errors import StageError
from compress.references import is_reference
from compress.stages.losses.base import LossBlock, WeightSchedule
from compress.stages.losses.features import (
    AttentionMapsLoss,
    AttentionTransferLoss,
    HiddenLoss,
    HintLoss,
)
from compress.stages.losses.outputs import (
    AdversarialLoss,
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
    labelled,
    task_loss,
)
from compress.stages.losses.relations import (
    CrdLoss,
    PktLoss,
    RkdAngleLoss,
    RkdDistanceLoss,
    SimilarityLoss,
)
from compress.stages.losses.sequences import GkdLoss, SequenceLoss
from compress.stages.terms import Answer, Scene, Term

__all__ = [
    "BUILT_IN",
    "BuiltInLoss",
    "CustomLoss",
    "LabelLoss",
    "LossBlock",
    "LossSettings",
    "ResponseLoss",
    "WeightSchedule",
    "labelled",
    "task_loss",
]

BuiltInLoss = (
    ResponseLoss
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
    """A function of your own, ``module:name``, called with (student, teacher, labels)."""

    kind: str

    @field_validator("kind")
    @classmethod
    def _is_reference(cls, kind: str) -> str:
        if not is_reference(kind):
            raise ValueError(
                f"unknown loss {kind!r}; known are {', '.join(BUILT_IN)}, or module:name"
            )
        return kind

    def term(self, scene: Scene) -> Term:
        """The function as a term."""
        own = scene.context.references.resolve(self.kind, f"losses: {self.kind}")

        def function(student: Answer, teacher: Answer, labels: Tensor | None) -> Tensor:
            value = own(student.outputs, teacher.outputs, labels)
            if not (isinstance(value, Tensor) and value.shape == ()):
                given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise StageError(
                    f"the loss {self.kind!r} must return a tensor of one number, the mean over the "
                    f"batch; got {given}."
                )
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
