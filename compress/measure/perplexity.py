"""Language: how well next tokens are predicted, and how long two nets generate the same text.

Scores of each sample, where a sample is a window of tokens. Numpy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["bits_per_token", "continuation_agreement", "greedy_continuations", "perplexity"]

Array = np.ndarray[Any, Any]

#: Scores of the token after each place, ``(n, classes, length)``, for tokens ``(n, length)``.
Predict = Callable[[Array], Array]


def bits_per_token(outputs: Array, labels: Array) -> Array:
    """Mean information of the true next tokens of each sample, in bits, ``(n,)``.

    The base-2 logarithm of a sample's perplexity. Places whose label is negative do not count; a
    sample without any other has 0.

    Args:
        outputs: scores ``(n, classes, length)``.
        labels: next tokens ``(n, length)``.
    """
    scores = outputs.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    chances = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    true = np.take_along_axis(chances, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
    counts = labels >= 0
    bits = -(true * counts).sum(axis=1) / np.log(2)
    return np.asarray(bits / np.maximum(counts.sum(axis=1), 1))


def perplexity(bits: float) -> float:
    """Perplexity of so many bits per token: among how many equally likely tokens a net chooses."""
    return float(2.0**bits)


def greedy_continuations(predict: Predict, windows: Array, start: int, count: int) -> Array:
    """The likeliest token, one after another, ``(n, count)``.

    Args:
        predict: called with complete windows, once for each token.
        windows: ``(n, length)``; left as they are.
        start: how many tokens at the front of each are given.
        count: how many to add; ``start + count`` is at most ``length``.
    """
    texts = windows.copy()
    for place in range(start, start + count):
        texts[:, place] = predict(texts)[:, :, place - 1].argmax(axis=1)
    return texts[:, start : start + count]


def continuation_agreement(tokens: Array, reference: Array) -> Array:
    """For each sample, the share of its continuation before the first token that differs, ``(n,)``.

    What comes after that continues another text, and equal tokens there mean little.

    Args:
        tokens: ``(n, count)``.
        reference: ``(n, count)``, of the same prompts.
    """
    same = np.logical_and.accumulate(tokens == reference, axis=1)
    return np.asarray(same.mean(axis=1, dtype=np.float64))
