"""Outputs that are no floats, such as classes, masks and counts: equal or not, and how often.

What differs takes the place of the squared error, and what differs between the samples that of the
variance: what :func:`explained` gives has the scale of R². An artifact whose values do not depend
on its inputs has 0 or less.
"""

from __future__ import annotations

import math

import numpy as np

from compress.backends.onnx.graph import Array

__all__ = ["explained", "is_discrete", "least_explained", "same"]

# A value changes where rounding moves what it was decided by across a border: how often is about
# the root of the noise, as a share of the spread.
_DEVIATIONS = 3.0
# Values at random would differ in all that is spread.
_MOST = 0.5


def is_discrete(array: Array) -> bool:
    """Whether an output is compared value by value."""
    return array.dtype.kind in "biu"


def same(expected: Array, actual: Array) -> float:
    """The share of values that are equal."""
    return float((expected == actual).mean()) if expected.size else 1.0


def explained(expected: Array, actual: Array) -> float:
    """1 less the share of values that differ over that which differs between samples.

    Where all samples have the same values, an artifact is held to these.
    """
    wrong, spread = 1 - same(expected, actual), _spread(expected)
    if spread == 0:
        return 1.0 if wrong == 0 else -math.inf
    return 1.0 - wrong / spread


def least_explained(
    expected: Array, simulated: Array, *, least: float, most: float, factors: tuple[float, float]
) -> float:
    """The bound for an artifact in formats of this tolerance.

    Args:
        expected: outputs of the float module.
        simulated: its outputs for the same inputs under the formats.
        least: noise that is always allowed, as a share of the variance (1 - R²).
        most: the most that the simulation may relax it to.
        factors: how many times what the simulation changes is a format's, up to ``most`` and above.
    """
    cost = 1 - explained(expected, simulated)
    spread = _spread(expected) * expected.size
    one_value = 1 / spread if spread else 0.0
    always, at_most = (_DEVIATIONS * math.sqrt(noise) for noise in (least, most))
    usual, chaos = factors
    return 1 - min(_MOST, max(always, min(usual * cost, at_most), chaos * cost, one_value))


def _spread(values: Array) -> float:
    """The share of values that differ from those of other samples, at the same place."""
    # Of one sample, from its own other values. Samples may be sorted, or take turns.
    rows = values if len(values) > 1 else values.reshape(-1, 1)
    shifts = {shift for shift in (1, len(rows) // 3, len(rows) // 2) if shift}
    return float(np.mean([1 - same(rows, np.roll(rows, shift, axis=0)) for shift in shifts]))
