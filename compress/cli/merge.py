"""``compresskit merge``: take what a device measured into a run's record and report."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.cli.outputs import run_folder_of
from compress.device.merge import merge
from compress.errors import RecipeError
from compress.record import Record
from compress.report import render_table, write_report
from compress.running.lock import held


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: one name for several results.
    """
    if arguments.name is not None and len(arguments.results) > 1:
        raise RecipeError(
            f"--name is for one result, and {len(arguments.results)} were given; merge them one by "
            "one."
        )
    given = Path(arguments.run)
    folder = run_folder_of(given)
    Record.load(given)  # what is no run is not held, which would make its folder
    with held(folder):
        record = Record.load(given)
        for result in arguments.results:
            place, name = Path(result), arguments.name
            name = merge(record, folder, place, name=name, replace=arguments.replace)
            print(f"{result}: merged as the target {name!r}")
        written = write_report(record, folder)
    print(f"\n{render_table(record)}\nreport: {written[0]}")
    return 0
