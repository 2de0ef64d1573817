"""The task ``text``: a file with a text on each line, as tokens.

Without labels it is for distilling sentence encoders: the teacher says what there is to learn, and
a model is scored by how well its similarities agree with those of the baseline. With the next
tokens as labels it is for causal language models.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

from compress.config.recipe_file import located
from compress.errors import DataError
from compress.io.files import named, opened
from compress.measure.perplexity import bits_per_token
from compress.models.huggingface import tokenizer_digest
from compress.preprocessing import TextPreprocessing
from compress.task import Task
from compress.tasks.language import windows_of
from compress.tasks.tokens import TextLength, text_task, vocabulary_of

__all__ = ["TextLabels", "make_task", "read_lines"]

#: What the labels of texts are.
TextLabels = Literal["next-token"]

_MOST_LINES = 1_000_000
_LONGEST_LINE = 10_000
_MOST_CHARACTERS = 256 << 20
# A tenth of the texts each, but no more than these.
_TEST_TEXTS, _VALIDATION_TEXTS = 2_000, 1_000


def make_task(
    *,
    path: Path,
    tokenizer: Path,
    max_length: TextLength = 64,
    labels: TextLabels | None = None,
) -> Task:
    """The task: a tenth of the lines to test on, a tenth for validation, the others to train on.

    Of a large file, the first million lines are read and at most 2,000 and 1,000 held out. Lines
    that are blank, or that came before, do not count.

    Args:
        path: a text file in UTF-8.
        tokenizer: folder with ``tokenizer.json``: that of the model.
        max_length: tokens of every sample; longer texts are cut.
        labels: ``next-token``: samples are windows of ``max_length`` tokens, cut from the lines one
            after another with the tokenizer's end of text between, and their labels the tokens that
            come next. At most 1,000 and 500 windows are held out. The metric is bits per token: the
            perplexity is 2 to its power.

    Raises:
        DataError: no such file, nothing in it, or no tokenizer.
        MissingExtra: tokenizers is not installed.
    """
    lines = read_lines(path)
    if labels == "next-token":
        return _next_tokens(lines, path, located(tokenizer), max_length)
    share = len(lines) // 10
    held_out = (min(share, _TEST_TEXTS), min(share, _VALIDATION_TEXTS))
    if not all(held_out):
        raise DataError(
            f"{path}: {len(lines)} different texts are too few to hold some out; ten are the least."
        )
    return text_task("text", lines, tokenizer=tokenizer, max_length=max_length, held_out=held_out)


def _next_tokens(lines: Sequence[str], path: Path, folder: Path, length: int) -> Task:
    vocabulary = vocabulary_of(folder)
    where = f"task text: {named(path)}"
    train, validation, test = windows_of(
        vocabulary.encode(lines), length, end=vocabulary.end, where=where
    )
    return Task(
        name="text",
        train=train,
        validation=validation,
        test=test,
        metric=bits_per_token,
        higher_is_better=False,
        classes=vocabulary.tokens,
        outputs="tokens",
        tokenizer=tokenizer_digest(folder),
        preprocessing=TextPreprocessing(
            folder, length, vocabulary.end, begin_id=vocabulary.end, keep="last"
        ),
    )


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
