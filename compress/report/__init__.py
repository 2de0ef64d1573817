"""The report of a record: table, figures and page, made from the record alone.

``write_report`` is for one run, ``overlay`` for several, ``render_table`` for the terminal. Drawing
is imported when something is drawn, so that importing this package stays cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress.budget import Budget
from compress.formatting import sanitize
from compress.io.atomic import write_atomically
from compress.overwriting import check_report
from compress.record import Record
from compress.report.comparison import Comparison, compared
from compress.report.comparison_text import comparison_markdown, comparison_text
from compress.report.csv import csv_text
from compress.report.figures.controls_data import ControlsInfo, controls_info
from compress.report.figures.pareto_data import ParetoInfo, pareto_info
from compress.report.figures.stages_data import StagesInfo, stages_info
from compress.report.page.page import combined_page, page
from compress.report.table import markdown, render_table, text_table
from compress.ship_folder import SHIP, shipped_in

if TYPE_CHECKING:
    from compress.report.figures.canvas import Figure

__all__ = [
    "Comparison",
    "compared",
    "comparison_text",
    "markdown",
    "overlay",
    "pareto_figure",
    "render_table",
    "text_table",
    "write_comparison",
    "write_report",
]


def write_report(record: Record, folder: Path) -> list[Path]:
    """Write the report of one record into ``folder``; returns the files, the page first.

    ``report.html``, ``table.csv``, ``table.md``; per target ``pareto`` and ``stages`` figures,
    and ``controls`` of nets that have some, with the target in the name where there are several.
    Each file is replaced in one step.

    Raises:
        RecipeError: a file of such a name is there that is no part of a report; nothing is written.
        StorageError: the disk refused.
    """
    check_report(folder)
    shipped = shipped_in(folder / SHIP)
    files: dict[str, str | bytes] = {"report.html": page(record, shipped=shipped, folder=folder)}
    for target, slug in _slugs(record.targets).items():
        files |= _drawn(pareto_info(record, target), f"pareto{slug}")
        files |= _drawn(stages_info(record, target), f"stages{slug}")
        if (controls := controls_info(record, target)) is not None:
            files |= _drawn(controls, f"controls{slug}")
    files["table.csv"] = csv_text([(sanitize(record.name), record)])
    files["table.md"] = "\n".join(markdown(record, target) for target in record.targets)
    return _write(folder, files)


def overlay(
    records: Sequence[Record],
    folder: Path,
    *,
    folders: Sequence[str] = (),
    budgets: Sequence[Budget] = (),
) -> list[Path]:
    """Write one page, figure and table of several runs; returns the files, the page first.

    Rows measured on different devices, or scored on different tasks, are never put on one front:
    each gets a figure of its own, with a number and the target in its name.

    Args:
        records: the runs.
        folder: where to.
        folders: the names of the runs' folders, for runs whose recipes are equal.
        budgets: under which a winner is named, beside the runs' own.

    Raises:
        RecipeError: a file of such a name is there that is no part of a report, or the folder is
            that of a run; nothing is written.
        StorageError: the disk refused.
    """
    return write_comparison(compared(records, folders, budgets), folder)


def write_comparison(found: Comparison, folder: Path) -> list[Path]:
    """Write a comparison that was worked out; see :func:`overlay`."""
    check_report(folder, of_several=True)
    files: dict[str, str | bytes] = {"report.html": combined_page(found)}
    for each in found.groups:
        files |= _drawn(each.info, f"pareto{each.group.slug}")
    files["table.csv"] = csv_text(list(zip(found.names, found.records, strict=True)))
    files["table.md"] = comparison_markdown(found)
    return _write(folder, files)


def pareto_figure(record: Record, target: str) -> Figure:
    """The trade-offs on one target as a figure, which notebooks show."""
    from compress.report.figures.pareto import draw_pareto

    return draw_pareto(pareto_info(record, target))


def _slugs(targets: Sequence[str]) -> dict[str, str]:
    """A file-name ending for each target: none for a single one, unique otherwise."""
    if len(targets) == 1:
        return {targets[0]: ""}
    slugs: dict[str, str] = {}
    for number, target in enumerate(targets, start=1):
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in target)
        slug = f"-{safe[:40].strip('-') or number}"
        slugs[target] = f"{slug}-{number}" if slug in slugs.values() else slug
    return slugs


def _drawn(info: ParetoInfo | StagesInfo | ControlsInfo, stem: str) -> dict[str, str | bytes]:
    """One figure as files, by name."""
    from compress.report.figures.canvas import render
    from compress.report.figures.controls import draw_controls
    from compress.report.figures.pareto import draw_pareto
    from compress.report.figures.stages import draw_stages

    if isinstance(info, ParetoInfo):
        figure = draw_pareto(info)
    elif isinstance(info, ControlsInfo):
        figure = draw_controls(info)
    else:
        figure = draw_stages(info)
    return {f"{stem}.png": render(figure, "png"), f"{stem}.svg": render(figure, "svg")}


def _write(folder: Path, files: dict[str, str | bytes]) -> list[Path]:
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]
