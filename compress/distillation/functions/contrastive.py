"""Contrastive distillation: the student's view of a sample must find the teacher's view of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.distillation.functions.checks import same_batch
from compress.distillation.functions.relation import inner
from compress.errors import DataError

__all__ = ["Embedding", "crd"]


def crd(student: Tensor, teacher: Tensor, temperature: float = 0.07) -> Tensor:
    """How badly embeddings ``(n, width)`` of the same samples find each other in the batch.

    Tian et al. 2020, "Contrastive representation distillation", in the variant with in-batch
    negatives: InfoNCE (van den Oord et al. 2018) over the other samples of the batch, once from the
    student's side and once from the teacher's, averaged. The authors' own code draws 16384
    negatives from a memory bank of the whole data set, of other classes than the sample's; here
    there is no memory and there are no labels, so a larger batch is what gives more negatives.
    0 for a batch of one.

    Raises:
        DataError: the shapes differ.
    """
    student, teacher = same_batch(student, teacher)
    if student.shape != teacher.shape:
        raise DataError(
            f"crd: the student's embedding is {tuple(student.shape)} and the teacher's is "
            f"{tuple(teacher.shape)}; both need the same width."
        )
    scores = inner(F.normalize(student), F.normalize(teacher)) / temperature
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


class Embedding(nn.Module):
    """The two learned linear maps of CRD, from each net's vectors to a shared space."""

    def __init__(self, student_width: int, teacher_width: int, width: int) -> None:
        super().__init__()
        self.student = nn.Linear(student_width, width)
        self.teacher = nn.Linear(teacher_width, width)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings ``(n, width)`` of vectors."""
        return self.student(student), self.teacher(teacher)
