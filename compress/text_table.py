"""Tables as text: columns in, lines for a terminal or GitHub Markdown out.

Pure functions of strings, which every table that is printed goes through. What a cell says is
:mod:`compress.formatting`'s. No torch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

__all__ = [
    "Column",
    "columns_of",
    "cut",
    "display_width",
    "in_ascii",
    "markdown_list",
    "markdown_table",
    "text_lines",
    "wrapped",
]

_ASCII = str.maketrans(
    {
        "±": "+/-",
        "−": "-",
        "–": "-",
        "≈": "~",
        "µ": "u",
        "×": "x",
        "…": ".",
        "·": "-",
        "↓": "v",
        "↑": "^",
    }
)
_GAP = "  "
_LEAST = 9  # terminal columns that a squeezed column keeps before another one is left out
_SHORTEST = 5  # and where there is no other one


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

    @property
    def width(self) -> int:
        """Terminal columns that it takes."""
        return max(map(display_width, (self.heading, self.unit, *self.cells)))

    def in_ascii(self) -> Column:
        """The same for a terminal that knows no more than ASCII."""
        heading, unit, *cells = map(in_ascii, (self.heading, self.unit, *self.cells))
        return replace(self, heading=heading, unit=unit, cells=tuple(cells))


def columns_of(
    rows: Iterable[Sequence[str]], headings: Sequence[str] = (), left: Collection[int] = (0,)
) -> list[Column]:
    """Columns from rows of as many cells each; ``left`` are the places of those that are text.

    A negative place counts from the end. Without rows and headings there are no columns.
    """
    cells = [tuple(column) for column in zip(*rows, strict=True)] or [()] * len(headings)
    at_left = {place % len(cells) for place in left} if cells else set()
    return [
        Column(heading, "", column, place in at_left)
        for place, (heading, column) in enumerate(
            zip(headings or [""] * len(cells), cells, strict=True)
        )
    ]


# -- for a terminal ---------------------------------------------------------------------------


def text_lines(
    columns: Sequence[Column],
    *,
    width: int | None = None,
    squeezed: int | None = None,
    rule: bool = False,
) -> list[str]:
    """The table's lines: headings as far as there are any, then the rows.

    Args:
        columns: all with as many cells.
        width: of the terminal. Columns that can be spared are left out until the table fits.
        squeezed: the place of a column whose cells may be cut for that, before others are left out.
        rule: whether a line of dashes stands below the headings.
    """
    kept = list(columns) if width is None else _fitted(columns, width, squeezed)
    heads = [[column.heading for column in kept], [column.unit for column in kept]]
    lines = [_line(texts, kept) for texts in heads if any(texts)]
    if rule:
        lines.append(_GAP.join("-" * column.width for column in kept))
    rows = zip(*(column.cells for column in kept), strict=True)
    return [*lines, *(_line(cells, kept) for cells in rows)]


def _fitted(columns: Sequence[Column], width: int, squeezed: int | None) -> list[Column]:
    kept = list(columns)
    tight = None if squeezed is None else kept[squeezed]
    while True:
        least = 0 if tight is None else tight.width - min(tight.width, _LEAST)
        if _total(kept) - least <= width or all(column.spare == 0 for column in kept):
            break
        kept.remove(max(kept, key=lambda column: column.spare))
    if tight is not None:
        room = max(width - _total(kept) + tight.width, _SHORTEST)
        cells = tuple(cut(cell, room) for cell in tight.cells)
        kept[kept.index(tight)] = replace(tight, cells=cells)
    return kept


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _line(texts: Iterable[str], columns: Sequence[Column]) -> str:
    padded = []
    for text, column in zip(texts, columns, strict=True):
        blank = " " * (column.width - display_width(text))
        padded.append(text + blank if column.left else blank + text)
    return _GAP.join(padded).rstrip()


def display_width(text: str) -> int:
    """Terminal columns that ``text`` takes: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, room: int) -> str:
    """``text`` in at most ``room`` terminal columns, with an ellipsis where it was longer."""
    if display_width(text) <= room:
        return text
    while text and display_width(text) > room - 1:
        text = text[:-1]
    return f"{text}…"


def wrapped(sentence: str, width: int) -> list[str]:
    """``sentence`` in lines of at most ``width`` terminal columns, all but the first indented."""
    lines, line = [], ""
    for word in sentence.split():
        longer = f"{line} {word}" if line.strip() else f"{line}{word}"
        if display_width(longer) > width and line.strip():
            lines.append(line)
            longer = f"{_GAP}{word}"
        line = cut(longer, width)
    return [*lines, line]


def in_ascii(text: str) -> str:
    """``text`` for a terminal that knows no more than ASCII."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


# -- Markdown ---------------------------------------------------------------------------------


def markdown_table(columns: Sequence[Column]) -> str:
    """Columns as a table of GitHub Markdown."""
    heads = [f"{c.heading} {c.unit}".strip().replace("- ", "") for c in columns]
    lines = [
        _markdown_line(map(_escaped, heads)),
        _markdown_line(":---" if c.left else "---:" for c in columns),
        *(
            _markdown_line(map(_escaped, cells))
            for cells in zip(*(c.cells for c in columns), strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def markdown_list(sentences: Iterable[str]) -> str:
    """Sentences as a list of GitHub Markdown."""
    return "".join(f"- {_escaped(sentence)}\n" for sentence in sentences)


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    for char in "\\`*_|<>[]":
        text = text.replace(char, f"\\{char}")
    return text
