"""Budget: what a device allows, as a recipe says it. No torch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import (
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from compress.config.fields import LARGEST_FACTOR, Number
from compress.config.settings import Settings
from compress.errors import RecipeError
from compress.metrics import has_absolute_drop
from compress.quoting import shown

__all__ = ["Budget", "Points", "check_budget"]

_LARGEST_BUDGET = 1e12


class Points(float):
    """A share that was given in points: 0.01 where ``1%`` or ``1pt`` was written."""


_POINTS = re.compile(r"([0-9]{1,9}(?:\.[0-9]*)?|\.[0-9]+)\s*(?:%|pt)")
_PLAIN_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


def _drop(given: object, number: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(given, str):
        return number(given)
    found = _POINTS.fullmatch(given.strip())
    if found and float(found[1]) <= 100:
        return Points(float(found[1]) / 100)
    if not _PLAIN_NUMBER.fullmatch(given.strip()):
        raise ValueError(
            f"{shown(given)} is neither a number nor points of accuracy, up to 100; "
            "write 0.01, 1% or 1pt"
        )
    return number(float(given))


_Drop = Annotated[
    Number,
    Field(ge=0, le=LARGEST_FACTOR),
    WrapValidator(_drop),
    WithJsonSchema(
        {
            "anyOf": [
                {"minimum": 0, "type": "number"},
                {"pattern": r"^[\d.]+ *(%|pt)$", "type": "string"},
            ]
        }
    ),
]


class Budget(Settings):
    """What the device allows; a row that is within every limit may be shipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_p50_ms: Number | None = Field(default=None, gt=0, le=_LARGEST_BUDGET)
    """The longest median time of one inference on the first target, at its batch."""
    artifact_kib: Number | None = Field(default=None, gt=0, le=_LARGEST_BUDGET)
    """The largest file that may be shipped, external data included."""
    model_peak_mib: Number | None = Field(default=None, gt=0, le=_LARGEST_BUDGET)
    """The most memory that the model may take at its peak, above what the runtime takes by
    itself."""
    accuracy_drop: _Drop | None = None
    """What the task's metric may lose against the baseline row: a share of a rate, such as 0.01, or
    points of it, as ``1%`` or ``1pt``; of another metric, a number in its own unit."""


def check_budget(budget: Budget | None, metric: str) -> None:
    """Refuse a drop that cannot have been meant for a task with this metric.

    Raises:
        RecipeError: all of a rate may be lost, or points of what is none.
    """
    drop = budget.accuracy_drop if budget is not None else None
    if drop is None:
        return
    points = isinstance(drop, Points)
    if points and not has_absolute_drop(metric):
        raise RecipeError(
            f"budget.accuracy_drop: points are of a rate such as accuracy, and {metric} is none; "
            f"give the drop as a number in the unit of {metric}."
        )
    if drop >= 1 and not points and has_absolute_drop(metric):
        amount, noun = ("all", "one point") if drop == 1 else ("more than all", f"{drop:g} points")
        raise RecipeError(
            f"budget.accuracy_drop: {drop:g} would be {amount} of the {metric}; write {drop:g}pt "
            f"for {noun}."
        )
