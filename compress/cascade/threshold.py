"""Which samples go back: a threshold on how sure the student is, chosen on validation samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.errors import StageError

__all__ = ["NEVER", "Wanted", "sent_back", "threshold_for", "threshold_of_share"]

Array = np.ndarray[Any, Any]

#: A threshold that only what is no number is below; finite, since JSON has nothing else.
NEVER = -float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Wanted:
    """What a threshold is chosen for: one of the three.

    Args:
        share: at most this share of the samples goes back, above 0 and up to 1.
        drop: the accuracy of the larger model less at most this.
        accuracy: at least this accuracy.
    """

    share: float | None = None
    drop: float | None = None
    accuracy: float | None = None

    @property
    def words(self) -> str:
        """What is wanted, as in sentences."""
        if self.share is not None:
            return f"at most {100 * self.share:.3g} % sent back"
        if self.drop is not None:
            return f"at most {100 * self.drop:.3g} points of accuracy lost to the larger model"
        return f"an accuracy of at least {100 * (self.accuracy or 0):.4g} %"


def sent_back(confidence: Array, threshold: float) -> Array:
    """Which samples go back, ``(n,)``: those below the threshold, and those that are no number."""
    return ~(confidence >= threshold)


def threshold_of_share(confidence: Array, share: float) -> float:
    """The highest threshold that sends at most this share of the samples back.

    Samples that are equally sure go together, so that fewer may go back; with all of them it is
    infinite.
    """
    ordered = np.sort(_numbers(confidence))
    most = int(np.floor(share * len(ordered) + 1e-9))
    return _between(ordered, most)


def threshold_for(wanted: Wanted, confidence: Array, student: Array, larger: Array) -> float:
    """The threshold that sends the fewest samples back for what is wanted; for a share, the most.

    Args:
        wanted: what it is for.
        confidence: of the student, ``(n,)``, on validation samples.
        student: whether it is right, ``(n,)``.
        larger: whether the larger model is.

    Raises:
        StageError: no threshold reaches the accuracy; says the best there is.
    """
    if wanted.share is not None:
        return threshold_of_share(confidence, wanted.share)
    sure = _numbers(confidence)
    order = np.argsort(sure, kind="stable")
    gained = np.concatenate([[0], np.cumsum((larger * 1.0 - student)[order])])
    accuracy = (student.sum() + gained) / len(student)
    # No threshold lies between samples that are equally sure.
    ordered = sure[order]
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    least = wanted.accuracy
    if least is None:
        least = float(larger.mean()) - (wanted.drop or 0.0)
    reached = np.flatnonzero(possible & (accuracy >= least - 1e-12))
    if not len(reached):
        best = int(np.argmax(np.where(possible, accuracy, -1.0)))
        raise StageError(
            f"no threshold reaches {100 * least:.2f} % on the {len(student):,} validation samples: "
            f"the best is {100 * accuracy[best]:.2f} %, with {100 * best / len(student):.1f} % "
            "sent back; ask for less, or give another --score or --larger."
        )
    return _between(ordered, int(reached[0]))


def _between(ordered: Array, back: int) -> float:
    """A threshold that sends so many of the least sure back, and none that is equal to the next."""
    if back == 0:
        return NEVER
    return float(ordered[back]) if back < len(ordered) else float("inf")


def _numbers(confidence: Array) -> Array:
    return np.where(np.isnan(confidence), -np.inf, confidence)
