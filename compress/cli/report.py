"""``compresskit report``: rebuild the report of one run, or set several side by side."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from compress.cli.budgets import budgets_of
from compress.cli.json_output import print_json
from compress.cli.outputs import run_folder_of
from compress.cli.results import comparison_result, run_result
from compress.errors import RecipeError, RecordError
from compress.io.atomic import write_atomically
from compress.overwriting import COMPARISON_MARK, COMPARISON_NAME
from compress.record import RECORD_NAME, Record
from compress.report import (
    compared,
    comparison_text,
    render_table,
    write_comparison,
    write_report,
)
from compress.report.repeat.compare import comparison
from compress.report.repeat.facts import REPEAT_NAME
from compress.report.repeat.page import write_repeat
from compress.report.repeat.summary import gather, is_repeat
from compress.report.repeat.table import repeat_text
from compress.text_table import markdown_list


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    folders = _once([Path(given) for given in arguments.runs])
    repeated = [_is_repeated(folder) for folder in folders]
    if any(repeated):
        _report_repeats(folders, repeated, arguments)
        return 0
    records = [Record.load(folder) for folder in folders]
    budgets = budgets_of(arguments.budget, records)
    if len(arguments.runs) == 1 and arguments.out is None and not budgets:
        written = write_report(records[0], run_folder_of(folders[0]))
        if arguments.as_json:
            print_json(run_result(records[0], run_folder_of(folders[0]), written[0]))
            return 0
        print(render_table(records[0]))
    else:
        names = [run_folder_of(folder).resolve().name for folder in folders]
        found = compared(records, names, budgets)
        written = write_comparison(found, Path(arguments.out or "overlay"))
        if arguments.as_json:
            print_json(comparison_result(found, list(map(str, folders)), written))
            return 0
        for twice in _twice(arguments.runs, folders):
            print(f"{twice}: given twice, and shown once.\n")
        print(comparison_text(found), end="")
    print("\n" + "\n".join(str(path) for path in written))
    return 0


def _once(given: Sequence[Path]) -> list[Path]:
    """The folders without those that were given before, whatever they are called."""
    found = {os.path.realpath(run_folder_of(folder)): folder for folder in reversed(given)}
    return [folder for folder in given if found[os.path.realpath(run_folder_of(folder))] is folder]


def _twice(given: Sequence[str], folders: Sequence[Path]) -> list[str]:
    left = list(map(str, folders))
    twice = []
    for each in map(str, map(Path, given)):
        if each in left:
            left.remove(each)
        else:
            twice.append(each)
    return list(dict.fromkeys(twice))


def _is_repeated(given: Path) -> bool:
    if given.name == REPEAT_NAME:
        return True
    return os.path.isdir(given) and not os.path.exists(given / RECORD_NAME) and is_repeat(given)


def _report_repeats(
    folders: Sequence[Path], repeated: Sequence[bool], arguments: argparse.Namespace
) -> None:
    out: str | None = arguments.out
    if not all(repeated):
        single = folders[list(repeated).index(False)]
        raise RecordError(
            f"{single}: this is no repeated run, and {folders[list(repeated).index(True)]} is one; "
            "give runs of one kind."
        )
    if arguments.budget:
        raise RecipeError("--budget: winners are named among single runs, and these are repeated.")
    repeats = [gather(run_folder_of(folder)) for folder in folders]
    if len(repeats) == 1:
        written = write_repeat(repeats[0], Path(out or run_folder_of(folders[0])))
    else:
        sentences = comparison(repeats)
        written = [Path(out or "overlay") / COMPARISON_NAME]
        write_atomically(written[0], f"{markdown_list(sentences)}\n{COMPARISON_MARK}\n")
    if arguments.as_json:
        print_json({"status": "done", "files": list(map(str, written))})
        return
    for repeat in repeats:
        print(repeat_text(repeat), end="")
    if len(repeats) > 1:
        print("\n".join(sentences))
    print("\n" + "\n".join(str(path) for path in written))
