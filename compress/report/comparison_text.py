"""A comparison of runs as lines for a terminal and as GitHub Markdown, from the same cells."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from compress.report.comparison import (
    ComparedGroup,
    Comparison,
    combined_columns,
    difference_columns,
    group_sentences,
)
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

__all__ = ["comparison_markdown", "comparison_text", "equal_words", "legend_of"]

_WIDTH, _PROSE, _HEADING, _CELL = 112, 100, 11, 24
_MOST_KEYS = 24  # of differing ones on a terminal
_LEGEND = "* a baseline, > wins under a budget; speedup, smaller: against the run's own baseline"


def comparison_text(
    found: Comparison, *, width: int | None = None, encoding: str | None = None
) -> str:
    """What differs, the table of every group and who wins, for the terminal at hand."""
    columns = shutil.get_terminal_size(fallback=(_WIDTH, 24)).columns
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "ascii"
    width = max(40, min(width or columns, _WIDTH))
    show = str if encoding.lower().startswith("utf") else in_ascii
    return "\n".join(show(line) for line in _text_lines(found, width, show is in_ascii)) + "\n"


def _text_lines(found: Comparison, width: int, ascii_only: bool) -> Iterator[str]:
    yield cut(f"{found.title}: {', '.join(found.names)}", width)
    yield ""
    yield from _difference_lines(found, width, ascii_only)
    for each in found.groups:
        yield ""
        yield from _group_lines(each, width, ascii_only)
    for note in found.notes:
        yield from wrapped(note, min(width, _PROSE))


def legend_of(each: ComparedGroup) -> str:
    """What the marks of the combined table mean, and what its times are."""
    if each.group.shares_baseline:
        return _LEGEND
    return f"{_LEGEND}, timed in turns with it; p50: as the run's own sessions timed it"


def equal_words(found: Comparison) -> str:
    """What stands in place of the table of differing keys where there is none."""
    alone = len(found.records) == 1
    return "" if alone else "The recipes of these runs are equal, and what they were done with."


def _difference_lines(found: Comparison, width: int, ascii_only: bool) -> Iterator[str]:
    if not found.differences:
        yield from filter(None, [equal_words(found)])
        return
    left = list(range(len(found.names)))
    while left:
        some = _fitting(found, left, width)
        shown = [_cut(column, ascii_only) for column in difference_columns(found, some)]
        yield from text_lines([_first(column) for column in shown], width=width, squeezed=0)
        left = left[len(some) :]
    more = len(found.differences) - _MOST_KEYS
    if more > 0:
        yield f"and {more} more keys, which report.html and table.md list"


def _fitting(found: Comparison, left: Sequence[int], width: int) -> list[int]:
    """As many of the runs as there is room for side by side; one at least."""
    some = list(left)
    while len(some) > 1:
        shown = [_cut(column, ascii_only=False) for column in difference_columns(found, some)]
        if sum(column.width + 2 for column in shown) <= width:
            break
        some.pop()
    return some


def _first(column: Column) -> Column:
    return replace(column, cells=column.cells[:_MOST_KEYS])


def _cut(column: Column, ascii_only: bool) -> Column:
    room = 2 * _CELL if column.left else _CELL
    cells = tuple(cut(cell, room) for cell in column.cells[:_MOST_KEYS])
    shown = replace(column, heading=cut(column.heading, _CELL), cells=cells)
    return shown.in_ascii() if ascii_only else shown


def _group_lines(each: ComparedGroup, width: int, ascii_only: bool) -> Iterator[str]:
    given = [
        replace(column, heading=cut(column.heading, _HEADING))
        for column in combined_columns(each.group, each.chosen)
    ]
    shown = [column.in_ascii() for column in given] if ascii_only else given
    yield cut(each.group.heading, width)
    yield ""
    lines = text_lines(shown, width=width, squeezed=2)
    yield from lines
    yield from wrapped(f"{legend_of(each)}; 95 % intervals", min(width, _PROSE))
    for sentence in terms_of(shown, "\n".join(lines[:2])):
        yield from wrapped(sentence, min(width, _PROSE))
    yield ""
    for sentence in group_sentences(each):
        yield from wrapped(sentence, min(width, _PROSE))


def comparison_markdown(found: Comparison) -> str:
    """What differs, every group's table, and what a table cannot say, as GitHub Markdown."""
    parts = [markdown_table(difference_columns(found))] if found.differences else []
    for each in found.groups:
        shown = combined_columns(each.group, each.chosen)
        sentences = [
            each.group.heading,
            f"{legend_of(each)}.",
            *terms_of(shown),
            *group_sentences(each),
        ]
        parts.append(f"{markdown_table(shown)}\n{markdown_list(sentences)}")
    equal = [] if found.differences else [equal_words(found)]
    notes = [note for note in (*equal, *found.notes) if note]
    return "\n".join([*parts, *([markdown_list(notes)] if notes else [])])
