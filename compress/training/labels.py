"""Labels: which samples have one, and labels in the type and shape that a loss takes.

The rules are those of :mod:`compress.outputs`; this file applies them to tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.outputs import (
    CLASS_KINDS,
    LabelFacts,
    OutputKind,
    check_class_range,
    check_yes_or_no,
    label_shape,
)

__all__ = [
    "IGNORED",
    "Labels",
    "facts_of",
    "fit_labels",
    "known_labels",
    "labeled_samples",
]

#: The labels of a batch, ``(n, ...)``: a tensor, or tensors by the name of the output that they are
#: for. Samples are on axis 0.
Labels = Tensor | dict[str, Tensor]

#: The class of samples without a label, which cross-entropy ignores.
IGNORED = -100


def known_labels(
    labels: Tensor, kind: OutputKind | None, ignore_index: int | None = None
) -> Tensor:
    """Which values are labels, as a mask in the shape of ``labels``.

    NaN and ``ignore_index`` stand for no label; so do negative integers where labels are classes,
    and negative numbers where they are yes or no.

    Args:
        labels: of a batch, ``(n, ...)``.
        kind: of the outputs that they are for; ``None`` where it is not known.
        ignore_index: a value that stands for no label; ``None`` for no such value.
    """
    known = (
        ~labels.isnan() if labels.is_floating_point() else torch.ones_like(labels, dtype=torch.bool)
    )
    is_index = kind in CLASS_KINDS and not labels.is_floating_point()
    if (is_index or kind == "independent-logits") and labels.dtype != torch.bool:
        known &= ~(labels < 0)
    return known if ignore_index is None else known & (labels != ignore_index)


def labeled_samples(
    labels: Tensor, kind: OutputKind | None, ignore_index: int | None = None
) -> Tensor:
    """Which samples of a batch have a label at one position at least, ``(n,)``.

    Arguments are those of :func:`known_labels`.
    """
    known = known_labels(labels, kind, ignore_index)
    return known.flatten(1).any(1) if labels.dim() > 1 else known


def fit_labels(
    outputs: Tensor, labels: Tensor, kind: OutputKind, ignore_index: int | None = None
) -> Tensor:
    """Labels in the type and shape that a loss on the outputs takes.

    Args:
        outputs: of a model, ``(n, ...)``.
        labels: ``(n, ...)`` in any type.
        kind: of the outputs.
        ignore_index: a value that stands for no label; ``None`` for no such value.

    Returns:
        For classes, int64 with ``IGNORED`` where there is no label, or probabilities as they are;
        else numbers in the outputs' type and shape, with NaN where there is no label.

    Raises:
        DataError: labels that do not fit the outputs in shape, type or range.
    """
    known = known_labels(labels, kind, ignore_index)
    if not bool(known.any()):
        return _no_labels(outputs, kind)
    shape = label_shape(
        kind,
        tuple(outputs.shape),
        tuple(labels.shape),
        is_float=labels.is_floating_point(),
        is_bytes=labels.dtype == torch.uint8,
    )
    if kind in CLASS_KINDS and not labels.is_floating_point():
        classes = labels.long().masked_fill(~known, IGNORED)
        check_class_range(0, int(classes.max()), outputs.shape[1])
        return classes.reshape(shape)
    values = labels.to(outputs.dtype).masked_fill(~known, torch.nan)
    if kind == "independent-logits":
        given = values[known]
        check_yes_or_no(float(given.min()), float(given.max()))
    return values.reshape(shape)


def facts_of(labels: Tensor, ignore_index: int | None = None) -> LabelFacts | None:
    """Facts about labels for :func:`compress.outputs.derive_kind`; ``None`` where there are none.

    Negative integers are taken for no label.

    Args:
        labels: of some samples, ``(n, ...)``.
        ignore_index: a value that stands for no label; ``None`` for no such value.
    """
    values = labels.double().flatten()
    values = values[~values.isnan()]
    if ignore_index is not None:
        values = values[values != ignore_index]
    if not labels.is_floating_point():
        values = values[values >= 0]
    if not len(values):
        return None
    return LabelFacts(
        shape=tuple(labels.shape),
        is_float=labels.is_floating_point(),
        is_whole=bool((values == values.round()).all()),
        lowest=float(values.min()),
        highest=float(values.max()),
    )


def _no_labels(outputs: Tensor, kind: OutputKind) -> Tensor:
    # Of any type and shape that they came in.
    if kind in CLASS_KINDS:
        places = (outputs.shape[0], *outputs.shape[2:])
        return torch.full(places, IGNORED, dtype=torch.int64, device=outputs.device)
    return torch.full_like(outputs, torch.nan)
