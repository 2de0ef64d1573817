"""``compresskit pairs``: have a teacher make its images before a run, which then finds them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from compress.config.references import CodeReferences
from compress.errors import RecipeError
from compress.formatting import duration
from compress.recipe import Recipe
from compress.tasks.image_to_image import plan_of
from compress.tasks.pairs.color_map import without_net
from compress.tasks.pairs.making import PairsDone, PairsPlan

__all__ = ["make_pairs", "missing_pairs"]

_EVERY_S = 5.0


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    recipe = Recipe.load(arguments.recipe, settings=arguments.settings, imports=arguments.imports)
    plan = _plan(recipe, arguments)
    if plan is None:
        raise RecipeError(
            f"the recipe {recipe.name!r} is of no task image-to-image, which alone has pairs; "
            "run it as it is."
        )
    make_pairs(plan, lambda text: print(text, flush=True))
    taken = plan.teacher_s
    print(f"{len(plan.pairs):,} pairs in {plan.folder}")
    if taken is not None:
        size = plan.of.size
        print(f"the teacher takes {duration(taken)} for an image of {size} by {size} pixels")
    found = without_net(plan.arrays("train"), plan.arrays("test"))
    three = (found.unchanged, found.color_map, found.own_color_map)
    unchanged, color_map, own = (f"{float(one.mean()):.1f} dB" for one in three)
    print(
        f"without a net, on the test images, PSNR against the teacher's: {unchanged} unchanged, "
        f"{color_map} by the map of colors that fits the training pairs best, {own} by one for "
        "each image, fitted to the teacher's; a net that is no better is not needed"
    )
    return 0


def missing_pairs(recipe: Recipe, arguments: argparse.Namespace) -> PairsPlan | None:
    """The pairs of a recipe, where it has some and they are not all made."""
    plan = _plan(recipe, arguments)
    return plan if plan is not None and plan.missing else None


def make_pairs(plan: PairsPlan, note: Callable[[str], None]) -> None:
    """Make what is missing, with a line at first, at last, and every few seconds.

    Args:
        plan: of the pairs.
        note: shows a line.
    """
    if plan.photos.note is not None:
        note(f"photographs: {plan.photos.note}")
    counts = ", ".join(f"{len(photos)} for {part}" for part, photos in plan.photos.parts.items())
    missing = len(plan.missing)
    note(f"photographs: {counts}; pairs: {len(plan.pairs) - missing} of {len(plan.pairs)} are made")
    last = -_EVERY_S

    def report(made: PairsDone) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY_S or made.done == made.of:
            last = now
            left = f", {duration(made.left_s)} left" if made.done < made.of else ""
            each = f"{duration(made.teacher_s)} for an image"
            note(f"pairs: {made.done} of {made.of}, {each}{left}")

    plan.make(report)


def _plan(recipe: Recipe, arguments: argparse.Namespace) -> PairsPlan | None:
    references = CodeReferences.of(arguments.imports)
    return None if recipe.task is None else plan_of(recipe.task, references)
