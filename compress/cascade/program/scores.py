"""How sure a model is of its answers: a number for each sample, higher for surer.

::

    probability   the largest probability (Hendrycks and Gimpel 2017)
    margin        the largest probability less the second
    energy        T logsumexp(logits / T) (Liu et al. 2020)
    mahalanobis   less the squared distance of features to the nearest class mean, in units of the
                  classes' shared covariance (Lee et al. 2018)
    neighbors     less the distance to the k-th nearest training sample, of features of length 1
                  (Sun et al. 2022)

Numpy alone: this file lies beside ``run.py`` wherever a cascade is deployed, and is what measured
it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Those that look at features, and not at the outputs.
OF_FEATURES = ("mahalanobis", "neighbors")
SCORES = ("probability", "margin", "energy", *OF_FEATURES)
_ROWS = 256  # at once, so that distances to many neighbors take little memory


def confidence(score: str, outputs: Any, features: Any = None, fitted: Any = None) -> Any:
    """How sure a model is of each sample, ``(n,)``.

    Args:
        score: its name.
        outputs: logits ``(n, classes)``; ``(n,)`` or ``(n, 1)`` of a yes or no.
        features: ``(n, width)``, for those that look at them.
        fitted: arrays by name that belong to the score.
    """
    if score == "mahalanobis":
        x = features.astype(np.float64) @ fitted["whiten"]
        return -np.stack([((x - mean) ** 2).sum(1) for mean in fitted["means"]]).min(0)
    if score == "neighbors":
        return -np.concatenate(
            [_kth_distance(features[i : i + _ROWS], fitted) for i in range(0, len(features), _ROWS)]
        )
    logits = two_sided(outputs)
    if score == "energy":
        temperature = float(fitted["temperature"]) if fitted else 1.0
        scaled = logits / temperature
        highest = scaled.max(1)
        return temperature * (highest + np.log(np.exp(scaled - highest[:, None]).sum(1)))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    if score == "probability":
        return 1 / powers.sum(1)
    two = np.partition(powers, -2, axis=1)[:, -2:]
    return (two[:, 1] - two[:, 0]) / powers.sum(1)


def two_sided(outputs: Any) -> Any:
    """Logits of classes, ``(n, classes)``; of one for yes, those of no and yes."""
    logits = np.asarray(outputs, np.float64).reshape(len(outputs), -1)
    return np.concatenate([-logits / 2, logits / 2], 1) if logits.shape[1] == 1 else logits


def pooled(features: Any) -> Any:
    """Features as ``(n, width)``: those at several places by their means."""
    return features.reshape(len(features), features.shape[1], -1).mean(2)


def unit(features: Any) -> Any:
    """Features of length 1; what has no length stays as it is."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def _kth_distance(features: Any, fitted: Any) -> Any:
    nearness = unit(features.astype(np.float64)) @ fitted["bank"].T
    k = int(fitted["k"])
    closest = np.partition(nearness, -k, axis=1)[:, -k]
    return np.sqrt(np.maximum(0, 2 - 2 * closest))
