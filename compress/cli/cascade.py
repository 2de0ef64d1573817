"""``compresskit cascade``: a row answers, and what it is not sure of goes to a larger one."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compress.cascade.build import Asked, build
from compress.cascade.models import check_metric
from compress.cascade.threshold import Wanted
from compress.cascade.words import cascade_text
from compress.cli.cascade_frames import cascade_frames
from compress.cli.json_output import others_to_stderr, print_json
from compress.cli.outputs import run_folder_of, single_run
from compress.config.drops import Drop
from compress.errors import RecipeError, RecordError
from compress.io.files import named
from compress.overwriting import CASCADE_NAME
from compress.quoting import shown
from compress.recipe import Recipe
from compress.task import Dataset, Task
from compress.tasks import TASKS, make_task
from compress.tasks.arrays import inputs_of
from compress.tasks.image_to_image import TASK_NAME
from compress.tasks.serving import read_serving

_FOLDER = "cascade"
_RATE: TypeAdapter[float] = TypeAdapter(Drop)
_SHARE = 0.1


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: a share or an accuracy that is none, no such rows, or a task without classes.
        RecordError: no such run or row, or one whose file is gone or was changed.
        CompressError: as :func:`compress.cascade.build.build` has it.
    """
    wanted, folder = wanted_of(arguments), run_folder_of(Path(arguments.run))
    record = single_run(Path(arguments.run))
    recipe = Recipe.of_record(record, imports=arguments.imports)
    if recipe.task is None or recipe.model is None:
        raise RecordError(
            f"{named(folder)}: the run was given its task and model in Python, and its recipe "
            "names none; make the cascade there, by compress.cascade.build."
        )
    if recipe.task.name == TASK_NAME:
        return cascade_frames(arguments, wanted, recipe, folder)
    check_metric(record.task.metric, record.task.name)
    asked = Asked(
        wanted=wanted,
        row=arguments.row,
        larger=arguments.larger,
        target=arguments.target,
        scores=tuple(arguments.scores or ("probability",)),
        mode="strict" if arguments.strict else "quick" if arguments.quick else "default",
        out=Path(arguments.out) if arguments.out is not None else folder / _FOLDER,
    )
    with others_to_stderr(arguments):
        task = recipe.make_task()
        against = dict(_foreign(given, task) for given in arguments.against)
        job = recipe.job(recipe.make_candidate(task), task, workdir=folder)
        found = build(record, folder, job, asked, against)
    path = asked.out / CASCADE_NAME
    if arguments.as_json:
        facts = {"command": "cascade", "status": "done", "error": None}
        print_json({**facts, "folder": str(asked.out), **asdict(found)})
        return 0
    print(cascade_text(found), end="")
    print(f"cascade: {path}")
    print(f"run it: python {asked.out / 'run.py'}")
    return 0


def wanted_of(arguments: argparse.Namespace) -> Wanted:
    """What the threshold is chosen for: a share of a tenth where nothing is given.

    Raises:
        RecipeError: several are given, or a number that is none.
    """
    names = ("share", "drop", "accuracy")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    if len(given) > 1:
        raise RecipeError(f"{' and '.join(f'--{name}' for name in given)}: give one of them.")
    if not given:
        return Wanted(share=_SHARE)
    ((name, text),) = given.items()
    try:
        value = _RATE.validate_python(text)
    except ValidationError:
        value = -1.0
    if name == "drop" and 0 <= value < 1:
        return Wanted(drop=value)
    if name != "drop" and 0 < value <= 1:
        return Wanted(share=value) if name == "share" else Wanted(accuracy=value)
    what = {
        "share": "a share of the samples above 0 and up to 1, as in 10% or 0.1",
        "drop": "points of accuracy from 0 on, as in 0.2pt or 0.002",
        "accuracy": "an accuracy above 0 and up to 1, as in 93% or 0.93",
    }
    raise RecipeError(f"--{name} {shown(text)}: give {what[name]}.")


def _foreign(given: str, task: Task) -> tuple[str, Dataset]:
    """Samples that a command line names: a file or a folder, or the test split of a task."""
    path = Path(given)
    if os.path.lexists(path):
        return given, read_serving(task, path, f"--against {named(given)}", {})
    if given not in TASKS:
        raise RecipeError(
            f"--against {named(given)}: there is no such file or folder, and no such task; give "
            f"samples of the task {named(task.name)}'s form, or one of {', '.join(TASKS)}."
        )
    other = make_task(given)
    if other.classes != task.classes:
        return given, inputs_of(other.test)
    return given, other.test
