"""The task ``language``: to predict the next character of a text.

Texts are the epigrams of Debian's package ``fortunes``, 2.6 million characters in 15,000 entries,
or any text files in UTF-8. They are never downloaded. A file with lines that are ``%`` is divided
there, as fortune files are, and any other at its blank lines; entries are what is kept apart
between training, validation and test.

A token is a character of ASCII, or of what Unicode's compatibility decomposition leaves of another;
the vocabulary is the same for every text. The entries of a part follow each other, with an end mark
between, and are cut into windows of one length; labels are the tokens that come next.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from compress.config.fields import Whole
from compress.errors import DataError, RecipeError
from compress.io.files import named, read_text, regular_file
from compress.measure.perplexity import bits_per_token
from compress.preprocessing import TextPreprocessing
from compress.task import Task
from compress.tasks.arrays import ArrayDataset

__all__ = [
    "DEBIAN_FOLDER",
    "VOCABULARY",
    "WindowDataset",
    "decode",
    "encode",
    "make_task",
    "windows_of",
    "windows_of_all",
]

DEBIAN_FOLDER = Path("/usr/share/games/fortunes")
_PRINTABLE = tuple(map(chr, range(32, 127)))
#: Every token, by its id: the end of an entry, any other character, and those of ASCII.
VOCABULARY = ("<end>", "<other>", "\t", "\n", *_PRINTABLE)
_END, _OTHER = 0, 1
_IDS = {character: place for place, character in enumerate(VOCABULARY)}

_SEPARATOR = "%"
_MOST_BYTES = 64 << 20
_SPLIT_SEED = 0
# A tenth of the tokens each, but no more windows than these.
_TEST_WINDOWS, _VALIDATION_WINDOWS = 1_000, 500
_LEAST_ENTRIES = 10

#: Ids of tokens, ``(count,)``, of one type.
Tokens = np.ndarray[Any, Any]
#: Tokens of a sample.
Length = Annotated[Whole, Field(ge=2, le=65_536)]


class WindowDataset(ArrayDataset):
    """Samples ``(tokens, next tokens)``, each ``(length,)``, cut from one window.

    Args:
        windows: ``(n, length + 1)``, of any whole numbers.
    """

    def __getitem__(self, index: int, /) -> Any:
        """One sample."""
        return _shown(self.inputs[index])

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        """One collated batch."""
        return _shown(self.inputs.index_select(0, torch.as_tensor(indices, dtype=torch.int64)))

    def subset(self, indices: Sequence[int]) -> WindowDataset:
        """A data set of these samples, in this order, with its own memory."""
        return WindowDataset(super().subset(indices).inputs)

    def without_labels(self) -> ArrayDataset:
        """The tokens alone."""
        return ArrayDataset(_shown(self.inputs)[0])


def make_task(*, folder: Path | None = None, path: Path | None = None, length: Length = 64) -> Task:
    """The task: a tenth of the text to test on and a tenth for validation, the rest to train on.

    Of a long text, at most 1,000 and 500 windows are held out. The metric is bits per token: the
    perplexity is 2 to its power.

    Args:
        folder: whose text files are read; without it and ``path``, Debian's package.
        path: one text file, in place of a folder.
        length: tokens of every sample.

    Raises:
        RecipeError: both a folder and a path.
        DataError: no such file or folder, no text in it, or too little for the length.
    """
    if folder is not None and path is not None:
        raise RecipeError(
            "task language: give a folder of text files or the path of one, not both."
        )
    entries = read_entries(_files(folder, path))
    where = path or folder or DEBIAN_FOLDER
    if len(entries) < _LEAST_ENTRIES:
        raise DataError(
            f"task language: {where} holds {len(entries)} entries, too few to hold some out; "
            f"{_LEAST_ENTRIES} are the least, divided by lines of % or by blank lines."
        )
    coded = [np.array(encode(entry), dtype=np.uint8) for entry in entries]
    train, validation, test = windows_of(coded, length, end=_END, where=f"task language: {where}")
    return Task(
        name="language",
        train=train,
        validation=validation,
        test=test,
        metric=bits_per_token,
        higher_is_better=False,
        classes=VOCABULARY,
        outputs="tokens",
        preprocessing=TextPreprocessing(
            None, length, _END, VOCABULARY, _OTHER, begin_id=_END, keep="last"
        ),
    )


def encode(text: str) -> list[int]:
    """The tokens of a text, without an end mark."""
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return [_IDS.get(character, _OTHER) for character in plain]


def decode(tokens: Sequence[int]) -> str:
    """The text of some tokens, with what has no character in angle brackets."""
    return "".join(VOCABULARY[token] for token in tokens)


def read_entries(files: Sequence[Path]) -> list[str]:
    """Every entry that holds anything, each once, in the order of the files.

    Raises:
        DataError: a file that cannot be read, or no text in any.
    """
    found: dict[str, None] = {}
    left = _MOST_BYTES
    for path in files:
        where = "task language: "
        left -= regular_file(path, DataError, where=where)
        if left < 0:
            raise DataError(
                f"{where}{named(path)}: over {_MOST_BYTES >> 20} MiB of text with the files before "
                "it; give a part of it."
            )
        lines = read_text(path, _MOST_BYTES, DataError, where=where).splitlines()
        found |= dict.fromkeys(_entries(lines))
    if not found:
        names = ", ".join(map(named, files[:3]))
        raise DataError(f"task language: there is no text in {names}.")
    return list(found)


def _files(folder: Path | None, path: Path | None) -> list[Path]:
    if path is not None:
        return [path]
    place = folder or DEBIAN_FOLDER
    if not os.path.isdir(place):
        raise DataError(
            f"task language: {place}: there is no such folder. Install the texts "
            "(`apt-get install fortunes`), or give a folder of text files (`folder: ...`) or one "
            "file (`path: ...`)."
        )
    # Beside each of Debian's files lie an index, and a link to it under another name.
    found = sorted(
        file
        for file in _listed(place)
        if os.path.isfile(file) and not file.is_symlink() and not file.name.startswith(".")
        if file.suffix != ".dat"
    )
    if not found:
        raise DataError(f"task language: {place}: there are no text files in it.")
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except OSError as error:
        raise DataError(
            f"task language: {named(folder)}: it cannot be listed ({error.strerror or error})."
        ) from error


def _entries(lines: Sequence[str]) -> Iterator[str]:
    separator = _SEPARATOR if _SEPARATOR in lines else ""
    entry: list[str] = []
    for line in (*lines, separator):
        if line.strip() != separator:
            entry.append(line)
            continue
        if text := "\n".join(entry).strip("\n"):
            yield text
        entry = []


def windows_of(
    entries: Sequence[Tokens], length: int, *, end: int, where: str
) -> tuple[WindowDataset, WindowDataset, WindowDataset]:
    """Training, validation and test windows of entries, in an order drawn once and for all.

    A tenth of the tokens is for testing and a tenth for validation, at most 1,000 and 500 windows.

    Args:
        entries: tokens of each text, without end marks, all of one type, which the windows have.
        length: tokens of a sample.
        end: the token before, between and behind entries.
        where: the texts came from; begins the sentence of an error.

    Raises:
        DataError: too few tokens.
    """
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(entries))
    total = sum(len(entry) + 1 for entry in entries)
    held_out = (
        min(total // 10, _TEST_WINDOWS * length),
        min(total // 10, _VALIDATION_WINDOWS * length),
    )
    left = iter([entries[place] for place in order])
    parts = [_stream(left, end, least) for least in (*held_out, total)]
    if min(map(len, parts)) <= length:
        raise DataError(
            f"{where} has {total} tokens, too few for windows of {length} in training, validation "
            "and test; give a smaller length, or more text."
        )
    test, validation, train = (_cut(part, length) for part in parts)
    return train, validation, test


def windows_of_all(
    entries: Sequence[Tokens], length: int, *, end: int, where: str
) -> WindowDataset:
    """Windows of all entries, one after another.

    Args:
        entries: tokens of each text, without end marks, all of one type.
        length: tokens of a sample.
        end: the token before, between and behind entries.
        where: the texts came from; begins the sentence of an error.

    Raises:
        DataError: too few tokens for one window.
    """
    total = sum(len(entry) + 1 for entry in entries)
    stream = _stream(iter(entries), end, total)
    if len(stream) <= length:
        raise DataError(
            f"{where} has {total} tokens, too few for one window of {length}; give more text."
        )
    return _cut(stream, length)


def _stream(entries: Iterator[Tokens], end: int, least: int) -> Tensor:
    """Entries, each between two end marks, until there are so many tokens and one or none are left.

    What the last one has beyond that is left out.
    """
    parts: list[Tokens] = []
    count = 1
    while count <= least and (entry := next(entries, None)) is not None:
        mark = np.array([end], dtype=entry.dtype)
        parts += [entry, mark] if parts else [mark, entry, mark]
        count += len(entry) + 1
    return torch.from_numpy(np.concatenate(parts)[: least + 1] if parts else np.empty(0, np.uint8))


def _cut(stream: Tensor, length: int) -> WindowDataset:
    """Windows that share one token with the next: the label of the one and the input of the other.

    Without the tokens that fill no whole window.
    """
    return WindowDataset(stream.unfold(0, length + 1, length).contiguous())


def _shown(windows: Tensor) -> tuple[Tensor, Tensor]:
    tokens = windows.long()
    return tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()
