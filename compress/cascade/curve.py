"""The curve of a cascade: for every share that may go back, accuracy and time on the test split.

Thresholds are chosen on validation samples, and what they do is counted on test samples: the share
that goes back there is another than was asked for, and is what the times are of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.cascade.latency import MixTimes
from compress.cascade.threshold import sent_back, threshold_of_share
from compress.measure.score import accuracy_facts

__all__ = ["SHARES", "Answered", "Point", "curve_of", "point_of"]

Array = np.ndarray[Any, Any]

#: Shares that a curve is worked out for.
SHARES = (*(k / 100 for k in range(21)), *(k / 100 for k in range(25, 101, 5)))


@dataclass(frozen=True)
class Answered:
    """Both models on the same samples.

    Args:
        confidence: of the student, ``(n,)``.
        student: 1 where it is right, else 0, ``(n,)``.
        larger: likewise, of the larger model.
    """

    confidence: Array
    student: Array
    larger: Array

    def cascade(self, threshold: float) -> Array:
        """1 where the cascade is right, else 0, ``(n,)``."""
        back = sent_back(self.confidence, threshold)
        return np.asarray(np.where(back, self.larger, self.student))

    def share(self, threshold: float) -> float:
        """The share of samples that goes back."""
        return float(sent_back(self.confidence, threshold).mean())


@dataclass(frozen=True)
class Point:
    """A cascade at one threshold.

    Args:
        threshold: samples that the student is less sure of go back; ``None`` where all do.
        share: of the samples that went back.
        accuracy: of the cascade; ``accuracy_ci95`` is its 95 % interval.
        change: of the accuracy against the larger model on the same samples, with its interval.
        mean_s: mean seconds of one sample.
        ratio: of these to the larger model's alone, with its interval.
        p99_s: the 99th percentile; ``None`` where the samples cannot support it.
    """

    threshold: float | None
    share: float
    accuracy: float
    accuracy_ci95: tuple[float, float]
    change: float
    change_ci95: tuple[float, float]
    mean_s: float | None = None
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    p99_s: float | None = None


def point_of(answered: Answered, threshold: float, times: MixTimes | None = None) -> Point:
    """What a threshold does on samples; without times, the accuracy alone."""
    share = answered.share(threshold)
    found = accuracy_facts(answered.cascade(threshold), answered.larger)
    versus = found.versus_baseline or {}
    ratio = times.ratio(share) if times else (None, None)
    return Point(
        threshold=float(threshold) if np.isfinite(threshold) else None,
        share=share,
        accuracy=found.value,
        accuracy_ci95=found.ci95,
        change=versus["delta"],
        change_ci95=(versus["delta_ci_lo"], versus["delta_ci_hi"]),
        mean_s=times.mean_s(share) if times else None,
        ratio=ratio[0],
        ratio_ci95=ratio[1],
        p99_s=times.p99_s(share) if times else None,
    )


def curve_of(validation: Array, test: Answered, times: MixTimes | None) -> tuple[Point, ...]:
    """The points of a curve, those that are the same once.

    Args:
        validation: how sure the student is of validation samples, ``(n,)``.
        test: both models on test samples.
        times: of both.
    """
    thresholds = dict.fromkeys(threshold_of_share(validation, share) for share in SHARES)
    return tuple(point_of(test, threshold, times) for threshold in thresholds)
