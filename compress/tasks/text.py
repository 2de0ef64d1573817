"""The task ``text``: a file with a text on each line, as tokens and without labels.

For distilling sentence encoders: the teacher says what there is to learn, and a model is scored by
how well its similarities agree with those of the baseline.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from compress.errors import DataError
from compress.io.files import named, opened
from compress.task import Task
from compress.tasks.tokens import TextLength, text_task

__all__ = ["make_task", "read_lines"]

_MOST_LINES = 1_000_000
_LONGEST_LINE = 10_000
_MOST_CHARACTERS = 256 << 20
# A tenth of the texts each, but no more than these.
_TEST_TEXTS, _VALIDATION_TEXTS = 2_000, 1_000


def make_task(*, path: Path, tokenizer: Path, max_length: TextLength = 64) -> Task:
    """The task: a tenth of the lines to test on, a tenth for validation, the others to train on.

    Of a large file, the first million lines are read and at most 2,000 and 1,000 held out. Lines
    that are blank, or that came before, do not count.

    Args:
        path: a text file in UTF-8.
        tokenizer: folder with ``tokenizer.json``: that of the model.
        max_length: tokens of every sample; longer texts are cut.

    Raises:
        DataError: no such file, nothing in it, or no tokenizer.
        MissingExtra: tokenizers is not installed.
    """
    lines = read_lines(path)
    share = len(lines) // 10
    held_out = (min(share, _TEST_TEXTS), min(share, _VALIDATION_TEXTS))
    if not all(held_out):
        raise DataError(
            f"{path}: {len(lines)} different texts are too few to hold some out; ten are the least."
        )
    return text_task("text", lines, tokenizer=tokenizer, max_length=max_length, held_out=held_out)


def read_lines(path: Path) -> list[str]:
    """The lines that hold anything, each once, in the file's order; in bounded memory.

    At most a million lines, of each 10,000 characters, and 256 Mi characters of all.

    Raises:
        DataError: no such file, not text, or nothing in it.
    """
    found: dict[str, None] = {}
    left = _MOST_CHARACTERS
    with opened(path, DataError) as stream, io.TextIOWrapper(stream, encoding="utf-8") as lines:
        try:
            for line in _bounded(lines):
                if text := line.strip():
                    found[text] = None
                    left -= len(text)
                if len(found) == _MOST_LINES or left < 0:
                    break
        except ValueError as error:
            raise DataError(
                f"{named(path)}: not readable as UTF-8 text ({named(error)})."
            ) from error
    if not found:
        raise DataError(f"{path}: the text file is empty; it needs one text on each line.")
    return list(found)


def _bounded(file: TextIO) -> Iterator[str]:
    """Each line without what is beyond the longest that is kept."""
    while line := file.readline(_LONGEST_LINE):
        if "\0" in line:
            raise ValueError("it holds the character NUL")
        yield line
        while line and not line.endswith("\n"):
            line = file.readline(_LONGEST_LINE)
