"""How well a score tells a model's own data from foreign ones: the area under the ROC curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Auroc", "auroc"]

Array = np.ndarray[Any, Any]

_NORMAL_975 = 1.959963984540054
_RULE_OF_THREE = 3.0


@dataclass(frozen=True)
class Auroc:
    """The chance that a sample of one's own is surer than a foreign one, with its 95 % interval."""

    value: float
    ci95: tuple[float, float]


def auroc(own: Array, foreign: Array) -> Auroc:
    """The area under the ROC curve, ties counted half.

    The interval is that of DeLong et al. (1988), on the logarithm of the odds so that it stays
    within 0 and 1. Where all pairs are in order it says nothing, and the interval is that of none
    out of the smaller number of samples.

    Args:
        own: how sure the model is of each of its own samples, ``(m,)``, m of 2 or more.
        foreign: of each foreign one, ``(n,)``, n of 2 or more.
    """
    a, b = (np.nan_to_num(each.astype(np.float64), nan=-np.inf) for each in (own, foreign))
    below = _shares_below(a, b)  # of the foreign ones, for each own
    above = 1 - _shares_below(b, a)
    value = float(below.mean())
    if value in (0.0, 1.0):
        reach = min(1.0, _RULE_OF_THREE / min(len(a), len(b)))
        return Auroc(value, (1 - reach, 1.0) if value else (0.0, reach))
    error = math.sqrt(below.var(ddof=1) / len(a) + above.var(ddof=1) / len(b))
    odds, half = math.log(value / (1 - value)), _NORMAL_975 * error / (value * (1 - value))
    return Auroc(value, (_logistic(odds - half), _logistic(odds + half)))


def _shares_below(values: Array, others: Array) -> Array:
    ordered = np.sort(others)
    sides = [np.searchsorted(ordered, values, side) for side in ("left", "right")]
    return np.asarray((sides[0] + sides[1]) / (2 * len(ordered)))


def _logistic(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0
