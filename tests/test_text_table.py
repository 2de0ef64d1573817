"""Tables as text: columns that line up, fit a terminal, and are safe in Markdown."""

import pytest
from rich.cells import cell_len

from compress.text_table import (
    Column,
    columns_of,
    cut,
    in_ascii,
    markdown_list,
    markdown_table,
    text_lines,
    wrapped,
)

pytestmark = pytest.mark.fast

TABLE = [
    Column("stage", "", ("input", "a very long name"), left=True),
    Column("p50", "ms", ("1.52", "12.1")),
    Column("peak", "MiB", ("3.0", "4.5"), spare=1),
    Column("", "smaller", ("1.00x", "2.00x"), spare=2),
]


def test_numbers_end_and_texts_begin_below_one_another():
    heads, units, first, second = text_lines(TABLE)
    assert heads == "stage              p50  peak"
    assert units == "                    ms   MiB  smaller"
    assert first == "input             1.52   3.0    1.00x"
    assert second == "a very long name  12.1   4.5    2.00x"


def test_columns_without_headings_are_rows_alone():
    rows = [("conv", "12 µs", "of them"), ("matmul", "3 µs", "4")]
    lines = text_lines(columns_of(rows, left=(0, -1)))
    assert lines == ["conv    12 µs  of them", "matmul   3 µs  4"]
    assert text_lines(columns_of([])) == []


def test_a_line_of_dashes_stands_below_headings():
    lines = text_lines(columns_of([("a", "1")], ("model", "KiB")), rule=True)
    assert lines == ["model  KiB", "-----  ---", "a        1"]
    assert text_lines(columns_of([], ("model", "KiB")))[0] == "model  KiB"


def test_what_can_be_spared_is_left_out_first():
    assert "smaller" not in " ".join(text_lines(TABLE, width=30))
    assert "peak" in " ".join(text_lines(TABLE, width=30))
    narrow = text_lines(TABLE, width=10)
    assert "peak" not in " ".join(narrow)
    assert "p50" in narrow[0]  # it stays, whatever there is room for


@pytest.mark.parametrize("width", [18, 22, 26, 30, 60])
def test_a_squeezed_column_is_cut_before_others_go(width):
    lines = text_lines(TABLE, width=width, squeezed=0)
    assert max(map(cell_len, lines)) <= width
    assert ("…" in lines[-1]) == (width < 37)
    assert ("MiB" in lines[1]) == (width >= 21)


def test_columns_line_up_as_a_terminal_counts_cells():
    rows = [("日本", "1"), ("e\u0301", "22"), ("plain", "333")]
    wide, combining, plain = text_lines(columns_of(rows))
    assert wide == "日本     1"
    assert combining == "e\u0301       22"
    assert {cell_len(line) for line in (wide, combining, plain)} == {10}
    assert cut("日本語", 5) == "日本…"
    assert cut("short", 5) == "short"


def test_sentences_are_wrapped_between_words_and_indented():
    assert wrapped("one two three", 9) == ["one two", "  three"]
    assert wrapped("", 9) == [""]
    assert wrapped("extraordinarily long", 9) == ["extraordi", "  narily", "  long"]
    assert wrapped("日本語 日本語", 9) == ["日本語", "  日本語"]


@pytest.mark.parametrize("width", [9, 12, 20, 40, 80])
def test_no_word_is_lost_where_a_sentence_is_wrapped(width):
    sentence = "Row 12 (an/unusually/long/name.of.a.layer) [red]is[/] 日本語, and :smile: stays."
    lines = wrapped(sentence, width)
    assert max(map(cell_len, lines)) <= width
    assert all(line.startswith("  ") for line in lines[1:])
    assert "".join("".join(lines).split()) == "".join(sentence.split())


@pytest.mark.parametrize("name", ["[red]a[/]", "[/]", "[link=https://a.b]x", ":smile:", "\\[b]"])
def test_what_rich_would_read_as_markup_is_text(name):
    assert text_lines([Column(name, "", (name, "b"), left=True)]) == [name, name, "b"]
    assert wrapped(name, 80) == [name]
    assert cut(name, 80) == name


def test_a_table_is_the_same_for_a_terminal_and_a_file(monkeypatch):
    plain = text_lines(TABLE, width=60, rule=True)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "10"}.items():
        monkeypatch.setenv(name, value)
    assert text_lines(TABLE, width=60, rule=True) == plain
    assert "\x1b" not in "".join(plain)


def test_a_table_without_a_width_is_as_wide_as_its_cells():
    path = "a/very/long/path/" * 40
    assert text_lines(columns_of([(path, "1")])) == [f"{path}  1"]


def test_ascii_stands_for_what_a_terminal_does_not_know():
    assert in_ascii("±1 µs … −2–3 日") == "+/-1 us . -2-3 ?"
    column = Column("±", "µs", ("−1",), left=True, spare=3).in_ascii()
    assert column == Column("+/-", "us", ("-1",), left=True, spare=3)


def test_markdown_escapes_what_it_would_read():
    text = markdown_table(
        [Column("a|b", "", ("*", "[x]"), left=True), Column("para-", "meters", ("1", "2"))]
    )
    heads, rule, first, second = text.splitlines()
    assert heads == r"| a\|b | parameters |"
    assert rule == "| :--- | ---: |"
    assert (first, second) == (r"| \* | 1 |", r"| \[x\] | 2 |")
    assert markdown_list(["a_b", "c"]) == "- a\\_b\n- c\n"
