"""``compresskit plan``: check a recipe and forecast what it costs, without running a stage."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.recipe import Recipe
from compress.running.forecast import Forecast, StageForecast


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    recipe = Recipe.load(arguments.recipe, settings=arguments.settings, imports=arguments.imports)
    folder = Path("runs") / recipe.name
    print(describe(recipe, recipe.plan(workdir=folder)))
    return 0


def describe(recipe: Recipe, plan: Forecast) -> str:
    """The plan as text."""
    lines = [f"{recipe.name}: {recipe.description or 'no description'}", ""]
    lines += [_line(stage) for stage in plan.stages]
    lines += ["", *(f"  {note}" for note in plan.notes)]
    count, targets = len(plan.stages), len(recipe.targets)
    measuring = f"measuring {count} rows on {targets} target{'s' * (targets > 1)}"
    costs = (
        f"about {_duration(plan.seconds)}",
        f"{plan.memory_bytes / 2**30:.1f} GiB of memory",
        f"{max(1, round(plan.disk_bytes / 2**20))} MiB of disk",
    )
    lines += [
        "",
        f"  {measuring}: about {_duration(plan.measuring_s)}",
        f"  in all {', '.join(costs)}",
        "  (times are from one batch of each model, on this machine as busy as it is now)",
    ]
    return "\n".join(lines)


def _line(stage: StageForecast) -> str:
    cost = f", about {_duration(stage.seconds)}" if stage.seconds else ""
    if stage.teacher_cache_bytes:
        cost += (
            f", {max(1, round(stage.teacher_cache_bytes / 2**20))} MiB of cached teacher outputs"
        )
    return (
        f"  {stage.index}  {stage.label:<12} {stage.sentence}\n"
        f"     {'':<12} {stage.parameters:,} parameters{cost}"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
