"""Budget: what a device allows, as a recipe says it. No torch."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from compress.config.drops import Drop, Points
from compress.config.fields import Number
from compress.config.settings import Settings
from compress.errors import RecipeError
from compress.metrics import has_absolute_drop

__all__ = ["Budget", "check_budget", "check_drop"]

_LARGEST_BUDGET = 1e12


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
    accuracy_drop: Drop | None = None
    """What the task's metric may lose against the baseline row: a share of a rate, such as 0.01, or
    points of it, as ``1%`` or ``1pt``; of another metric, a number in its own unit."""


def check_budget(budget: Budget | None, metric: str) -> None:
    """Refuse a drop that cannot have been meant for a task with this metric.

    Raises:
        RecipeError: all of a rate may be lost, or points of what is none.
    """
    if budget is not None and budget.accuracy_drop is not None:
        check_drop(budget.accuracy_drop, metric, "budget.accuracy_drop")


def check_drop(drop: float, metric: str, where: str) -> None:
    """Refuse a drop that cannot have been meant for a task with this metric.

    Args:
        drop: as it was read.
        metric: of the task.
        where: the key, for the sentence.

    Raises:
        RecipeError: all of a rate may be lost, or points of what is none.
    """
    points = isinstance(drop, Points)
    if points and not has_absolute_drop(metric):
        raise RecipeError(
            f"{where}: points are of a rate such as accuracy, and {metric} is none; "
            f"give the drop as a number in the unit of {metric}."
        )
    if drop >= 1 and not points and has_absolute_drop(metric):
        amount, noun = ("all", "one point") if drop == 1 else ("more than all", f"{drop:g} points")
        raise RecipeError(
            f"{where}: {drop:g} would be {amount} of the {metric}; write {drop:g}pt for {noun}."
        )
