"""The task ``wordnet``: definitions of English words, about 115,000 of them.

Miller 1995, "WordNet: a lexical database for English"; the files of WordNet 3, which Debian has in
the package ``wordnet-base``. Without labels, for distilling sentence encoders; or with the file of
the lexicographers that each sense is in, 45 classes such as "noun.animal" or "verb.motion".

The files are never downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from compress.config.fields import Flag
from compress.errors import DataError
from compress.io.files import named, read_text
from compress.task import Task
from compress.tasks.tokens import TextLength, text_task

__all__ = ["CLASSES", "DEBIAN_FOLDER", "FILES", "make_task", "read_glosses"]

DEBIAN_FOLDER = Path("/usr/share/wordnet")
FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_NOUNS = (
    "Tops act animal artifact attribute body cognition communication event feeling food group "
    "location motive object person phenomenon plant possession process quantity relation shape "
    "state substance time"
)
_VERBS = (
    "body change cognition communication competition consumption contact creation emotion motion "
    "perception possession social stative weather"
)
#: Names of the lexicographers' files, by the number that the data has (lexnames(5WN)).
CLASSES = (
    *("adj.all", "adj.pert", "adv.all"),
    *(f"noun.{name}" for name in _NOUNS.split()),
    *(f"verb.{name}" for name in _VERBS.split()),
    "adj.ppl",
)

# Two digits each.
_NUMBERS = {f"{number:02d}" for number in range(len(CLASSES))}
_TEST_GLOSSES, _VALIDATION_GLOSSES = 2_000, 1_000
_LARGEST_FILE_BYTES = 64 << 20


def make_task(
    *,
    tokenizer: Path,
    folder: Path | None = None,
    max_length: TextLength = 32,
    labels: Flag = False,
) -> Task:
    """The task: 2,000 definitions to test on, 1,000 for validation, the others to train on.

    Args:
        tokenizer: folder with ``tokenizer.json``: that of the model.
        folder: looked in first, then Debian's package.
        max_length: tokens of every sample; nine of ten definitions are shorter than 32.
        labels: whether each definition has its class as a label.

    Raises:
        DataError: the files are missing or damaged, or there is no tokenizer.
        MissingExtra: tokenizers is not installed.
    """
    glosses = read_glosses(find(folder))
    return text_task(
        "wordnet",
        list(glosses),
        tokenizer=tokenizer,
        max_length=max_length,
        held_out=(_TEST_GLOSSES, _VALIDATION_GLOSSES),
        labels=list(glosses.values()) if labels else None,
        classes=CLASSES if labels else (),
    )


def find(folder: Path | None = None) -> Path:
    """The first place that has all files: ``folder``, then Debian's package.

    Raises:
        DataError: no place has them; the message says how to get them.
    """
    places = [place for place in (folder, DEBIAN_FOLDER) if place is not None]
    for place in places:
        if all(os.path.isfile(place / name) for name in FILES):
            return place
    looked = ", ".join(str(place) for place in places)
    raise DataError(
        f"task wordnet: the data is not on this machine; looked in {looked}. Install it "
        f"(`apt-get install wordnet-base`), or give the folder that holds {', '.join(FILES)} "
        "(`folder: ...`)."
    )


def read_glosses(folder: Path) -> dict[str, int]:
    """Every definition once, without the examples behind it, and its class: that of its first use.

    Raises:
        DataError: a file that is damaged or no WordNet data.
    """
    found: dict[str, int] = {}
    for name in FILES:
        for gloss, number in _senses(folder / name):
            found.setdefault(gloss, number)
    return found


def _senses(path: Path) -> Iterator[tuple[str, int]]:
    # A line: offset, lexicographer's file, kind, words, pointers, "|", gloss (wndb(5WN)). The
    # license at the top is indented.
    lines = read_text(path, _LARGEST_FILE_BYTES, DataError).splitlines()
    if not any(lines):
        raise DataError(f"{named(path)}: it is empty; get WordNet's data again.")
    for number, line in enumerate(lines, start=1):
        if line.startswith("  ") or not line:
            continue
        head, bar, gloss = line.partition(" | ")
        fields = head.split(maxsplit=2)
        known = len(fields) == 3 and fields[1] in _NUMBERS
        if not bar or not known:
            raise DataError(f"{path}: line {number} is not a sense of WordNet.")
        if definition := gloss.partition('; "')[0].strip():
            yield definition, int(fields[1])
