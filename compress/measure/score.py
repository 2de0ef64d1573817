"""Score: from outputs and labels to the accuracy facts of a record.

Numpy only, so that it works on what a target returned, wherever it ran.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from compress.errors import DataError
from compress.measure import driver, stats
from compress.record import Accuracy

__all__ = ["accuracy_facts", "score"]

Array = np.ndarray[Any, Any]


def score(
    outputs: Array,
    labels: Array,
    metric: Literal["accuracy", "mse"] | Callable[[Array, Array], Array],
) -> Array:
    """The score of each sample, shape ``(n,)``.

    Args:
        outputs: ``(n, classes, ...)`` for ``accuracy``; anything with samples first otherwise.
        labels: ``(n, ...)`` class indices for ``accuracy``; the outputs' shape for ``mse``.
        metric: ``accuracy`` is right (1) or wrong (0), or the share of right positions where a
            sample has several; outputs that are not finite are wrong. ``mse`` is the mean over
            a sample's values. A callable gets outputs and labels.

    Raises:
        DataError: shapes that do not go together, labels that are no class, or a callable that
            does not return one finite number per sample.
    """
    if len(outputs) != len(labels):
        raise DataError(
            f"scoring: {len(outputs)} outputs and {len(labels)} labels; there must be one label "
            "per sample."
        )
    if isinstance(metric, str):
        return _built_in(outputs, labels, metric)
    scores = np.asarray(metric(outputs, labels), dtype=np.float64)
    if scores.shape != (len(labels),) or not np.isfinite(scores).all():
        raise DataError(
            f"scoring: the metric {metric.__name__} must return {len(labels)} finite scores, one "
            f"per sample; got shape {scores.shape}, {int((~np.isfinite(scores)).sum())} not finite."
        )
    return scores


def _built_in(outputs: Array, labels: Array, metric: str) -> Array:
    try:
        scores: Array = driver.scores(outputs, labels, metric)
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
