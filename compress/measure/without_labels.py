"""Accuracy without labels: what a classifier's own confidence says of samples that nobody labeled.

The estimate is average thresholded confidence (Garg et al. 2022, "Leveraging unlabeled data to
predict out-of-distribution performance"): the share of samples that the model is surer of than of
a threshold, which is set on labeled validation samples so that there it is the accuracy. How far
that is off where inputs change cannot be known of changes that nobody has seen; it is tried out on
copies of validation samples that were changed on purpose (as Deng and Zheng 2021, "Are labels
always necessary for classifier accuracy evaluation?", do), and the interval has room for the errors
that were found there. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from compress.measure import stats
from compress.measure.named_arrays import Array
from compress.measure.shift import features_of, told_apart

__all__ = [
    "MOST_APART",
    "WIDEST",
    "Estimated",
    "Trial",
    "changed_copies",
    "confidence",
    "estimated",
    "trials",
]

#: An interval wider than this says nothing, and is not given.
WIDEST = 0.4
#: Samples that are told apart more often than this are not like anything that was tried.
MOST_APART = 0.8
# Copies that are a little easier to tell apart than the samples count as well.
_BEYOND = 0.05
_CONTRAST, _DARKER, _NOISE, _FOREIGN, _MOVED = (
    (0.8, 0.6, 0.4),
    (0.7, 0.4, 0.2),
    (0.25, 0.5, 1.0),
    (0.1, 0.3, 0.5),
    (16, 8, 4),  # of the width
)
_IMAGE_AXES = 4

Inputs = Mapping[str, Array]


class Trial(NamedTuple):
    """How far the estimate was off on one changed copy: how easily that is told apart, and by."""

    told_apart: float
    error: float


class Estimated(NamedTuple):
    """An estimated accuracy with its interval; ``trials`` is how many copies its width is from."""

    value: float
    ci95: stats.Interval
    trials: int


def confidence(logits: Array) -> Array:
    """The probability of the likeliest class, ``(n,)``, of logits ``(n, classes)``."""
    shifted = np.nan_to_num(logits.astype(np.float64))
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return np.asarray(1.0 / np.exp(shifted).sum(axis=1))


def changed_copies(inputs: Inputs, seed: int = 0) -> Iterator[dict[str, Array]]:
    """Inputs that were changed on purpose, little and much, in ways that data of any kind allow.

    Of numbers the contrast, the brightness, noise, and values of other samples; of images
    ``(n, channels, height, width)`` their place; of whole numbers, such as tokens, other samples'
    alone.
    """
    rng = np.random.default_rng(seed)
    is_float = any(array.dtype.kind == "f" for array in inputs.values())
    if is_float:
        for by in _CONTRAST:
            yield _each(inputs, partial(_toward, origin=np.mean, by=by))
        for by in _DARKER:
            yield _each(inputs, partial(_toward, origin=np.min, by=by))
        for by in _NOISE:
            yield _each(inputs, partial(_noisy, by=by, rng=rng))
    for share in _FOREIGN:
        yield _with_foreign(inputs, share, rng)
    if is_float and any(array.ndim == _IMAGE_AXES for array in inputs.values()):
        for part in _MOVED:
            yield _each(inputs, partial(_moved, part=part))


def trials(
    predict: Callable[[Inputs], Array], inputs: Inputs, right: Array, threshold: float
) -> list[Trial]:
    """Try the estimate out on changed copies of labeled samples, those that are told apart.

    Args:
        predict: gives the logits ``(n, classes)``.
        inputs: of the labeled samples.
        right: gives whether logits are right, by their labels: ``(n,)`` class indices.
        threshold: of the confidence.
    """
    own = features_of(predict(inputs))
    found = []
    for copy in changed_copies(inputs):
        logits = predict(copy)
        told = told_apart(own, features_of(logits))
        if told is None or not told.is_shown:
            continue
        accuracy = float((logits.argmax(axis=1) == right).mean())
        error = float((confidence(logits) >= threshold).mean()) - accuracy
        found.append(Trial(told.share, error))
    return found


def estimated(
    serving: Array, validation: Array, right: Array, tried: Callable[[float], Sequence[Trial]]
) -> Estimated | None:
    """The accuracy on samples without labels; ``None`` where too little is known of it.

    The interval has the sampling of both samples. Where the samples are shown to differ from the
    validation samples, it also has in both directions the largest error of the trials on copies
    that are told apart about as easily, or less. Where it is wider than :data:`WIDEST`, or the
    samples are told apart more often than :data:`MOST_APART`, confidence says too little.

    Args:
        serving: logits of the samples, ``(n, classes)``.
        validation: logits of labeled samples, ``(m, classes)``.
        right: their labels, ``(m,)``.
        tried: gives the trials, of the confidence that is the threshold.
    """
    sure = confidence(validation)
    correct = validation.argmax(axis=1) == right
    threshold = float(np.quantile(sure, 1 - correct.mean()))
    above = confidence(serving) >= threshold
    value = float(above.mean())
    told = told_apart(features_of(validation), features_of(serving))
    near: list[float] = []
    if told is not None and told.is_shown:
        if told.share > MOST_APART:
            return None
        reach = told.ci95.hi + _BEYOND
        near = [abs(trial.error) for trial in tried(threshold) if trial.told_apart <= reach]
    off = max(near, default=0.0)
    drawn = [stats.wilson(int(each.sum()), len(each)) for each in (above, correct)]
    rate = float(correct.mean())
    # The validation samples give the accuracy that is met, and the threshold that meets it.
    met = np.hypot(rate - drawn[1].lo, drawn[1].hi - rate)
    below = np.hypot(value - drawn[0].lo, met)
    beyond = np.hypot(drawn[0].hi - value, met)
    lo, hi = max(0.0, value - off - below), min(1.0, value + off + beyond)
    if hi - lo > WIDEST:
        return None
    return Estimated(value, stats.Interval(float(lo), float(hi)), len(near))


def _each(inputs: Inputs, change: Callable[[Array], Any]) -> dict[str, Array]:
    """Inputs of which those in floating point are changed."""
    return {
        name: np.asarray(change(array), array.dtype) if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }


def _with_foreign(inputs: Inputs, share: float, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs with a share of their values those of other samples, at the same places in each."""
    other = rng.permutation(len(next(iter(inputs.values()))))
    shapes = dict.fromkeys(array.shape for array in inputs.values())
    chosen = {shape: np.asarray(rng.random(shape) < share) for shape in shapes}
    return {
        name: np.where(chosen[array.shape], array[other], array) for name, array in inputs.items()
    }


def _toward(values: Array, origin: Callable[[Array], Any], by: float) -> Array:
    about = origin(values)
    return np.asarray(about + by * (values - about))


def _noisy(values: Array, by: float, rng: np.random.Generator) -> Array:
    return np.asarray(values + by * values.std() * rng.standard_normal(values.shape))


def _moved(images: Array, part: int) -> Array:
    if images.ndim != _IMAGE_AXES:
        return images
    return np.roll(images, max(1, images.shape[3] // part), axis=3)
