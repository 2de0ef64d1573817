"""Metrics: what the name of a metric says of how it is shown and how much of it may be lost.

The one owner of these rules; everything else asks here instead of comparing names.
"""

from __future__ import annotations

__all__ = ["allowance", "has_absolute_drop", "is_rate", "most"]

# Shares of samples or outputs, shown in percent.
_RATES = frozenset({"accuracy", "agreement", "binary-accuracy", "binary-agreement"})
# Not rates, but as much at home between 0 and 1: shown with four decimals.
_FRACTIONS = frozenset({"r2", "f1", "mean-iou", "auroc", "spearman"})

_ALLOWED = 0.01


def is_rate(metric: str) -> bool:
    """Whether the metric is a share of samples or outputs, shown in percent."""
    return metric in _RATES


def has_absolute_drop(metric: str) -> bool:
    """Whether a drop is a number of its own, and not a share of the baseline's value."""
    return metric in _RATES or metric in _FRACTIONS


def most(metric: str) -> float | None:
    """The largest value that the metric can have, where there is one."""
    return 1.0 if has_absolute_drop(metric) else None


def allowance(metric: str, baseline: float) -> float:
    """How much worse still counts as no worse where nobody says.

    One point of a rate, 0.01 of R² and other fractions, and of any other metric 1 % of the
    baseline's value, which is nothing where that is 0.
    """
    return _ALLOWED if has_absolute_drop(metric) else _ALLOWED * abs(baseline)
