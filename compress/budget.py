"""Budget: what a device allows, as a recipe says it. No torch."""

from __future__ import annotations

from typing import Any

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from compress.config.drops import Drop, Points
from compress.config.fields import Flag, Number
from compress.config.settings import Settings
from compress.errors import RecipeError
from compress.metrics import has_absolute_drop

__all__ = ["Budget", "absolute_drop", "check_budget", "check_drop"]

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
    relative: Flag = False
    """Whether ``accuracy_drop`` is a share of the baseline's score: 0.01, or ``1%``, of 0.8 is then
    0.008, and of a perplexity of 20 it is 0.2."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Budgets that do not use it are written as they were.
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if key != "relative" or value}

    @model_validator(mode="after")
    def _is_about_a_drop(self) -> Budget:
        if self.relative and self.accuracy_drop is None:
            raise ValueError("relative is about accuracy_drop: give it, or leave relative out")
        return self

    def resolved(self, score: float | None) -> Budget:
        """This with its drop in the unit of the metric, of a baseline with this score."""
        if not self.relative or self.accuracy_drop is None or score is None:
            return self
        drop = absolute_drop(self.accuracy_drop, score)
        return self.model_copy(update={"accuracy_drop": drop, "relative": False})


def check_budget(budget: Budget | None, metric: str) -> None:
    """Refuse a drop that cannot have been meant for a task with this metric.

    Raises:
        RecipeError: all of a rate may be lost, or points of what is none.
    """
    if budget is not None and budget.accuracy_drop is not None:
        where = "budget.accuracy_drop"
        check_drop(budget.accuracy_drop, metric, where, relative=budget.relative)


def absolute_drop(share: float, score: float) -> float:
    """What a share of a score is, in the unit of the metric."""
    return float(share) * abs(score)


def check_drop(drop: float, metric: str, where: str, *, relative: bool = False) -> None:
    """Refuse a drop that cannot have been meant for a task with this metric.

    Args:
        drop: as it was read.
        metric: of the task.
        where: the key, for the sentence.
        relative: whether it is a share of the score, of whatever metric.

    Raises:
        RecipeError: all of a rate may be lost, or points of what is none.
    """
    if relative:
        if drop >= 1:
            raise RecipeError(
                f"{where}: {drop:g} of the score would be all of it; relative drops are shares "
                "below 1, such as 0.02."
            )
        return
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
