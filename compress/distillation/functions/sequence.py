"""Losses on continued texts: scores of the next token, ``(n, classes, length)``.

Word-level distillation of Kim and Rush 2016 is :func:`compress.distillation.functions.response`,
which averages over the places of dense outputs. Who continues a text, and how, is not known here
(``compress.distillation.decoding``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.distillation.functions.checks import class_rows
from compress.errors import DataError

__all__ = ["gkd", "sequence"]


def sequence(student: Tensor, decoded: Tensor) -> Tensor:
    """Cross-entropy of the student's scores on the tokens that the teacher has decoded.

    Kim and Rush 2016, "Sequence-level knowledge distillation": the likeliest sequence that a search
    finds stands for the teacher's distribution over all sequences. Averaged over tokens, where the
    paper sums over those of a sequence.

    Args:
        student: scores ``(n, classes, ...)``, each of the token that ``decoded`` has in its place.
        decoded: tokens ``(n, ...)``.

    Raises:
        DataError: tokens for other places than the scores.
    """
    if student.dim() < 2 or (len(student), *student.shape[2:]) != tuple(decoded.shape):
        raise DataError(
            f"sequence: scores of {tuple(student.shape)} are not those of tokens "
            f"{tuple(decoded.shape)}; scores are (n, classes, ...) and tokens (n, ...)."
        )
    return F.cross_entropy(student, decoded)


def gkd(student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """Generalized Jensen-Shannon divergence of two distributions, averaged over places.

    Agarwal et al. 2024, "On-policy distillation of language models: learning from self-generated
    mistakes". With the teacher's ``P`` and the student's ``Q``, and ``M = beta P + (1 - beta) Q``,
    it is ``beta KL(P || M) + (1 - beta) KL(Q || M)``. Divided by ``beta`` it becomes ``KL(P || Q)``
    as ``beta`` goes to 0, and divided by ``1 - beta`` it becomes ``KL(Q || P)`` as ``beta`` goes to
    1; these are what 0 and 1 stand for.

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    q, p = (scores.log_softmax(1) for scores in class_rows(student, teacher))
    if beta == 0:
        return _divergence(p, q)
    if beta == 1:
        return _divergence(q, p)
    mixture = torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
    return beta * _divergence(p, mixture) + (1 - beta) * _divergence(q, mixture)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """``KL(p || q)`` of rows of log-probabilities, averaged over rows."""
    return F.kl_div(q, p, reduction="batchmean", log_target=True)
