"""What a score of features needs to know of training samples: class means, or neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.cascade.program.scores import OF_FEATURES, unit
from compress.errors import DataError

__all__ = ["Fitted", "fit"]

Array = np.ndarray[Any, Any]
#: Arrays that belong to a score, by name.
Fitted = Mapping[str, Array]

#: Training samples that are looked at, and those that a distance is taken to.
MOST_FITTED, MOST_NEIGHBORS = 10_000, 2_000
_K = 10
# Of the mean variance, added to all: a feature that is 0 on all training samples has no scale.
_LEAST_VARIANCE = 1e-3


def fit(score: str, features: Array, classes: Array) -> Fitted:
    """What the score needs of training samples.

    Args:
        score: its name.
        features: ``(n, width)`` of training samples.
        classes: ``(n,)``, whole numbers; below 0 where none is known.

    Raises:
        DataError: fewer than two samples of known classes, or features that are not finite.
    """
    if score not in OF_FEATURES:
        return {"temperature": np.array(1.0)} if score == "energy" else {}
    known = features[classes >= 0].astype(np.float64)
    if len(known) < 2 or not np.isfinite(known).all():
        raise DataError(
            f"--score {score}: it takes two training samples of known classes or more, with finite "
            f"features; got {len(known)}."
        )
    if score == "neighbors":
        places = np.linspace(0, len(known) - 1, min(len(known), MOST_NEIGHBORS)).astype(int)
        bank = unit(known[places]).astype(np.float32)
        return {"bank": bank, "k": np.array(min(_K, len(bank)))}
    return _classes(known, classes[classes >= 0])


def _classes(features: Array, classes: Array) -> Fitted:
    """Class means, and what makes the classes' shared covariance the unit matrix."""
    numbers = np.unique(classes)
    means = np.stack([features[classes == number].mean(0) for number in numbers])
    centered = features - means[np.searchsorted(numbers, classes)]
    covariance = centered.T @ centered / len(features)
    spread = float(np.trace(covariance)) / len(covariance) or 1.0
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(np.maximum(values, 0) + _LEAST_VARIANCE * spread)
    return {"means": (means @ whiten).astype(np.float32), "whiten": whiten.astype(np.float32)}
