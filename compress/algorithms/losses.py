"""Distillation losses: functions of what the student and the teacher say about the same batch.

Outputs are ``(n, classes)`` or ``(n, classes, ...)`` for dense predictions; every loss averages
over samples and positions and gives a scalar.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from compress.errors import DataError

__all__ = ["logits_mse", "response"]


def response(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """KL divergence of softened class probabilities, times the temperature squared.

    The square keeps the size of the gradient independent of the temperature
    (Hinton et al. 2015, "Distilling the knowledge in a neural network").

    Raises:
        DataError: the shapes differ.
    """
    _same_shape(student, teacher)
    soft_student = F.log_softmax(student / temperature, dim=1)
    soft_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(soft_student, soft_teacher, reduction="none", log_target=True).sum(1)
    return divergence.mean() * temperature**2


def logits_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the raw outputs (Ba and Caruana 2014, "Do deep nets...").

    Raises:
        DataError: the shapes differ.
    """
    _same_shape(student, teacher)
    return F.mse_loss(student, teacher)


def _same_shape(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise DataError(
            f"the student's outputs are {tuple(student.shape)} and the teacher's are "
            f"{tuple(teacher.shape)}; both must answer the same question: give them the same "
            "number of classes."
        )
