"""``compresskit plan``: check a recipe and forecast what it costs, without running a stage."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap

from compress.cli.json_output import others_to_stderr, print_json
from compress.cli.pairs import missing_pairs
from compress.cli.results import plan_result
from compress.cli.run import mode_of
from compress.errors import RecipeError
from compress.recipe import Recipe
from compress.running.forecast import Forecast, StageForecast
from compress.running.repeat import seeds_of

_NARROWEST, _WIDEST = 40, 112


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    recipe = Recipe.load(arguments.recipe, settings=arguments.settings, imports=arguments.imports)
    if (pairs := missing_pairs(recipe, arguments)) is not None:
        raise RecipeError(
            f"{len(pairs.missing):,} of {len(pairs.pairs):,} pairs of the task are not made yet, "
            f"and a plan makes none: `compresskit pairs {arguments.recipe}` makes them, and says "
            "how long that takes."
        )
    with others_to_stderr(arguments):
        plan = recipe.plan(mode=mode_of(arguments), reach=True)
    if arguments.repeat is not None:
        plan = plan.repeated(len(seeds_of(recipe.seed, arguments.repeat)))
    if arguments.as_json:
        print_json(plan_result(recipe.name, plan))
    else:
        is_read = sys.stdout is not None and sys.stdout.isatty()
        print(describe(recipe, plan, shutil.get_terminal_size().columns if is_read else None))
    return 0


def describe(recipe: Recipe, plan: Forecast, width: int | None = None) -> str:
    """The plan as text; what a stage does in lines of ``width`` cells, or on one line."""
    lines = [f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name, ""]
    lines += [_line(stage, width) for stage in plan.stages]
    lines += ["", *(f"  {note}" for note in plan.notes)]
    count, targets = len(plan.stages), len(recipe.targets)
    measuring = f"measuring {count} rows on {targets} target{'s' * (targets > 1)}"
    if plan.mode != "default":
        measuring += f" in {plan.mode} mode"
    costs = (
        f"about {_duration(plan.seconds)}",
        f"{plan.memory_bytes / 2**30:.1f} GiB of memory",
        f"{max(1, round(plan.disk_bytes / 2**20))} MiB of disk",
    )
    lines += [
        "",
        f"  {measuring}: about {_duration(plan.measuring_s)}",
        f"  in all {', '.join(costs)}{f', with {plan.seeds} seeds' if plan.seeds > 1 else ''}",
        "  (times are from one batch of each model, on this machine as busy as it is now)",
    ]
    return "\n".join(lines)


def _line(stage: StageForecast, width: int | None) -> str:
    cost = f", about {_duration(stage.seconds)}" if stage.seconds else ""
    if stage.teacher_cache_bytes:
        cost += (
            f", {max(1, round(stage.teacher_cache_bytes / 2**20))} MiB of cached teacher outputs"
        )
    before, indent = f"  {stage.index}  {stage.label:<12} ", " " * 18
    does = stage.sentence
    if width is not None:
        room = max(_NARROWEST, min(width, _WIDEST) - len(indent))
        does = f"\n{indent}".join(textwrap.wrap(does, room, break_long_words=False))
    return f"{before}{does}\n{indent}{stage.parameters:,} parameters{cost}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
