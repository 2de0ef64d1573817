"""Shift: whether two samples of inputs are of one distribution, by what a model makes of them.

A classifier two-sample test (Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests") on
the outputs of a model, which are what shows most shifts of inputs (Rabanser et al. 2019, "Failing
loudly: an empirical study of methods for detecting dataset shift"). How often the classifier is
right on samples that it was not made from is a distance that can be read: a half where nothing
tells the samples apart, 1 where everything does. No torch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from compress.measure import stats
from compress.measure.named_arrays import Array, Arrays, arrays_of

__all__ = ["FEWEST", "LEVEL", "MOST", "ToldApart", "features_of", "told_apart"]

#: How often samples of one distribution are called different, at most.
LEVEL = 0.01
#: Samples of each kind: with fewer nothing is tested, and of more the first so many are used.
FEWEST, MOST = 20, 2000
# Wider outputs are projected to so many numbers at random (as in Rabanser et al.).
_MOST_FEATURES = 64


class ToldApart(NamedTuple):
    """How often a classifier tells two kinds of samples apart, on samples that it has not seen.

    ``share`` of ``held_out`` samples, half of each kind, with its 95 % interval, and the p-value of
    its being a half, by the exact binomial test to one side.
    """

    share: float
    ci95: stats.Interval
    p_value: float
    held_out: int

    @property
    def is_shown(self) -> bool:
        """Whether the two are shown to differ, at :data:`LEVEL`."""
        return self.p_value < LEVEL


def features_of(outputs: Arrays, seed: int = 0) -> Array:
    """A vector for each sample, ``(n, features)``: what a model gives, all outputs side by side.

    Values that are not finite count as 0. More than 64 numbers are projected to 64 at random.
    """
    parts = [array.reshape(len(array), -1).astype(np.float64) for array in arrays_of(outputs)]
    found = np.nan_to_num(np.concatenate(parts, axis=1), posinf=0.0, neginf=0.0)
    if found.shape[1] <= _MOST_FEATURES:
        return found
    width = found.shape[1]
    directions = np.random.default_rng(seed).standard_normal((width, _MOST_FEATURES))
    return np.asarray(found @ directions / math.sqrt(width))


def told_apart(first: Array, second: Array, seed: int = 0) -> ToldApart | None:
    """How well a classifier tells two kinds of samples apart; ``None`` with fewer than 20 of one.

    As many of each kind are drawn, at most 2,000. On half of them a linear discriminant with
    shrinkage is made from the features and their squares, and the other half is what it is tried
    on, so that the binomial test is exact.

    Args:
        first: features, ``(n, width)``.
        second: those of the other kind, ``(m, width)``.
        seed: of what is drawn.
    """
    count = min(len(first), len(second), MOST)
    if count < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    kinds = [each[rng.permutation(len(each))[:count]] for each in (first, second)]
    half = count // 2
    fitted = np.concatenate([kind[:half] for kind in kinds])
    held_out = np.concatenate([kind[half : 2 * half] for kind in kinds])
    is_second = np.repeat([False, True], half)
    right = int((_guessed(fitted, is_second, held_out) == is_second).sum())
    share = right / len(held_out)
    p_value = _at_least(right, len(held_out))
    return ToldApart(share, stats.wilson(right, len(held_out)), p_value, len(held_out))


def _guessed(fitted: Array, is_second: Array, asked: Array) -> Array:
    """Which of the samples that are ``asked`` about are of the second kind."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    mean, deviation = fitted.mean(0), fitted.std(0)
    varies = deviation > 1e-9 * np.maximum(1.0, np.abs(mean))
    if not varies.any():
        return np.zeros(len(asked), bool)

    def with_squares(features: Array) -> Array:
        standard = (features[:, varies] - mean[varies]) / deviation[varies]
        return np.concatenate([standard, np.square(standard)], axis=1)

    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    classifier.fit(with_squares(fitted), is_second)
    return np.asarray(classifier.predict(with_squares(asked)), bool)


def _at_least(right: int, count: int) -> float:
    """The probability of so many of ``count`` coin tosses, or more."""
    from scipy.stats import binom

    return float(binom.sf(right - 1, count, 0.5))
