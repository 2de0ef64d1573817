"""The terminal's table of rows, for the page: headings with units, and rows that are marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.formatting import sanitize
from compress.pareto import front_probabilities_on
from compress.report.page.target import TargetReport
from compress.report.table import columns, front_column, table_rows
from compress.report.terms import term_of, terms_of
from compress.text_table import Column

__all__ = ["ColumnHeading", "MarkedLine", "RowsTable", "all_rows_data", "rows_table"]


@dataclass(frozen=True)
class ColumnHeading:
    """``left``: whether the column's cells are texts, set to the left; ``term``: what it shows."""

    words: str
    unit: str
    left: bool
    term: str = ""


@dataclass(frozen=True)
class MarkedLine:
    """``row`` is the index that the page's script knows the row by."""

    cells: Sequence[str]
    classes: str
    row: int | None


@dataclass(frozen=True)
class RowsTable:
    """Columns as lines; the first cell of each is its name. ``legend`` explains the marks."""

    caption: str
    heads: Sequence[ColumnHeading]
    lines: Sequence[MarkedLine]
    legend: str
    terms: Sequence[str]


_LEGEND = "* baseline, > row to ship; speedup and smaller are against the baseline"


def rows_table(
    shown: Sequence[Column],
    caption: str,
    marks: Sequence[str],
    names: Sequence[int] = (),
    legend: str = _LEGEND,
) -> RowsTable:
    """``marks`` has, for each line, ``*`` for the baseline and ``>`` for the row to ship.

    ``names`` are the indices of the rows, where the page's script is to find them.
    """
    lines = [
        MarkedLine(cells, _classes(mark), names[number] if names else None)
        for number, (cells, mark) in enumerate(
            zip(zip(*(column.cells for column in shown), strict=True), marks, strict=True)
        )
    ]
    heads = [_heading(column) for column in shown]
    return RowsTable(caption, heads, lines, legend, terms_of(shown))


def all_rows_data(target: TargetReport) -> RowsTable:
    """The table of the record's rows, with how surely each is on the front."""
    record, name = target.record, target.name
    rows = table_rows(record, name)
    shown = [
        *columns(record, name),
        front_column(record, name, front_probabilities_on(record, name)),
    ]
    return rows_table(
        shown,
        f"Every row on {sanitize(name, 60)}",
        marks=[row.mark for row in rows],
        names=[row.row.index for row in rows],
    )


def _classes(mark: str) -> str:
    return " ".join(name for sign, name in (("*", "base"), (">", "ship")) if sign in mark)


def _heading(column: Column) -> ColumnHeading:
    term = term_of(column)
    if column.heading.endswith("-"):  # one word on two lines of a terminal
        return ColumnHeading(f"{column.heading[:-1]}{column.unit}", "", column.left, term)
    if not column.heading:
        return ColumnHeading(column.unit, "", column.left, term)
    return ColumnHeading(column.heading, column.unit, column.left, term)
