"""The table of a record, for the terminal and as Markdown, from the same cells."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.formatting import (
    count,
    decimals_for,
    interval,
    latency_unit,
    plain,
    score_cells,
    times,
)
from compress.metrics import is_rate
from compress.pareto import chances_on, contenders, front_facts, readings, recommend
from compress.record import Measurement, Record, Row
from compress.report.sentences import findings, status_words

__all__ = [
    "Column",
    "TableRow",
    "columns",
    "display_width",
    "fastest_s",
    "front_column",
    "markdown",
    "markdown_list",
    "markdown_table",
    "render_table",
    "table_rows",
    "text_table",
]

_VERDICTS = {"no difference shown": "no diff."}
_ASCII = str.maketrans(
    {"±": "+/-", "−": "-", "≈": "~", "µ": "u", "×": "x", "…": ".", "·": "-", "↓": "v", "↑": "^"}
)
_ABSENT = "-"
_WIDTH, _PROSE, _HEADING = 112, 100, 11


@dataclass(frozen=True)
class TableRow:
    """One row of the record on one target; ``None`` where nothing was measured."""

    row: Row
    found: Measurement | None
    mark: str


@dataclass(frozen=True)
class Column:
    """One column: two lines of heading and a cell per row.

    Columns with a higher ``spare`` are left out first where the terminal is narrow; those with 0
    stay.
    """

    heading: str
    unit: str
    cells: tuple[str, ...]
    left: bool = False
    spare: int = 0


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
    return min(_latencies_s(record, target, as_timed=False).values(), default=1e-3)


def _latencies_s(record: Record, target: str, *, as_timed: bool) -> dict[int, float]:
    """Every row's p50, beside the baseline's as rows of one run compare, or as it was timed."""
    return {
        row: latency.timed.value if as_timed and latency.timed else latency.value
        for row, found in readings(record, target).items()
        if (latency := found.get("latency_p50_s")) is not None
    }


def columns(
    record: Record, target: str, *, unit_for_s: float | None = None, as_timed: bool = False
) -> list[Column]:
    """The table's columns, each in one unit that fits its values; latency's fits ``unit_for_s``.

    Rows of several runs, which have a baseline each, are compared ``as_timed``.
    """
    rows = table_rows(record, target)
    found = [row.found for row in rows]
    unit, per_second = latency_unit(unit_for_s or fastest_s(record, target))
    latencies_s = _latencies_s(record, target, as_timed=as_timed)
    baseline = contenders(record, target).get(record.baseline, {}).get("artifact_bytes")
    base_bytes = baseline.value if baseline is not None else None
    metric = record.task.metric
    scores = [_score(m, metric) for m in found]
    return [
        Column("row", "", tuple(f"{r.row.index}{r.mark}" for r in rows), left=True),
        Column("stage", "", tuple(plain(r.row.stage, 60) for r in rows), left=True),
        Column(plain(metric, 60), "%" if is_rate(metric) else "", tuple(c[0] for c in scores)),
        Column("", "[95 %]", tuple(c[1] for c in scores), spare=1),
        Column("p50", unit, tuple(_p50(latencies_s.get(r.row.index), per_second) for r in rows)),
        Column("speedup", "x [95 %]", tuple(_speedup(m) for m in found)),
        Column("", "verdict", tuple(_verdict(m) for m in found), left=True, spare=2),
        Column("peak", "MiB", tuple(_peak(m) for m in found), spare=3),
        Column("file", "KiB", tuple(_kib(m) for m in found)),
        Column("", "smaller", tuple(_shrunk(m, base_bytes) for m in found), spare=4),
        Column("int8", "% MACs", tuple(_int8(m) for m in found), spare=5),
        Column("para-", "meters", tuple(count(r.row.parameters) for r in rows), spare=6),
    ]


def front_column(record: Record, target: str, sure: Mapping[int, float]) -> Column:
    """How sure each row's place on the front is; in brackets where a row is shown to be beaten.

    ``sure`` has the chances of :func:`~compress.pareto.chances_on`. For pages: a terminal is
    too narrow.
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


def _score(found: Measurement | None, metric: str) -> tuple[str, str]:
    if found is None or found.accuracy is None:
        return _ABSENT, _ABSENT
    return score_cells(metric, found.accuracy.value, *found.accuracy.ci95)


def _p50(latency_s: float | None, per_second: float) -> str:
    if latency_s is None:
        return _ABSENT
    value = latency_s * per_second
    return f"{value:.{decimals_for(value)}f}"


def _speedup(found: Measurement | None) -> str:
    if found is None or found.speedup is None:
        return _ABSENT
    value = found.speedup.value
    return f"{value:.{decimals_for(value)}f} {interval(*found.speedup.ci95)}"


def _verdict(found: Measurement | None) -> str:
    if found is None or found.speedup is None:
        return _ABSENT
    verdict = plain(found.speedup.verdict, 20)
    return _VERDICTS.get(verdict, verdict) or _ABSENT


def _peak(found: Measurement | None) -> str:
    if found is None or found.memory is None:
        return _ABSENT
    return f"{found.memory.model_peak_bytes / 2**20:.1f}"


def _kib(found: Measurement | None) -> str:
    return _ABSENT if found is None else f"{found.artifact.bytes / 1024:,.1f}"


def _shrunk(found: Measurement | None, base_bytes: float | None) -> str:
    if found is None or not base_bytes or not found.artifact.bytes:
        return _ABSENT
    return times(base_bytes / found.artifact.bytes)


def _int8(found: Measurement | None) -> str:
    return _ABSENT if found is None else f"{100 * found.artifact.int8_mac_fraction:.0f}"


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
    return "\n".join(shown or [f"{plain(record.name, 60)}\n\n{nothing}\n"])


def text_table(
    record: Record, target: str, *, width: int = _WIDTH, ascii_only: bool = False
) -> str:
    """The table and its findings as plain text, no line longer than ``width`` columns.

    Headings and stage names are cut, then the least important columns left out, until it fits.
    ``ascii_only`` is for terminals whose encoding knows no more than that.
    """
    width = max(width, 40)
    given = [
        replace(column, heading=_cut(column.heading, _HEADING))
        for column in columns(record, target)
    ]
    if ascii_only:
        given = [_in_ascii(column) for column in given]
    kept = _fit(given, width)
    lines = [
        _in_line([column.heading for column in kept], kept),
        _in_line([column.unit for column in kept], kept),
        *(_in_line(cells, kept) for cells in zip(*(c.cells for c in kept), strict=True)),
    ]
    legend = "* baseline, > row to ship; speedup, smaller: against the baseline; 95 % intervals"
    title = f"{plain(record.name, 60)} on {plain(target, 30)}"
    words = [_cut(title, width), "", *lines, *_wrapped(legend, min(width, _PROSE)), ""]
    for sentence in findings(record, target):
        words += _wrapped(sentence, min(width, _PROSE))
    text = "\n".join(line.rstrip() for line in words) + "\n"
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else text


def _wrapped(sentence: str, width: int) -> list[str]:
    """``sentence`` in lines of at most ``width`` terminal columns, all but the first indented."""
    lines, line = [], ""
    for word in sentence.split():
        longer = f"{line} {word}" if line.strip() else f"{line}{word}"
        if display_width(longer) > width and line.strip():
            lines.append(line)
            longer = f"  {word}"
        line = _cut(longer, width)
    return [*lines, line]


def _in_ascii(column: Column) -> Column:
    heading, unit, *cells = (
        text.translate(_ASCII).encode("ascii", "replace").decode()
        for text in (column.heading, column.unit, *column.cells)
    )
    return Column(heading, unit, tuple(cells), column.left, column.spare)


def _fit(given: Sequence[Column], width: int) -> list[Column]:
    kept = list(given)
    while True:
        others = sum(_column_width(c) for c in kept) - _column_width(kept[1]) + 2 * (len(kept) - 1)
        room = width - others
        if room >= min(_column_width(kept[1]), 9) or all(c.spare == 0 for c in kept):
            stage = kept[1]
            cells = tuple(_cut(cell, max(room, 5)) for cell in stage.cells)
            return [kept[0], Column(stage.heading, stage.unit, cells, left=True), *kept[2:]]
        kept.remove(max(kept, key=lambda column: column.spare))


def _column_width(column: Column) -> int:
    return max(display_width(text) for text in (column.heading, column.unit, *column.cells))


def display_width(text: str) -> int:
    """Terminal columns that ``text`` takes: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _cut(text: str, room: int) -> str:
    if display_width(text) <= room:
        return text
    while text and display_width(text) > room - 1:
        text = text[:-1]
    return f"{text}…"


def _in_line(cells: Iterable[str], shown: Sequence[Column]) -> str:
    padded = []
    for cell, column in zip(cells, shown, strict=True):
        blank = " " * (_column_width(column) - display_width(cell))
        padded.append(cell + blank if column.left else blank + cell)
    return "  ".join(padded)


def markdown(record: Record, target: str) -> str:
    """The table as GitHub Markdown, followed by its findings as a list."""
    sure = chances_on(record, target)
    shown = [*columns(record, target), front_column(record, target, sure)]
    return f"{markdown_table(shown)}\n{markdown_list(findings(record, target))}"


def markdown_table(shown: Sequence[Column]) -> str:
    """Columns as a table of GitHub Markdown."""
    heads = [f"{c.heading} {c.unit}".strip().replace("- ", "") for c in shown]
    lines = [
        _markdown_line(heads),
        _markdown_line([":---" if c.left else "---:" for c in shown], escape=False),
        *(_markdown_line(cells) for cells in zip(*(c.cells for c in shown), strict=True)),
    ]
    return "\n".join(lines) + "\n"


def markdown_list(sentences: Iterable[str]) -> str:
    """Sentences as a list of GitHub Markdown."""
    return "".join(f"- {_escaped(sentence)}\n" for sentence in sentences)


def _markdown_line(cells: Iterable[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    for char in "\\`*_|<>[]":
        text = text.replace(char, f"\\{char}")
    return text
