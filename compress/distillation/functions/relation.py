"""Relation losses: on how the samples of a batch lie to each other.

They take ``(n, ...)`` from each net, flattened to vectors whose lengths need not be equal: any
layer fits any other, and so do outputs with different classes. The batch is the unit: a larger one
has more pairs, and a batch with too few samples for a relation gives 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.distillation.functions.checks import same_batch

__all__ = ["inner", "pkt", "rkd_angle", "rkd_distance", "similarity"]

_TINY = 1e-12
# Samples closer than this share of the mean squared distance count as one point.
_COINCIDE = 1e-6


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber difference of the distances between samples, over all pairs.

    Park et al. 2019, "Relational knowledge distillation", equations 4 to 6: each net's distances
    are divided by their mean. Pairs are of different samples, also in that mean.

    Raises:
        DataError: different numbers of samples.
    """
    a, b = _vectors(student, teacher)
    if len(a) < 2:
        return a.sum() * 0
    distances = [F.pdist(x) for x in (a, b)]
    a, b = (d / d.mean().clamp(min=_TINY) for d in distances)
    return F.smooth_l1_loss(a, b)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber difference of the cosines of the angles in all triples of samples.

    Park et al. 2019, "Relational knowledge distillation", equations 7 and 8. Triples are of
    different samples; one in which two of them coincide has no angle and is left out. Memory grows
    with the cube of the batch: 8 MB for each tensor at 128 samples, 0.5 GB at 512.

    Raises:
        DataError: different numbers of samples.
    """
    a, b = _vectors(student, teacher)
    (cos_a, apart_a), (cos_b, apart_b) = _angles(a), _angles(b)
    apart = apart_a & apart_b
    triples = apart[:, :, None] & apart[:, None, :] & _different(a)
    if not bool(triples.any()):
        return a.sum() * 0
    return F.smooth_l1_loss(cos_a[triples], cos_b[triples])


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the matrices of inner products, rows scaled to length 1; mean over n².

    Tung and Mori 2019, "Similarity-preserving knowledge distillation", equations 2 to 4.

    Raises:
        DataError: different numbers of samples.
    """
    a, b = (F.normalize(inner(x, x)) for x in _vectors(student, teacher))
    return F.mse_loss(a, b)


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of the probabilities with which samples would choose each other.

    Passalis and Tefas 2018, "Learning deep representations with probabilistic knowledge transfer":
    affinity is the cosine, shifted to between 0 and 1, and a sample chooses among the others in
    proportion. Summed over the others and averaged over samples (the authors' code also counts the
    sample itself, and averages over n², which makes its values about n times smaller).

    Raises:
        DataError: different numbers of samples.
    """
    a, b = _vectors(student, teacher)
    if len(a) < 2:
        return a.sum() * 0
    return F.kl_div(_choices(a), _choices(b), reduction="batchmean", log_target=True)


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """The inner products of all rows with all others, not in mixed precision's half."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ others.T


def _vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student, teacher = same_batch(student, teacher)
    return student.reshape(len(student), -1), teacher.reshape(len(teacher), -1)


def _angles(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine at j between i and k, as ``[j, i, k]``, and which pairs lie apart.

    From inner products, so that no tensor holds the vectors of all pairs.
    """
    centered = vectors - vectors.mean(0)
    gram = inner(centered, centered)
    norms = gram.diagonal()
    squares = norms[:, None] + norms - 2 * gram
    apart = (squares > _COINCIDE * squares.mean()) & _different(gram)
    lengths = torch.where(apart, squares, 1.0).sqrt()
    products = gram[None] - gram[:, :, None] - gram[:, None, :] + norms[:, None, None]
    return products / (lengths[:, :, None] * lengths[:, None, :]), apart


def _choices(vectors: Tensor) -> Tensor:
    """Logarithm of the probability with which each sample chooses each other, ``(n, n - 1)``."""
    unit = F.normalize(vectors)
    affinity = ((inner(unit, unit) + 1) / 2)[_different(unit)].view(len(unit), -1).clamp(min=1e-7)
    return (affinity / affinity.sum(1, keepdim=True)).log()


def _different(rows: Tensor) -> Tensor:
    """Which pairs of rows are of different ones, ``(n, n)``."""
    return ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
