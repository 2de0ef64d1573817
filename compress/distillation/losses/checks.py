"""Checks of the tensors that losses are given, and the precision that they compute in."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.errors import DataError
from compress.modules.inputs import at_least_float32

__all__ = ["class_rows", "in_float32", "inner", "same_batch", "same_outputs"]


def in_float32(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in float32 at least: in half precision a KL divergence can be below 0."""
    return at_least_float32(student), at_least_float32(teacher)


def same_outputs(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both outputs ``(n, ...)``, of one shape, in float32 at least.

    Raises:
        DataError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise DataError(
            f"the student's outputs are {tuple(student.shape)} and the teacher's are "
            f"{tuple(teacher.shape)}; both must have one shape: give them the same number of "
            "classes."
        )
    return in_float32(student, teacher)


def same_batch(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors ``(n, ...)``, for the same number of samples, in float32 at least.

    Raises:
        DataError: they differ on axis 0.
    """
    if len(student) != len(teacher):
        raise DataError(
            f"the student gives {len(student)} samples and the teacher {len(teacher)}; both must "
            "be for the same batch."
        )
    return in_float32(student, teacher)


def class_rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``(n, classes, ...)`` of both as ``(n * positions, classes)``.

    Raises:
        DataError: the shapes differ, or there are fewer than two classes on axis 1.
    """
    student, teacher = same_outputs(student, teacher)
    if student.dim() < 2 or student.shape[1] < 2:
        raise DataError(
            "this loss compares scores of classes, (n, classes, ...), and a softmax over one "
            f"output is 1 whatever it is; the outputs are {tuple(student.shape)}: use binary-kl "
            "for yes or no, and logits-mse or l1 for values."
        )
    return _rows(student), _rows(teacher)


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """Inner products ``(n, m)`` of rows ``(n, width)`` with others ``(m, width)``.

    Never in mixed precision's half.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ others.T


def _rows(outputs: Tensor) -> Tensor:
    return outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
