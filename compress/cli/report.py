"""``compresskit report``: rebuild the report of one run, or set several side by side."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from compress.cli.outputs import run_folder_of
from compress.errors import RecordError
from compress.io.atomic import write_atomically
from compress.overwriting import COMPARISON_MARK, COMPARISON_NAME
from compress.record import RECORD_NAME, Record
from compress.report import overlay, render_table, write_report
from compress.report.repeat.compare import comparison
from compress.report.repeat.facts import REPEAT_NAME
from compress.report.repeat.page import write_repeat
from compress.report.repeat.summary import gather, is_repeat
from compress.report.repeat.table import repeat_text
from compress.text_table import markdown_list


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    folders = [Path(given) for given in arguments.runs]
    repeated = [_is_repeated(folder) for folder in folders]
    if any(repeated):
        _report_repeats(folders, repeated, arguments.out)
        return 0
    records = [Record.load(folder) for folder in folders]
    if len(records) == 1 and arguments.out is None:
        written = write_report(records[0], run_folder_of(folders[0]))
        print(render_table(records[0]))
    else:
        written = overlay(records, Path(arguments.out or "overlay"))
    print("\n" + "\n".join(str(path) for path in written))
    return 0


def _is_repeated(given: Path) -> bool:
    if given.name == REPEAT_NAME:
        return True
    return os.path.isdir(given) and not os.path.exists(given / RECORD_NAME) and is_repeat(given)


def _report_repeats(folders: Sequence[Path], repeated: Sequence[bool], out: str | None) -> None:
    if not all(repeated):
        single = folders[list(repeated).index(False)]
        raise RecordError(
            f"{single}: this is no repeated run, and {folders[list(repeated).index(True)]} is one; "
            "give runs of one kind."
        )
    repeats = [gather(run_folder_of(folder)) for folder in folders]
    if len(repeats) == 1:
        written = write_repeat(repeats[0], Path(out or run_folder_of(folders[0])))
    else:
        sentences = comparison(repeats)
        written = [Path(out or "overlay") / COMPARISON_NAME]
        write_atomically(written[0], f"{markdown_list(sentences)}\n{COMPARISON_MARK}\n")
    for repeat in repeats:
        print(repeat_text(repeat), end="")
    if len(repeats) > 1:
        print("\n".join(sentences))
    print("\n" + "\n".join(str(path) for path in written))
