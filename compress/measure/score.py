"""Score: from outputs and labels to the accuracy facts of a record.

A metric either scores each sample, and its value is their mean, or gives one number for all of
them (:mod:`.ondevice.dataset_metrics`). Numpy only, so that it works on what a target returned,
wherever it ran.
"""

from __future__ import annotations

import numpy as np

from compress.errors import DataError
from compress.measure import stats
from compress.measure.named_arrays import Array, Arrays, arrays_of, sample_count
from compress.measure.ondevice import scoring
from compress.measure.ondevice.dataset_metrics import (
    DATASET_METRICS,
    DatasetScore,
    dataset_score,
    evaluate,
    resampled,
)
from compress.metrics import Metric, MetricName, metric_name
from compress.outputs import (
    CLASS_KINDS,
    OutputKind,
    Shape,
    check_class_range,
    check_yes_or_no,
    label_shape,
)
from compress.record import Accuracy

__all__ = [
    "Scores",
    "UndefinedMetric",
    "accuracy_facts",
    "count_of",
    "fitted_labels",
    "largest_of",
    "score",
]

#: The score of each sample, ``(n,)``, or that of all.
Scores = Array | DatasetScore

_NONE = -1
_MOST_UNDEFINED = 0.05  # of the resamples; leaving out more would bias the interval


class UndefinedMetric(DataError):
    """A metric over a data set has no value on the samples given, and may have one on others."""


def score(
    outputs: Arrays,
    labels: Arrays,
    metric: MetricName | Metric,
    kind: OutputKind | None = None,
    ignore_index: int | None = None,
) -> Scores:
    """The score of each sample, shape ``(n,)``, or of all, where the metric gives one number.

    Args:
        outputs: ``(n, classes, ...)`` for metrics of classes; anything with samples first
            otherwise. Arrays by name are for a callable.
        labels: ``(n, ...)`` class indices for metrics of classes; the outputs' shape for others.
            Arrays by name are for a callable.
        metric: as :func:`.ondevice.scoring.scores` has it, one over a data set, or a callable,
            which gets outputs and labels, and returns a number for each sample or one for all.
        kind: what the outputs are: labels are then brought into its type and shape first.
        ignore_index: a label that says that there is none.

    Raises:
        DataError: shapes that do not go together, labels that are no class, or a callable that
            returns something else than finite numbers.
        UndefinedMetric: a metric that has no value here.
    """
    count = sample_count(outputs, "outputs")
    if count != (labeled := sample_count(labels, "labels")):
        raise DataError(
            f"scoring: {count} outputs and {labeled} labels; there must be one label per sample."
        )
    if kind is not None and isinstance(outputs, np.ndarray) and isinstance(labels, np.ndarray):
        labels = fitted_labels(outputs.shape, labels, kind, ignore_index)
    if not isinstance(metric, str):
        return _own(outputs, labels, metric)
    if isinstance(outputs, dict) or isinstance(labels, dict):
        raise DataError(
            f"scoring: the metric {metric} is on one output and its labels; got "
            f"{len(arrays_of(outputs))} and {len(arrays_of(labels))}."
        )
    return _built_in(outputs, labels, metric)


def _own(outputs: Arrays, labels: Arrays, metric: Metric) -> Scores:
    name, count = metric_name(metric), sample_count(labels, "labels")
    if hasattr(metric, "by_counts"):  # it would work out its value twice
        return _with_a_value(name, resampled(evaluate(metric, outputs, labels), count))
    found = np.asarray(metric(outputs, labels), dtype=np.float64)
    if found.shape == () and np.isfinite(found):
        return _with_a_value(name, resampled(evaluate(metric, outputs, labels), count))
    if found.shape != (count,) or not np.isfinite(found).all():
        raise DataError(
            f"scoring: the metric {name} must return one finite number, or {count} of them, "
            f"one for each sample; got shape {found.shape}, {int((~np.isfinite(found)).sum())} not "
            "finite."
        )
    return found


def _with_a_value(name: str, score: DatasetScore) -> DatasetScore:
    undefined = int(np.isnan(score.draws).sum())
    if np.isnan(score.value) or undefined >= max(1, _MOST_UNDEFINED * len(score.draws)):
        raise UndefinedMetric(
            f"scoring: the metric {name} has no value on these {score.samples} samples, or not on "
            f"enough resamples of them ({undefined} of {len(score.draws)} have none); give more "
            "samples, with and without each label and with values that vary, or another metric."
        )
    return score


def fitted_labels(
    outputs: Shape, labels: Array, kind: OutputKind, ignore_index: int | None = None
) -> Array:
    """The labels as a metric of outputs of that shape takes them (:mod:`compress.outputs`).

    Of classes int64, with a negative number where there is none; else float64 in the outputs'
    shape, with NaN where there is none.

    Raises:
        DataError: labels that do not fit the outputs in shape, type or range.
    """
    is_float = labels.dtype.kind == "f"
    known = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    is_bytes = labels.dtype == np.uint8
    shape = label_shape(kind, outputs, labels.shape, is_float=is_float, is_bytes=is_bytes)
    if kind == "independent-logits":
        # As for training: a negative label is none.
        known &= labels >= 0
        check_yes_or_no(0.0, float(labels.max(where=known, initial=0)))
    if kind not in CLASS_KINDS:
        return np.where(known, labels, np.nan).reshape(shape)
    if is_float:  # a probability for each class
        return np.asarray(labels.argmax(axis=1))
    known &= labels >= 0
    classes = np.where(known, labels.astype(np.int64), _NONE).reshape(shape)
    check_class_range(0, int(classes.max(initial=0)), outputs[1])
    return classes


def _built_in(outputs: Array, labels: Array, metric: str) -> Scores:
    try:
        if metric in DATASET_METRICS:
            return _with_a_value(metric, dataset_score(outputs, labels, metric))
        scores: Array = scoring.scores(outputs, labels, metric)
    except ValueError as error:
        raise DataError(f"scoring: {error}") from None
    return scores


def accuracy_facts(
    scores: Scores,
    baseline_scores: Scores | None = None,
    *,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Accuracy:
    """The score with its 95 % interval, and the comparison with the baseline's.

    Scores of only 0 and 1 get Wilson's interval and an exact McNemar test; those of each sample
    else a bootstrap interval and a sign-flip test, both from ``seed``. A score of all samples has
    its own resamples, and a difference that of the same ones. ``versus_baseline`` has ``p_value``,
    ``delta`` (this score less the baseline's) with ``delta_ci_lo`` and ``delta_ci_hi``, and, of
    scores of each sample, ``lost`` and ``gained`` (samples that became worse or better).

    Raises:
        DataError: no scores, or a baseline of other samples.
    """
    count = count_of(scores)
    if count == 0:
        raise DataError("scoring: there are no samples to score.")
    if baseline_scores is not None and count_of(baseline_scores) != count:
        raise DataError(
            f"scoring: a paired comparison needs the same samples; got {count} scores and "
            f"{count_of(baseline_scores)} of the baseline."
        )
    if isinstance(scores, DatasetScore):
        base = baseline_scores if isinstance(baseline_scores, DatasetScore) else None
        return _dataset_facts(_with_a_value("over all", scores), base)
    if _binary(scores):
        ci95 = stats.wilson(int(scores.sum()), len(scores))
    else:
        ci95 = stats.bootstrap_mean(scores, seed=seed)
    versus = None
    if isinstance(baseline_scores, np.ndarray):
        versus = _versus(scores, baseline_scores, higher_is_better=higher_is_better, seed=seed)
    return Accuracy(value=float(scores.mean()), ci95=ci95, n=len(scores), versus_baseline=versus)


def count_of(scores: Scores) -> int:
    """How many samples were scored."""
    return scores.samples if isinstance(scores, DatasetScore) else len(scores)


def largest_of(scores: Scores) -> float:
    """The largest absolute score among samples, or among resamples."""
    each = scores.draws if isinstance(scores, DatasetScore) else scores
    return float(np.abs(each[~np.isnan(each)]).max(initial=0.0))


def _dataset_facts(score: DatasetScore, baseline: DatasetScore | None) -> Accuracy:
    versus = None
    if baseline is not None:
        # The draws are of the same samples; where one metric was slower it has fewer.
        both = min(len(score.draws), len(baseline.draws))
        changes = score.draws[:both] - baseline.draws[:both]
        delta = score.value - baseline.value
        lo, hi = stats.resampled_interval(delta, changes)
        versus = {
            "p_value": stats.resampled_p_value(delta, changes),
            "delta": delta,
            "delta_ci_lo": lo,
            "delta_ci_hi": hi,
        }
    return Accuracy(
        value=score.value,
        ci95=stats.resampled_interval(score.value, score.draws),
        n=score.samples,
        versus_baseline=versus,
        resamples=len(score.draws),
    )


def _binary(scores: Array) -> bool:
    return bool(np.isin(scores, (0, 1)).all())


def _versus(
    scores: Array, baseline: Array, *, higher_is_better: bool, seed: int
) -> dict[str, float]:
    change = scores - baseline
    up, down = int((change > 0).sum()), int((change < 0).sum())
    if _binary(scores) and _binary(baseline):
        p_value = stats.mcnemar(down, up)
        ci95 = stats.paired_difference(down, up, len(scores))
    else:
        p_value = stats.sign_flip(change, seed=seed)
        ci95 = stats.bootstrap_mean(change, seed=seed)
    lost, gained = (down, up) if higher_is_better else (up, down)
    return {
        "lost": lost,
        "gained": gained,
        "p_value": p_value,
        "delta": float(change.mean()),
        "delta_ci_lo": ci95.lo,
        "delta_ci_hi": ci95.hi,
    }
