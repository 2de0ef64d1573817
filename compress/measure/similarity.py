"""Similarity: how far two sets of embeddings agree on which samples are alike.

Scores of each sample, for encoders that have no labels: a model is compared with what a reference
(its teacher, say) makes of the same samples. Any two widths can be compared. Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["neighbor_overlap", "similarity_spearman"]

Array = np.ndarray[Any, Any]

# Each sample is compared with at most so many others, so that time grows with the samples only.
_MOST_OTHERS = 2048
_CHUNK = 256


def similarity_spearman(outputs: Array, reference: Array, most_others: int = _MOST_OTHERS) -> Array:
    """For each sample, the rank correlation of its similarities to the other samples, ``(n,)``.

    Similarity is the cosine. 1: both order the others alike; 0: without relation. What is not
    finite scores 0.

    Args:
        outputs: ``(n, ...)``, flattened to vectors.
        reference: ``(n, ...)`` of the same samples.
        most_others: beyond so many samples, the first ones are what all are compared with.
    """
    pairs = _similarities(outputs, reference, most_others)
    scores = [_rank_correlation(a, b) for a, b in pairs]
    return _finite_only(np.concatenate(scores), outputs)


def neighbor_overlap(
    outputs: Array, reference: Array, count: int = 10, most_others: int = _MOST_OTHERS
) -> Array:
    """For each sample, the share of its ``count`` nearest others that the two have in common.

    Args:
        outputs: ``(n, ...)``, flattened to vectors.
        reference: ``(n, ...)`` of the same samples.
        count: how many neighbors; all others, where there are fewer.
        most_others: beyond so many samples, the first ones are what all are compared with.
    """
    scores = []
    for a, b in _similarities(outputs, reference, most_others):
        near = [np.argsort(-part, axis=1, kind="stable")[:, :count] for part in (a, b)]
        common = (near[0][:, :, None] == near[1][:, None, :]).any(2)
        scores.append(common.mean(1) if common.shape[1] else np.ones(len(common)))
    return _finite_only(np.concatenate(scores), outputs)


def _similarities(
    outputs: Array, reference: Array, most_others: int
) -> Iterator[tuple[Array, Array]]:
    """Cosines of a chunk of samples with all others but themselves, by both, side by side."""
    units = [_unit(part) for part in (outputs, reference)]
    others = min(len(outputs), most_others)
    for start in range(0, len(outputs), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(outputs)))
        # Without the sample itself; one that is not among the others goes without the last.
        columns = np.arange(others - 1)[None]
        columns = columns + (columns >= np.minimum(rows, others - 1)[:, None])
        a, b = (np.take_along_axis(x[rows] @ x[:others].T, columns, 1) for x in units)
        yield a, b


def _unit(outputs: Array) -> Array:
    vectors = np.nan_to_num(outputs.reshape(len(outputs), -1).astype(np.float64))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def _rank_correlation(a: Array, b: Array) -> Array:
    count = a.shape[1]
    if count < 2:
        return np.ones(len(a))
    gaps = (_ranks(a) - _ranks(b)).astype(np.float64)
    return np.asarray(1 - 6 * (gaps**2).sum(1) / (count * (count**2 - 1.0)))


def _ranks(values: Array) -> Array:
    # Ties, which floats hardly have, go by place: equal inputs have equal ranks.
    order = np.argsort(values, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(values.shape[1])[None], 1)
    return ranks


def _finite_only(scores: Array, outputs: Array) -> Array:
    finite = np.isfinite(outputs.reshape(len(outputs), -1)).all(1)
    return np.where(finite, scores, 0.0)
