"""``compresskit ship``: a row of a run as a folder that runs with numpy and onnxruntime alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from compress.cli.outputs import run_folder_of, single_run
from compress.config.fields import LARGEST_BATCH
from compress.errors import RecipeError, RecordError
from compress.formatting import sanitize
from compress.io.files import named
from compress.recipe import Recipe
from compress.record import Record
from compress.report import write_report
from compress.running.job import Job
from compress.ship import ShipRequest, write_ship
from compress.ship_folder import SHIP, Shipped

__all__ = ["run", "ship_words"]

_MOST_SAMPLES = 1_000_000_000


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: a number that is none, no such target, or a folder that is somebody's.
        RecordError: no such run or row, or one whose file is gone.
        CompressError: as :func:`compress.ship.write_ship` has it.
    """
    given = Path(arguments.run)
    folder = run_folder_of(given)
    record = single_run(given)
    request = ShipRequest(
        row=arguments.row,
        target=arguments.target,
        out=None if arguments.out is None else Path(arguments.out),
        batch=_number("--batch", arguments.batch, "any", LARGEST_BATCH),
        samples=_number("--samples", arguments.samples, "all", _MOST_SAMPLES),
    )
    shipped = write_ship(record, folder, lambda: _job(record, folder, arguments.imports), request)
    if arguments.out is None and (folder / "report.html").exists():
        write_report(record, folder)  # whose answer names the row that is shipped
    print(ship_words(shipped))
    if not shipped.was_measured:
        print("this file was not timed: the record is about another batch of the same model")
    print(f"run it: python {shipped.folder / 'run.py'} --check")
    return 0


def ship_words(shipped: Shipped) -> str:
    """Where a row lies, in a line."""
    what = f"row {shipped.row}, {sanitize(shipped.stage, 40)}"
    if shipped.row == 0:
        what += ": the model as it came in"
    return f"ship: {shipped.folder} ({what})"


def _job(record: Record, folder: Path, imports: list[str]) -> Job:
    recipe = Recipe.of_record(record, imports=imports)
    if recipe.task is None or recipe.model is None:
        raise RecordError(
            f"{named(folder)}: the run was given its task and model in Python, and its recipe "
            "names none; ship it there (compress.ship.write_ship), or take what is in "
            f"{named(folder / SHIP)}."
        )
    task = recipe.make_task()
    return recipe.job(recipe.make_candidate(task), task, workdir=folder)


def _number(option: str, given: str | None, word: Literal["any", "all"], most: int) -> int | None:
    """A number from 1 on, or the word."""
    if given is None or given == word:
        return given  # type: ignore[return-value]
    if not given.isdecimal() or not given.isascii() or not 1 <= int(given[:12]) <= most:
        raise RecipeError(f"{option} {named(given)}: give a number from 1 to {most:,}, or {word}.")
    return int(given)
