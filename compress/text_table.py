"""Tables as text: columns in, lines for a terminal or GitHub Markdown out.

Pure functions of strings, which every table that is printed goes through. What a cell says is
:mod:`compress.formatting`'s. rich lays out columns and counts the cells of a terminal; which
columns are left out is decided here, since rich would squeeze all of them. Lines have no style: the
same ones go to terminals, pipes and logs. No torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

TYPE_CHECKING = False  # rich is imported where it is used, so that starting up stays cheap
if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Column",
    "columns_of",
    "cut",
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
_GAP = 2  # cells of a terminal between columns, and before a sentence's second line
_LEAST = 9  # cells that a squeezed column keeps before another one is left out
_SHORTEST = 5  # and where there is no other one
_UNBOUNDED = 1 << 20


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
        """Cells of a terminal that it takes."""
        from rich.cells import cell_len

        return max(map(cell_len, (self.heading, self.unit, *self.cells)))

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
    from rich.table import Table
    from rich.text import Text

    tight = None if squeezed is None else columns[squeezed]
    kept, room = _fitted(columns, width, tight)
    # Text is printed as it is; a string could hold rich's markup.
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in kept:
        table.add_column(
            justify="left" if column.left else "right",
            no_wrap=True,
            max_width=room if column is tight else None,
        )
    for cells in _rows(kept, rule=rule):
        table.add_row(*map(Text, cells))
    lines = _console().render_lines(table, pad=False) if table.rows else []
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def _rows(columns: Sequence[Column], *, rule: bool) -> Iterator[Sequence[str]]:
    heads = [[column.heading for column in columns], [column.unit for column in columns]]
    yield from filter(any, heads)
    if rule:
        yield ["-" * column.width for column in columns]
    yield from zip(*(column.cells for column in columns), strict=True)


def _fitted(
    columns: Sequence[Column], width: int | None, tight: Column | None
) -> tuple[list[Column], int | None]:
    """The columns that fit, and the cells that are left for the ``tight`` one of them."""
    kept = list(columns)
    if width is None:
        return kept, None
    least = min(tight.width, _LEAST) if tight else 0
    while (left := width - _taken(kept, tight)) < least and any(each.spare for each in kept):
        kept.remove(max(kept, key=lambda each: each.spare))
    return kept, max(left, _SHORTEST)


def _taken(columns: Sequence[Column], tight: Column | None) -> int:
    """Cells that the columns take, without the ``tight`` one."""
    widths = [0 if each is tight else each.width for each in columns]
    return sum(widths) + _GAP * (len(widths) - 1)


def _console() -> Console:
    from rich.console import Console

    return Console(width=_UNBOUNDED, legacy_windows=False)


def cut(text: str, room: int) -> str:
    """``text`` in at most ``room`` cells of a terminal, with an ellipsis where it was longer."""
    from rich.text import Text

    shown = Text(text)
    shown.truncate(room, overflow="ellipsis")
    return shown.plain


def wrapped(sentence: str, width: int) -> list[str]:
    """``sentence`` in lines of at most ``width`` cells, all but the first indented."""
    from rich.text import Text

    text = Text(" ".join(sentence.split()))
    first = text.wrap(_console(), width)[0].plain
    rest = Text(text.plain[len(first) :].lstrip()).wrap(_console(), width - _GAP)
    indented = (" " * _GAP + line.plain for line in rest if line.plain.strip())
    return [line.rstrip() for line in (first, *indented)]


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
