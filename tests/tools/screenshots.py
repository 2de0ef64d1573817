"""Pictures of a report for the docs: ``python -m tests.tools.screenshots RUN OUT``.

RUN is a run folder. OUT gets the top of its page at two widths, in light and in dark, and the plot
of its first target. Of several RUNs it gets the page that sets them side by side.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from compress.io.atomic import write_atomically
from compress.record import Record
from compress.report import compared
from compress.report.figures.canvas import render
from compress.report.figures.pareto import draw_pareto
from compress.report.figures.pareto_data import pareto_info
from compress.report.page.page import combined_page, page

from .chromium import Chromium

__all__ = ["draw", "take"]

#: Name, width, and how much of the page is shown, in pixels.
VIEWS = (("wide", 1280, 1400), ("narrow", 390, 1860))


def take(html: str, out: Path, *, whole: bool = False) -> list[Path]:
    """Write ``report-{wide,narrow}-{light,dark}.png``; all of the page where ``whole``.

    Raises:
        MissingExtra: Chromium is not installed.
        StorageError: the disk refused.
    """
    written = []
    with tempfile.TemporaryDirectory() as folder, Chromium() as browser:
        file = Path(folder) / "report.html"
        write_atomically(file, html)
        for name, width, height in VIEWS:
            for dark in (False, True):
                with browser.tab(file.as_uri(), width=width, height=900, dark=dark) as tab:
                    picture = tab.picture(height=None if whole else height)
                path = out / f"report-{name}-{'dark' if dark else 'light'}.png"
                write_atomically(path, picture)
                written.append(path)
    return written


def draw(record: Record, out: Path) -> Path:
    """Write ``NAME-pareto.png``, the plot of the record's first target."""
    path = out / f"{record.name}-pareto.png"
    write_atomically(path, render(draw_pareto(pareto_info(record, record.targets[0])), "png"))
    return path


if __name__ == "__main__":
    *runs, target = (word for word in sys.argv[1:] if word != "--whole")
    records = [Record.load(Path(run)) for run in runs]
    shown = page(records[0]) if len(runs) == 1 else combined_page(compared(records))
    for taken in take(shown, Path(target), whole="--whole" in sys.argv):
        print(taken)
    if len(runs) == 1:
        print(draw(records[0], Path(target)))
