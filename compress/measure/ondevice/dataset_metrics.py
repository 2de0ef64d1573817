"""Metrics over a data set: one number from the outputs for all samples, with bootstrap resamples.

F1, AUROC, intersection over union and rank correlations are no means over samples. Their intervals
come from the percentile bootstrap over samples (Efron 1979): in each resample a sample counts as
often as it was drawn. The built-in metrics are worked out from these counts, some fifty resamples
at a time; a function of one's own gets the drawn samples themselves. Draws depend on the seed and
the number of samples alone, so that two models are compared on the same ones. Numpy only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from compress.measure.ondevice.tensor_spec import Array

    #: How often each sample counts, ``(b, n)``, to the values of the metric, ``(b,)``.
    Weighted = Callable[[Array], Array]

__all__ = ["DATASET_METRICS", "DatasetScore", "dataset_score", "evaluate", "resampled"]

_RESAMPLES = 2000
# A slow metric gets fewer: a hundred tell the standard deviation to a fourteenth of it.
_FEWEST = 100
_MOST_S = 2.0
_BLOCK_CELLS = 1_000_000


@dataclass(frozen=True)
class DatasetScore:
    """A metric over a data set, of one model.

    Attributes:
        value: on the samples as they are.
        draws: the values over resamples, ``(resamples,)``; NaN where one has no value, such as the
            AUROC of a resample without a positive.
        samples: how many there were.
    """

    value: float
    draws: Array
    samples: int


def resampled(
    weighted: Weighted,
    samples: int,
    *,
    seed: int = 0,
    resamples: int = _RESAMPLES,
    most_s: float = _MOST_S,
) -> DatasetScore:
    """The metric's value and its bootstrap resamples.

    Args:
        weighted: the metric, given how often each sample counts.
        samples: how many there are.
        seed: of the draws.
        resamples: how many, where the metric is quick enough.
        most_s: after this time, in seconds, 100 resamples are enough.
    """
    value = float(weighted(np.ones((1, samples), np.int32))[0])
    start_s = time.monotonic()
    found: list[Array] = []
    for counts in _draws(samples, seed, resamples):
        found.append(weighted(counts))
        drawn = sum(map(len, found))
        if drawn >= _FEWEST and time.monotonic() - start_s > most_s:
            break
    return DatasetScore(value, np.concatenate(found), samples)


def _draws(samples: int, seed: int, resamples: int) -> Iterator[Array]:
    """How often each sample was drawn, in blocks ``(b, n)`` that are the same for equal seeds."""
    rng = np.random.default_rng(seed)
    block = min(50, max(1, _BLOCK_CELLS // samples))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, samples, (size, samples), dtype=np.int64)
        drawn += np.arange(size)[:, None] * samples
        counts = np.bincount(drawn.reshape(-1), minlength=size * samples)
        yield counts.reshape(size, samples)


def evaluate(metric: Callable[[Any, Any], Any], outputs: Any, labels: Any) -> Weighted:
    """A function of outputs and labels that gives one number, given counts of samples.

    Outputs and labels are arrays, or dictionaries of arrays, with samples on axis 0. A metric that
    has a method ``by_counts(outputs, labels)``, which gives such a function itself, is not called
    for each resample.
    """
    own = getattr(metric, "by_counts", None)
    if callable(own):
        found: Weighted = own(outputs, labels)
        return found

    def weighted(counts: Array) -> Array:
        places = (np.repeat(np.arange(len(row)), row) for row in counts)
        return np.array([float(metric(_at(outputs, p), _at(labels, p))) for p in places])

    return weighted


def _at(arrays: Any, places: Array) -> Any:
    if isinstance(arrays, dict):
        return {name: array[places] for name, array in arrays.items()}
    return arrays[places]


# -- overlap of classes: F1 and intersection over union ---------------------------------------


@dataclass(frozen=True)
class _Tally:
    """How many positions of a sample belong to a class, where there are any, in three columns."""

    sample: Array
    of_class: Array
    positions: Array

    @classmethod
    def of(cls, classes_at: Array, is_member: Array, classes: int) -> _Tally:
        """From the class of each position ``(n, positions)``, and whether it is one."""
        sample, place = np.nonzero(is_member)
        keys, positions = np.unique(
            sample * classes + classes_at[sample, place], return_counts=True
        )
        return cls(keys // classes, keys % classes, positions)

    def summed(self, counts: Array, classes: int) -> Array:
        """Positions of each class, ``(b, classes)``, where samples count so often, ``(b, n)``."""
        weights = counts[:, self.sample] * self.positions
        return np.stack([np.bincount(self.of_class, row, classes) for row in weights])


def _f1(outputs: Array, labels: Array) -> Weighted:
    return _overlap(outputs, labels, lambda both, sizes: 2 * both / sizes)


def _mean_iou(outputs: Array, labels: Array) -> Weighted:
    return _overlap(outputs, labels, lambda both, sizes: both / (sizes - both))


def _overlap(outputs: Array, labels: Array, share: Callable[[Array, Array], Array]) -> Weighted:
    """The mean over classes of ``share``.

    It is of a class's right positions, and of its predicted and true ones together. A class that
    is neither predicted nor there says nothing.
    """
    right, predicted, true = _tallies(outputs, labels)
    classes = _columns(outputs)

    def weighted(counts: Array) -> Array:
        both = right.summed(counts, classes)
        sizes = predicted.summed(counts, classes) + true.summed(counts, classes)
        with np.errstate(invalid="ignore"):
            return _mean_known(np.where(sizes > 0, share(both, sizes), np.nan))

    return weighted


def _tallies(outputs: Array, labels: Array) -> tuple[_Tally, _Tally, _Tally]:
    """The positions where both agree on a class, the predicted ones and the true ones."""
    count, classes = len(labels), _columns(outputs)
    finite = np.isfinite(outputs)
    if labels.dtype.kind != "f":
        true = labels.reshape(count, -1)
        known, is_finite = true >= 0, finite.all(axis=1).reshape(count, -1)
        predicted = outputs.argmax(axis=1).reshape(count, -1)
        right = known & is_finite & (predicted == true)
        return (
            _Tally.of(true, right, classes),
            _Tally.of(predicted, known & is_finite, classes),
            _Tally.of(true, known, classes),
        )
    output = np.arange(classes).reshape(1, -1, *[1] * (max(outputs.ndim, 2) - 2))
    output = np.broadcast_to(output, _two_axes(outputs).shape).reshape(count, -1)
    known = ~np.isnan(labels)
    yes = known & (labels > 0.5)
    # What is not finite is wrong, as for accuracy.
    said = known & np.where(finite, outputs > 0, ~yes)

    def tally(is_member: Array) -> _Tally:
        return _Tally.of(output, is_member.reshape(count, -1), classes)

    return tally(said & yes), tally(said), tally(yes)


# -- by rank: AUROC and Spearman's correlation ------------------------------------------------


def _auroc(outputs: Array, labels: Array) -> Weighted:
    """The mean over outputs of the area under the ROC curve, each class against all others."""
    outputs = outputs.astype(np.float64)
    if labels.dtype.kind != "f":
        known = np.repeat((labels >= 0)[:, None], outputs.shape[1], axis=1)
        positive = np.arange(outputs.shape[1]).reshape(1, -1, *[1] * (outputs.ndim - 2))
        positive = positive == labels[:, None]
        scores = _log_softmax(outputs)
    else:
        known, positive, scores = ~np.isnan(labels), labels > 0.5, outputs
    # What is not finite is as wrong as can be.
    worst = np.where(positive, -np.inf, np.inf)
    scores = np.where(np.isfinite(scores), scores, worst)
    areas = [_area(*parts) for parts in _by_column(scores, positive, known)]
    return lambda counts: _mean_known(np.stack([area(counts) for area in areas], axis=1))


def _area(scores: Array, positive: Array, known: Array) -> Weighted:
    """The chance that a positive has a higher score than a negative; ties count half."""
    sample, place = np.nonzero(known)
    values = -scores[sample, place]
    order = np.argsort(values, kind="stable")
    sample, is_positive = sample[order], positive[sample, place][order]
    starts = _group_starts(values[order])

    def weighted(counts: Array) -> Array:
        weights = counts[:, sample].astype(np.float64)
        positives = np.add.reduceat(weights * is_positive, starts, axis=1)
        negatives = np.add.reduceat(weights * ~is_positive, starts, axis=1)
        above = positives.cumsum(axis=1) - positives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, (negatives * above).sum(axis=1) / pairs, np.nan)

    return weighted if len(starts) else lambda counts: np.full(len(counts), np.nan)


def _spearman(outputs: Array, labels: Array) -> Weighted:
    """The mean over outputs of Spearman's rank correlation of outputs and labels."""
    # A value that is not finite ranks lowest.
    finite = np.where(np.isfinite(outputs), outputs, -np.inf).astype(np.float64)
    parts = _by_column(finite, np.asarray(labels, np.float64), ~np.isnan(labels))
    correlations = [_rank_correlation(*part) for part in parts]
    return lambda counts: _mean_known(np.stack([each(counts) for each in correlations], axis=1))


def _rank_correlation(outputs: Array, labels: Array, known: Array) -> Weighted:
    sample, place = np.nonzero(known)
    ranks = [_ranks(part[sample, place]) for part in (outputs, labels)]

    def weighted(counts: Array) -> Array:
        weights = counts[:, sample].astype(np.float64)
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1)
        a, b = (rank(weights) for rank in ranks)
        a, b = (part - (weights * part).sum(axis=1, keepdims=True) / total for part in (a, b))
        products = [(weights * x * y).sum(axis=1) for x, y in ((a, b), (a, a), (b, b))]
        spread = np.sqrt(products[1] * products[2])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(spread > 0, products[0] / spread, np.nan)

    return weighted if len(sample) else lambda counts: np.full(len(counts), np.nan)


def _ranks(values: Array) -> Weighted:
    """The mid-rank of each value, ``(b, n)``, where values count as often as they were drawn."""
    order = np.argsort(values, kind="stable")
    starts = _group_starts(values[order])
    sizes = np.diff([*starts, len(values)])
    places = np.empty_like(order)
    places[order] = np.arange(len(order))

    def weighted(weights: Array) -> Array:
        groups = np.add.reduceat(weights[:, order], starts, axis=1)
        ranks = groups.cumsum(axis=1) - (groups - 1) / 2
        return np.asarray(np.repeat(ranks, sizes, axis=1)[:, places])

    return weighted


# -- parts ------------------------------------------------------------------------------------


def _columns(outputs: Array) -> int:
    return outputs.shape[1] if outputs.ndim > 1 else 1


def _two_axes(array: Array) -> Array:
    return array[:, None] if array.ndim == 1 else array


def _by_column(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Each output of ``(n, outputs, ...)`` as ``(n, positions)``, of all arrays side by side."""
    parts = [_two_axes(array) for array in arrays]
    for column in range(parts[0].shape[1]):
        yield tuple(part[:, column].reshape(len(part), -1) for part in parts)


def _group_starts(ordered: Array) -> Array:
    """Where in ordered values a new one begins."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _log_softmax(outputs: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _mean_known(values: Array) -> Array:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1))


#: The built-in metrics over a data set. They take outputs ``(n, classes, ...)`` and labels as
#: ``compress.measure.score.fitted_labels`` brings them into shape.
DATASET_METRICS: Mapping[str, Callable[[Array, Array], Weighted]] = {
    "f1": _f1,
    "mean-iou": _mean_iou,
    "auroc": _auroc,
    "spearman": _spearman,
}


def dataset_score(outputs: Array, labels: Array, metric: str) -> DatasetScore:
    """The score of all samples by a built-in metric over a data set.

    Raises:
        ValueError: shapes that do not go together.
    """
    if len(outputs) != len(labels):
        raise ValueError(
            f"{len(outputs)} outputs and {len(labels)} labels; there must be one label per sample."
        )
    is_classes = labels.dtype.kind != "f"
    wanted = outputs.shape[:1] + outputs.shape[2:] if is_classes else outputs.shape
    if labels.shape != wanted or (is_classes and outputs.ndim < 2):
        raise ValueError(
            f"{metric} needs class indices (n, ...) for outputs (n, classes, ...), or a label for "
            f"each output; got {outputs.shape} and {labels.shape}."
        )
    return resampled(DATASET_METRICS[metric](outputs, labels), len(labels))
