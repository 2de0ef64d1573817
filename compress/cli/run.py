"""``compresskit run``: run a recipe, measure after every stage, write the report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.cli.json_output import others_to_stderr, print_json
from compress.cli.launch import complete_launch
from compress.cli.outputs import check_run
from compress.cli.pairs import make_pairs, missing_pairs
from compress.cli.results import repeat_result, run_result
from compress.cli.ship import ship_words
from compress.environment import process_index
from compress.errors import RecipeError
from compress.measure.target import Mode
from compress.pareto import recommend
from compress.progress import TerminalProgress
from compress.recipe import Recipe
from compress.record import Record
from compress.report import render_table
from compress.report.repeat.facts import FEWEST_SEEDS
from compress.report.repeat.page import write_repeat
from compress.report.repeat.summary import summary
from compress.report.repeat.table import repeat_text
from compress.running.repeat import check_single, failure, prepare, run_seeds, seeds_of
from compress.ship_folder import SHIP, shipped_of
from compress.tracking import Tracking
from compress.training.distributed import leave

_BUDGET_MISSED = 3


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 3 where the recipe's budget is missed.

    Of several processes that were launched together, rank 0 decides the exit code.
    """
    complete_launch()
    recipe = Recipe.load(arguments.recipe, settings=arguments.settings, imports=arguments.imports)
    if arguments.repeat is not None:
        return _repeat(arguments, recipe)
    folder = _folder(arguments, recipe.name)
    check_single(folder)
    with others_to_stderr(arguments):
        record = _execute(arguments, recipe, folder, TerminalProgress())
        leave()
        if not _is_rank_zero():
            return 0
    report = folder / "report.html"
    code = _BUDGET_MISSED if _misses_budget(record) else 0
    if arguments.as_json:
        print_json(run_result(record, folder, report), code)
        return code
    print(render_table(record))
    print(f"\nreport: {report}")
    if (shipped := shipped_of(record, folder)) is not None:
        print(ship_words(shipped))
    return code


def _repeat(arguments: argparse.Namespace, recipe: Recipe) -> int:
    """Run the recipe with several seeds; 3 where the budget is missed with any of them."""
    seeds = seeds_of(recipe.seed, arguments.repeat)
    folder = _folder(arguments, f"{recipe.name}-repeat")
    prepare(folder, fresh=arguments.fresh)
    progress = TerminalProgress()

    def execute(seed: int, own: Path) -> Record:
        if _is_rank_zero():
            progress.note(f"seed {seed} ({seeds.index(seed) + 1} of {len(seeds)}), in {own}")
        reseeded = recipe.model_copy(update={"seed": seed})
        return _execute(arguments, reseeded, own, progress)

    with others_to_stderr(arguments):
        records, failed = run_seeds(execute, folder, seeds)
    leave()
    if not _is_rank_zero():
        return 0
    missed = False
    if len(records) >= FEWEST_SEEDS:
        repeat = summary(records, {seed: str(error) for seed, error in failed.items()})
        written = write_repeat(repeat, folder)
        if not arguments.as_json:
            print(repeat_text(repeat))
            print(f"report: {written[0]}")
            print(f"ship: {folder / 'seed-N' / SHIP}, one for each seed")
        missed = repeat.misses_budget
    if failed:
        raise failure(failed, len(records), folder)
    code = _BUDGET_MISSED if missed else 0
    if arguments.as_json:
        print_json(repeat_result(recipe.name, folder, records), code)
    return code


def _folder(arguments: argparse.Namespace, name: str) -> Path:
    """Where the run is kept; one that was given was looked at before the recipe was."""
    folder = Path(arguments.out or Path("runs") / name)
    if arguments.out is None and _is_rank_zero():
        check_run(folder)
    return folder


def _execute(
    arguments: argparse.Namespace, recipe: Recipe, folder: Path, progress: TerminalProgress
) -> Record:
    tracking = Tracking.of(arguments.track if _is_rank_zero() else [], progress.note)

    def callback(event: Mapping[str, Any]) -> None:
        progress(event)
        tracking(event)

    with progress:
        # Of several processes each would make them; what rank 0 has made, others find.
        if _is_rank_zero() and (pairs := missing_pairs(recipe, arguments)) is not None:
            make_pairs(pairs, progress.note)
        return recipe.execute(
            workdir=folder,
            mode=mode_of(arguments),
            fresh=arguments.fresh,
            observer=callback,
            cache=arguments.cache,
            ship=True,
            progress=False,  # this one is shown already
        )


def _is_rank_zero() -> bool:
    """Whether this is rank 0, which alone writes and prints."""
    return process_index() == 0


def mode_of(arguments: argparse.Namespace) -> Mode:
    """How hard to measure.

    Raises:
        RecipeError: both were requested.
    """
    if arguments.quick and arguments.strict:
        raise RecipeError("--quick and --strict exclude each other; give one of them.")
    return "quick" if arguments.quick else "strict" if arguments.strict else "default"


def _misses_budget(record: Record) -> bool:
    if record.budget is None:
        return False
    return not all(recommend(record, target).meets_budget for target in record.targets)
