"""Metrics: what one is, which are built in, and what a name says of how it is shown.

The one owner of the rules of showing and losing; everything else asks here instead of comparing
names. A metric on one output of several is called ``f1(scores)``, and all rules are those of f1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from compress.quoting import in_yaml

__all__ = [
    "METRICS",
    "Metric",
    "MetricName",
    "MetricOn",
    "allowance",
    "bare",
    "change_unit",
    "has_absolute_drop",
    "is_decibel",
    "is_rate",
    "metric_direction",
    "metric_name",
    "metric_unit",
    "most",
    "name_on",
    "written",
]

#: ``(outputs, labels) -> score of each sample``, in numpy, shape ``(n,)``, or one number for all of
#: them, which then gets its interval by resampling. Of a model with several outputs a function gets
#: them as a dictionary by name, and labels as the data have them, a dictionary where these are by
#: name too. A ``torchmetrics.Metric`` is taken as it is.
Metric = Callable[[Any, Any], Any]

#: The built-in metrics. ``f1``, ``mean-iou``, ``auroc`` and ``spearman`` are worked out over a data
#: set; the others are means over samples.
MetricName = Literal[
    "accuracy",
    "mse",
    "r2",
    "binary-accuracy",
    "f1",
    "mean-iou",
    "auroc",
    "spearman",
    "psnr",
    "ssim",
]
METRICS: tuple[MetricName, ...] = get_args(MetricName)


@dataclass(frozen=True)
class MetricOn:
    """A metric on one output of a model that has several.

    Args:
        metric: built in, a function of one's own, or a ``torchmetrics.Metric``; it is given that
            output, and of labels that are by name those for it.
        on: the name of the output.
    """

    metric: MetricName | Metric
    on: str


def metric_name(metric: MetricName | Metric | MetricOn) -> str:
    """The name of a built-in metric, or of a function or class of one's own.

    One on an output has the output's name in parentheses: ``f1(scores)``.
    """
    if isinstance(metric, MetricOn):
        return name_on(metric_name(metric.metric), metric.on)
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "__name__", type(metric).__name__))


def name_on(name: str, on: str | None) -> str:
    """What a metric on an output is called; as it is without one."""
    return name if on is None else f"{name}({on})"


def written(name: str, on: str) -> str:
    """A metric on an output as a recipe writes it; a place such as ``0`` is in quotes."""
    return f"{{name: {name}, on: {in_yaml(on)}}}"


def bare(name: str) -> str:
    """The name of a metric without that of an output."""
    return name.partition("(")[0] if name.endswith(")") else name


def metric_direction(metric: MetricName | Metric | MetricOn) -> bool | None:
    """Whether more of a metric is better; ``None`` where one of one's own does not say."""
    if isinstance(metric, MetricOn):
        return metric_direction(metric.metric)
    if isinstance(metric, str):
        return metric != "mse"
    given = getattr(metric, "higher_is_better", None)
    return given if isinstance(given, bool) else None


# Shares of samples or outputs, shown in percent.
_RATES = frozenset({"accuracy", "agreement", "binary-accuracy", "binary-agreement"})
# Not rates, but as much at home between 0 and 1: shown with four decimals.
_FRACTIONS = frozenset(
    {"r2", "f1", "mean-iou", "auroc", "spearman", "map", "map-50", "map-75", "ssim"}
)
# A drop is in decibels too, as large as it may be.
_DECIBELS = frozenset({"psnr"})

_ALLOWED = 0.01
# Far below what anyone sees, and about what two trainings differ by.
_ALLOWED_DB = 0.1


def is_rate(metric: str) -> bool:
    """Whether the metric is a share of samples or outputs, shown in percent."""
    return bare(metric) in _RATES


def is_decibel(metric: str) -> bool:
    """Whether the metric is in decibels."""
    return bare(metric) in _DECIBELS


def metric_unit(metric: str) -> str:
    """The unit that a metric is shown in: ``%``, ``dB``, or none."""
    return "%" if is_rate(metric) else "dB" if is_decibel(metric) else ""


def change_unit(metric: str) -> str:
    """The unit that a change of a metric is shown in: ``pt``, ``dB``, or none."""
    return "pt" if is_rate(metric) else metric_unit(metric)


def has_absolute_drop(metric: str) -> bool:
    """Whether the metric has no value above 1, so that a drop is in points of that.

    Of a metric in decibels a drop is a number of its own, too, and may be of any size.
    """
    return bare(metric) in _RATES | _FRACTIONS


def most(metric: str) -> float | None:
    """The largest value that the metric can have, where there is one."""
    return 1.0 if has_absolute_drop(metric) else None


def allowance(metric: str, baseline: float) -> float:
    """How much worse still counts as no worse where nobody says.

    One point of a rate, 0.01 of R² and other fractions, 0.1 dB, and of any other metric 1 % of the
    baseline's value, which is nothing where that is 0.
    """
    if is_decibel(metric):
        return _ALLOWED_DB
    return _ALLOWED if has_absolute_drop(metric) else _ALLOWED * abs(baseline)
