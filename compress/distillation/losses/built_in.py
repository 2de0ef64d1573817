"""The losses that recipes know by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import get_args

from compress.distillation.losses.base import LossBlock
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

__all__ = ["BUILT_IN", "BuiltInLoss"]

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
