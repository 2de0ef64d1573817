"""``compresskit run``: run a recipe, measure after every stage, write the report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.algorithms.processes import leave
from compress.cli.launch import complete_launch
from compress.cli.progress import Progress
from compress.environment import process_index
from compress.errors import RecipeError
from compress.measure.target import Mode
from compress.pareto import recommend
from compress.recipe import Recipe
from compress.record import Record
from compress.report import render_table, write_report
from compress.tracking import Tracking

_BUDGET_MISSED = 3


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 3 where the recipe's budget is missed.

    Of several processes that were launched together, the first one's result is what counts.
    """
    complete_launch()
    recipe = Recipe.load(arguments.recipe, settings=arguments.settings, imports=arguments.imports)
    folder = Path(arguments.out or Path("runs") / recipe.name)
    progress = Progress()
    first = process_index() == 0  # of a launch, only the first process writes and speaks
    tracking = Tracking.of(arguments.track if first else [], progress.note)

    def observer(event: Mapping[str, Any]) -> None:
        progress(event)
        tracking(event)

    record = recipe.execute(
        workdir=folder,
        mode=mode_of(arguments),
        fresh=arguments.fresh,
        observer=observer,
    )
    leave()
    if not first:
        return 0
    written = write_report(record, folder)
    print(render_table(record))
    report = next((path for path in written if path.suffix == ".html"), folder)
    print(f"\nreport: {report}")
    return _BUDGET_MISSED if _misses_budget(record) else 0


def mode_of(arguments: argparse.Namespace) -> Mode:
    """How hard to measure.

    Raises:
        RecipeError: both ends were asked for.
    """
    if arguments.quick and arguments.strict:
        raise RecipeError("--quick and --strict exclude each other; give one of them.")
    return "quick" if arguments.quick else "strict" if arguments.strict else "default"


def _misses_budget(record: Record) -> bool:
    if record.budget is None:
        return False
    return not all(recommend(record, target).meets_budget for target in record.targets)
