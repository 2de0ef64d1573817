"""The table of a record, for the terminal and as Markdown, from the same cells."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.formatting import (
    decimals_for,
    interval,
    latency_unit,
    sanitize,
    score_cells,
    times,
)
from compress.measure.quantities import recorded_quantities
from compress.measure.quantity import Quantity
from compress.metrics import metric_unit
from compress.pareto import contenders, front_facts, front_probabilities_on, readings, recommend
from compress.record import Measurement, Record, Row
from compress.report.sentences import findings, status_words
from compress.report.terms import terms_of
from compress.text_table import (
    Column,
    cut,
    in_ascii,
    markdown_list,
    markdown_table,
    text_lines,
    wrapped,
)

__all__ = [
    "LEGEND",
    "TableRow",
    "columns",
    "fastest_s",
    "front_column",
    "markdown",
    "measured_names",
    "render_table",
    "table_rows",
    "text_table",
]

#: What the marks and the comparisons of a table mean.
LEGEND = "* baseline, > row to ship; speedup, smaller: against the baseline; 95 % intervals"

_VERDICTS = {"no difference shown": "no diff."}
_ABSENT = "-"
_WIDTH, _PROSE, _HEADING = 112, 100, 11

Values = Mapping[int, float]


@dataclass(frozen=True)
class TableRow:
    """One row of the record on one target; ``None`` where nothing was measured."""

    row: Row
    found: Measurement | None
    mark: str


def table_rows(record: Record, target: str) -> list[TableRow]:
    """The rows; ``*`` marks the baseline, ``>`` the row to ship."""
    chosen = recommend(record, target).index
    return [
        TableRow(
            row,
            row.on(target),
            ("*" if row.index == record.baseline else "") + (">" if row.index == chosen else ""),
        )
        for row in record.rows
    ]


def fastest_s(record: Record, target: str) -> float:
    """The smallest p50 on ``target``, which decides the unit of its column."""
    return min(_aligned(record, target, "latency_p50_s").values(), default=1e-3)


def measured_names(record: Record, target: str) -> set[str]:
    """The names of the quantities that some row has a value of on ``target``."""
    return {
        quantity.name
        for quantity in recorded_quantities(record.task)
        if any(quantity.read(row, row.on(target)) is not None for row in record.rows)
    }


def columns(
    record: Record,
    target: str,
    *,
    unit_for_s: float | None = None,
    as_timed: bool = False,
    measured: Collection[str] | None = None,
) -> list[Column]:
    """The table's columns, each in one unit that fits its values; latency's fits ``unit_for_s``.

    Rows of several runs, which have a baseline each, are compared ``as_timed``, and have columns
    for all that is ``measured`` in any of the runs, by name.
    """
    rows = table_rows(record, target)
    measured = measured_names(record, target) if measured is None else measured
    shown = [
        Column("row", "", tuple(f"{r.row.index}{r.mark}" for r in rows), left=True),
        Column("stage", "", tuple(sanitize(r.row.stage, 60) for r in rows), left=True),
    ]
    for quantity in _in_order(recorded_quantities(record.task), measured):
        if quantity.name == "accuracy":
            shown += _score_columns(record, rows)
            continue
        if quantity.name == "latency_p50_s":
            values = _aligned(record, target, quantity.name, as_timed=as_timed)
            shown += [_value_column(quantity, rows, values, unit_for_s), *_speedup_columns(rows)]
            continue
        shown.append(_value_column(quantity, rows, _values(quantity, rows)))
        if quantity.name == "artifact_bytes":
            shown.append(_smaller_column(record, target, rows))
    return shown


def _in_order(quantities: Sequence[Quantity], measured: Collection[str]) -> list[Quantity]:
    """Those with a column here, from left to right."""
    placed = [
        (quantity.column.place, quantity)
        for quantity in quantities
        if quantity.column and (quantity.column.always or quantity.name in measured)
    ]
    return [quantity for _, quantity in sorted(placed, key=lambda pair: pair[0])]


def _aligned(record: Record, target: str, name: str, *, as_timed: bool = False) -> Values:
    """Every row's value, beside the baseline's as rows of one run compare, or as it was timed."""
    return {
        row: reading.timed.value if as_timed and reading.timed else reading.value
        for row, found in readings(record, target).items()
        if (reading := found.get(name)) is not None
    }


def _values(quantity: Quantity, rows: Sequence[TableRow]) -> Values:
    read = {row.row.index: quantity.read(row.row, row.found) for row in rows}
    return {row: found.value for row, found in read.items() if found is not None}


def _value_column(
    quantity: Quantity, rows: Sequence[TableRow], values: Values, unit_for_s: float | None = None
) -> Column:
    declared = quantity.column
    assert declared is not None
    unit, cell = declared.unit, declared.cell
    if cell is None:
        unit, per_second = latency_unit(unit_for_s or min(values.values(), default=1e-3))
        known = {row: value * per_second for row, value in values.items()}
        texts = {row: f"{value:.{decimals_for(value)}f}" for row, value in known.items()}
    else:
        texts = {row: cell(value) for row, value in values.items()}
    cells = tuple(texts.get(row.row.index, _ABSENT) for row in rows)
    return Column(declared.heading, unit, cells, spare=declared.spare)


def _score_columns(record: Record, rows: Sequence[TableRow]) -> list[Column]:
    metric = record.task.metric
    scores = [_score(row.found, metric) for row in rows]
    unit = metric_unit(metric)
    return [
        Column(sanitize(metric, 60), unit, tuple(middle for middle, _ in scores)),
        Column("", "[95 %]", tuple(ends for _, ends in scores), spare=1),
    ]


def _score(found: Measurement | None, metric: str) -> tuple[str, str]:
    if found is None or found.accuracy is None:
        return _ABSENT, _ABSENT
    return score_cells(metric, found.accuracy.value, *found.accuracy.ci95)


def _speedup_columns(rows: Sequence[TableRow]) -> list[Column]:
    return [
        Column("speedup", "x [95 %]", tuple(_speedup(row.found) for row in rows)),
        Column("", "verdict", tuple(_verdict(row.found) for row in rows), left=True, spare=2),
    ]


def _speedup(found: Measurement | None) -> str:
    if found is None or found.speedup is None:
        return _ABSENT
    value = found.speedup.value
    return f"{value:.{decimals_for(value)}f} {interval(*found.speedup.ci95)}"


def _verdict(found: Measurement | None) -> str:
    if found is None or found.speedup is None:
        return _ABSENT
    verdict = sanitize(found.speedup.verdict, 20)
    return _VERDICTS.get(verdict, verdict) or _ABSENT


def _smaller_column(record: Record, target: str, rows: Sequence[TableRow]) -> Column:
    """How much smaller than the baseline's each file is."""
    baseline = contenders(record, target).get(record.baseline, {}).get("artifact_bytes")
    base_bytes = baseline.value if baseline is not None else 0.0
    cells = tuple(
        times(base_bytes / row.found.artifact.bytes)
        if base_bytes and row.found is not None and row.found.artifact.bytes
        else _ABSENT
        for row in rows
    )
    return Column("", "smaller", cells, spare=4)


def front_column(record: Record, target: str, sure: Mapping[int, float]) -> Column:
    """How sure each row's place on the front is; in brackets where a row is shown to be beaten.

    ``sure`` has what :func:`~compress.pareto.front_probabilities_on` gives. For pages: a terminal
    is too narrow.
    """
    unbeaten = front_facts(record, target).front
    cells = []
    for row in record.rows:
        if row.index not in sure:
            cells.append(_ABSENT)
            continue
        share = f"{100 * sure[row.index]:.0f}"
        cells.append(share if row.index in unbeaten else f"({share})")
    return Column("front", "% of draws", tuple(cells))


def render_table(record: Record, *, width: int | None = None, encoding: str | None = None) -> str:
    """Every target's table for the terminal at hand: its width, at most 112, and its encoding."""
    columns_at_hand = shutil.get_terminal_size(fallback=(_WIDTH, 24)).columns
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "ascii"
    shown = [
        text_table(
            record,
            target,
            width=min(width or columns_at_hand, _WIDTH),
            ascii_only=not encoding.lower().startswith("utf"),
        )
        for target in record.targets
    ]
    nothing = " ".join([*status_words(record), "Nothing has been measured yet."])
    return "\n".join(shown or [f"{sanitize(record.name, 60)}\n\n{nothing}\n"])


def text_table(
    record: Record, target: str, *, width: int = _WIDTH, ascii_only: bool = False
) -> str:
    """The table and its findings as plain text, no line longer than ``width`` columns.

    Headings and stage names are cut, then the least important columns left out, until it fits.
    ``ascii_only`` is for terminals whose encoding knows no more than that.
    """
    return "\n".join(_text_lines(record, target, max(width, 40), ascii_only)) + "\n"


def _text_lines(record: Record, target: str, width: int, ascii_only: bool) -> Iterator[str]:
    show = in_ascii if ascii_only else str
    given = [
        replace(column, heading=cut(column.heading, _HEADING)) for column in columns(record, target)
    ]
    yield show(cut(f"{sanitize(record.name, 60)} on {sanitize(target, 30)}", width))
    yield ""
    shown = [column.in_ascii() for column in given] if ascii_only else given
    lines = text_lines(shown, width=width, squeezed=1)
    yield from map(show, lines)
    for words in (LEGEND, *terms_of(shown, "\n".join(lines[:2]))):
        yield from wrapped(words, min(width, _PROSE))
    yield ""
    for sentence in findings(record, target):
        yield from map(show, wrapped(show(sentence), min(width, _PROSE)))


def markdown(record: Record, target: str) -> str:
    """The table as GitHub Markdown, followed by its findings as a list."""
    sure = front_probabilities_on(record, target)
    shown = [*columns(record, target), front_column(record, target, sure)]
    sentences = [*terms_of(shown), *findings(record, target)]
    return f"{markdown_table(shown)}\n{markdown_list(sentences)}"
