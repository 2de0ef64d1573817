"""Pictures of a report for the docs: ``python -m tests.tools.screenshots RUN OUT``.

RUN is a run folder. OUT gets the top of its page at two widths, in light and in dark.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from compress.io.atomic import write_atomically
from compress.record import Record
from compress.report.page.page import page

from .chromium import Chromium

__all__ = ["take"]

#: Name, width, and how much of the page is shown, in pixels.
VIEWS = (("wide", 1280, 1400), ("narrow", 400, 1820))


def take(record: Record, out: Path, *, whole: bool = False) -> list[Path]:
    """Write ``report-{wide,narrow}-{light,dark}.png``; all of the page where ``whole``.

    Raises:
        MissingExtra: Chromium is not installed.
        StorageError: the disk refused.
    """
    written = []
    with tempfile.TemporaryDirectory() as folder, Chromium() as browser:
        file = Path(folder) / "report.html"
        write_atomically(file, page(record))
        for name, width, height in VIEWS:
            for dark in (False, True):
                with browser.tab(file.as_uri(), width=width, height=900, dark=dark) as tab:
                    picture = tab.picture(height=None if whole else height)
                path = out / f"report-{name}-{'dark' if dark else 'light'}.png"
                write_atomically(path, picture)
                written.append(path)
    return written


if __name__ == "__main__":
    run, target, *flags = sys.argv[1:]
    for taken in take(Record.load(Path(run)), Path(target), whole="--whole" in flags):
        print(taken)
