"""Budgets on the command line: ``accuracy_drop=0.01,artifact_kib=50``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from compress.budget import Budget, check_budget
from compress.config.clauses import clause
from compress.config.recipe_text import plain_value
from compress.errors import RecipeError
from compress.quoting import clipped, shown
from compress.record import Record

__all__ = ["budgets_of"]


def budgets_of(given: Sequence[str], records: Sequence[Record]) -> list[Budget]:
    """The budgets that ``--budget`` names, seen to fit the metrics of the runs.

    Raises:
        RecipeError: one that is not ``limit=value`` with commas between, or that fits no metric.
    """
    metrics = dict.fromkeys(record.task.metric for record in records)
    budgets = [_budget(text) for text in given]
    for text, budget in zip(given, budgets, strict=True):
        for metric in metrics:
            _check(budget, metric, f"--budget {clipped(text)}")
    return budgets


def _check(budget: Budget, metric: str, option: str) -> None:
    try:
        check_budget(budget, metric)
    except RecipeError as error:
        raise RecipeError(f"{option}: {str(error).removeprefix('budget.')}") from None


def _budget(text: str) -> Budget:
    option = f"--budget {clipped(text)}"
    limits: dict[str, Any] = {}
    for term in text.split(","):
        name, equals, value = (part.strip() for part in term.partition("="))
        if not equals or not value:
            raise RecipeError(
                f"{option}: give limits with commas between, as in "
                "accuracy_drop=0.01,artifact_kib=50."
            )
        if name not in Budget.model_fields:
            raise RecipeError(f"{option}: there is no limit {shown(name)}; {_nearest(name)}.")
        if name in limits:
            raise RecipeError(f"{option}: {name} is given twice; give it once.")
        limits[name] = plain_value(value, option)
    try:
        return Budget.model_validate(limits)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{option}: {first['loc'][0]}: {clause(first)}.") from None


def _nearest(name: str) -> str:
    known = list(Budget.model_fields)
    near = difflib.get_close_matches(clipped(name), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}" if near else f"known are {', '.join(known)}"
