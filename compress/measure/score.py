"""Score: from outputs and labels to the accuracy facts of a record.

Numpy only, so that it works on what a target returned, wherever it ran.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.errors import DataError
from compress.measure import stats
from compress.measure.ondevice import scoring
from compress.outputs import (
    CLASS_KINDS,
    OutputKind,
    Shape,
    check_class_range,
    check_yes_or_no,
    label_shape,
)
from compress.record import Accuracy
from compress.task import Metric, MetricName

__all__ = ["accuracy_facts", "fitted_labels", "score"]

Array = np.ndarray[Any, Any]

_NONE = -1


def score(
    outputs: Array,
    labels: Array,
    metric: MetricName | Metric,
    kind: OutputKind | None = None,
    ignore_index: int | None = None,
) -> Array:
    """The score of each sample, shape ``(n,)``.

    Args:
        outputs: ``(n, classes, ...)`` for ``accuracy``; anything with samples first otherwise.
        labels: ``(n, ...)`` class indices for ``accuracy``; the outputs' shape for the others.
        metric: as :func:`.ondevice.scoring.scores` has it, or a callable, which gets outputs and
            labels.
        kind: what the outputs are: labels are then brought into its type and shape first.
        ignore_index: a label that says that there is none.

    Raises:
        DataError: shapes that do not go together, labels that are no class, or a callable that
            does not return one finite number per sample.
    """
    if len(outputs) != len(labels):
        raise DataError(
            f"scoring: {len(outputs)} outputs and {len(labels)} labels; there must be one label "
            "per sample."
        )
    if kind is not None:
        labels = fitted_labels(outputs.shape, labels, kind, ignore_index)
    if isinstance(metric, str):
        return _built_in(outputs, labels, metric)
    scores = np.asarray(metric(outputs, labels), dtype=np.float64)
    if scores.shape != (len(labels),) or not np.isfinite(scores).all():
        name = getattr(metric, "__name__", type(metric).__name__)
        raise DataError(
            f"scoring: the metric {name} must return {len(labels)} finite scores, one "
            f"per sample; got shape {scores.shape}, {int((~np.isfinite(scores)).sum())} not finite."
        )
    return scores


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


def _built_in(outputs: Array, labels: Array, metric: str) -> Array:
    try:
        scores: Array = scoring.scores(outputs, labels, metric)
    except ValueError as error:
        raise DataError(f"scoring: {error}") from None
    return scores


def accuracy_facts(
    scores: Array,
    baseline_scores: Array | None = None,
    *,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Accuracy:
    """Mean score with its 95 % interval, and the comparison with the baseline's scores.

    Scores of only 0 and 1 get Wilson's interval and an exact McNemar test; others a bootstrap
    interval and a sign-flip test, both from ``seed``. ``versus_baseline`` has ``lost`` and
    ``gained`` (samples that became worse or better), ``p_value``, and ``delta`` (this mean less
    the baseline's) with ``delta_ci_lo`` and ``delta_ci_hi``.

    Raises:
        DataError: no scores, or a baseline of other samples.
    """
    if len(scores) == 0:
        raise DataError("scoring: there are no samples to score.")
    if _binary(scores):
        ci95 = stats.wilson(int(scores.sum()), len(scores))
    else:
        ci95 = stats.bootstrap_mean(scores, seed=seed)
    versus = None
    if baseline_scores is not None:
        versus = _versus(scores, baseline_scores, higher_is_better=higher_is_better, seed=seed)
    return Accuracy(value=float(scores.mean()), ci95=ci95, n=len(scores), versus_baseline=versus)


def _binary(scores: Array) -> bool:
    return bool(np.isin(scores, (0, 1)).all())


def _versus(
    scores: Array, baseline: Array, *, higher_is_better: bool, seed: int
) -> dict[str, float]:
    if scores.shape != baseline.shape:
        raise DataError(
            f"scoring: a paired comparison needs the same samples; got {len(scores)} scores and "
            f"{len(baseline)} of the baseline."
        )
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
