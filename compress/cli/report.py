"""``compresskit report``: rebuild the report of one run, or overlay several."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.record import Record
from compress.report import overlay, render_table, write_report


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    records = [Record.load(Path(folder)) for folder in arguments.runs]
    if len(records) == 1 and arguments.out is None:
        written = write_report(records[0], _folder_of(arguments.runs[0]))
        print(render_table(records[0]))
    else:
        written = overlay(records, Path(arguments.out or "overlay"))
    print("\n" + "\n".join(str(path) for path in written))
    return 0


def _folder_of(given: str) -> Path:
    path = Path(given)
    return path if path.is_dir() else path.parent
