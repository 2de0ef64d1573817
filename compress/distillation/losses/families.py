"""The losses that recipes know by name, from the files of their families.

A loss in a family is a class in the family's file and in its ``LOSSES``; a family of its own is a
file, named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from compress.distillation.losses import (
    adversarial,
    contrastive,
    feature,
    image,
    label,
    logits,
    relation,
    response,
    sequence,
)
from compress.distillation.losses.base import LossBlock

__all__ = ["BUILT_IN"]

_FAMILIES = (
    response.LOSSES,
    logits.LOSSES,
    image.LOSSES,
    adversarial.LOSSES,
    feature.LOSSES,
    relation.LOSSES,
    contrastive.LOSSES,
    sequence.LOSSES,
    label.LOSSES,
)

#: The class of every kind of loss that recipes know by name.
BUILT_IN: Mapping[str, type[LossBlock]] = MappingProxyType(
    {loss.model_fields["kind"].default: loss for family in _FAMILIES for loss in family}
)
