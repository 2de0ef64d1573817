"""What the losses ask of the shapes that they are given."""

from __future__ import annotations

from torch import Tensor

from compress.errors import DataError

__all__ = ["class_rows", "same_batch", "same_shape"]


def same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse outputs that differ in shape.

    Raises:
        DataError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise DataError(
            f"the student's outputs are {tuple(student.shape)} and the teacher's are "
            f"{tuple(teacher.shape)}; both must answer the same question: give them the same "
            "number of classes."
        )


def same_batch(student: Tensor, teacher: Tensor) -> None:
    """Refuse tensors for different numbers of samples.

    Raises:
        DataError: they differ on axis 0.
    """
    if len(student) != len(teacher):
        raise DataError(
            f"the student gives {len(student)} samples and the teacher {len(teacher)}; both must "
            "be asked about the same batch."
        )


def class_rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``(n, classes, ...)`` of both as ``(n * positions, classes)``.

    Raises:
        DataError: the shapes differ, or there are fewer than two classes on axis 1.
    """
    same_shape(student, teacher)
    if student.dim() < 2 or student.shape[1] < 2:
        raise DataError(
            f"this loss compares scores of classes, (n, classes, ...); the outputs are "
            f"{tuple(student.shape)}: use logits-mse or l1 for values that are not classes."
        )
    return _rows(student), _rows(teacher)


def _rows(outputs: Tensor) -> Tensor:
    return outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
