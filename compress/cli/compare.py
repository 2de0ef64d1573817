"""``compresskit compare``: what changed for the deployed model between two runs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from compress.cli.json_output import others_to_stderr, print_json
from compress.cli.outputs import run_folder_of, single_run
from compress.errors import RecipeError, RecordError
from compress.io.atomic import write_atomically
from compress.io.files import named
from compress.measure.compare import compare
from compress.measure.target import Mode, Target
from compress.recipe import Recipe
from compress.releases import Changes, Deployed, changes_between
from compress.releases.changes import check_comparable
from compress.releases.words import changes_json, changes_markdown, changes_text
from compress.running.scoring import scoring_of, supervision_of_job
from compress.running.split_arrays import SplitArrays
from compress.task import Task

_TIMED_SAMPLES = 32


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: runs of different tasks, a wrong number of rows, or no such target.
        RecordError: no such run or row, one whose file is gone, or one row given twice.
        CompressError: as :func:`compress.releases.changes_between` has it.
    """
    rows = arguments.rows
    if len(rows) > 2:
        raise RecipeError(f"--row: give one for both runs, or one for each; got {len(rows)}.")
    old, new = (
        Deployed.of(
            single_run(Path(given)),
            run_folder_of(Path(given)),
            rows[min(place, len(rows) - 1)] if rows else None,
            arguments.target,
        )
        for place, given in enumerate((arguments.old, arguments.new))
    )
    check_comparable(old, new)
    with others_to_stderr(arguments):
        found = _compared(old, new, arguments)
    if arguments.out is not None:
        write_atomically(Path(arguments.out), changes_markdown(found))
    if arguments.as_json:
        print_json(changes_json(found))
        return 0
    print(changes_text(found), end="")
    if arguments.out is not None:
        print(arguments.out)
    return 0


def _compared(old: Deployed, new: Deployed, arguments: argparse.Namespace) -> Changes:
    recipe = Recipe.of_record(new.record, imports=arguments.imports)
    if recipe.task is None or recipe.model is None:
        raise RecordError(
            f"{named(new.folder)}: the run was given its task and model in Python, and its recipe "
            "names none; compare there, by compress.releases.changes_between."
        )
    task = recipe.make_task()
    job = recipe.job(recipe.make_candidate(task), task, workdir=new.folder)
    found = changes_between(old, new, task, scoring_of(job, supervision_of_job(job)))
    if not arguments.time:
        return found
    target = next((one for one in job.targets if one.name == new.target), None)
    if target is None:
        raise RecipeError(
            f"--time: the target {named(new.target)} is none of the new run's recipe, so that "
            "nothing says how to reach it; leave --time out, or give another --target."
        )
    return _timed(found, task, target, "quick" if arguments.quick else "default")


def _timed(found: Changes, task: Task, target: Target, mode: Mode) -> Changes:
    inputs = SplitArrays.spread(task.test, _TIMED_SAMPLES).inputs
    models = [found.old.model, found.new.model]
    return replace(found, timed=tuple(compare(models, target, mode, inputs=inputs)))
