"""The run folder: where everything of a run lies.

::

    RUN/record.json               the record
    RUN/log.jsonl                 events, one a line
    RUN/stages/00-input/          candidate/, model.onnx; stage.json and measured-TARGET.json say
                                  what belongs to a result, with checksums, and are written last
    RUN/measurements/*.jsonl      raw samples
    RUN/contact-sheet.png         some test images as rows make them, where they make images
    RUN/ship/                     the advised row, which runs by itself (:mod:`compress.ship`)
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.backends import BACKENDS
from compress.errors import RecordError, StorageError
from compress.io.atomic import sweep
from compress.io.scratch import sweep_scratch
from compress.pareto import front_facts
from compress.record import RECORD_NAME, Record
from compress.record_images import CONTACT_SHEET
from compress.ship_folder import SHIP, remove_shipped

__all__ = ["RunFolder"]

_LOG = "log.jsonl"
# What a run writes into the folder of a stage, less models, which are named by their target.
_OF_A_STAGE = ("candidate", "checkpoint", "answers", "stage.json")
_MODELS = tuple(
    f"{stem}{backend.suffix}{end}"
    for backend in BACKENDS
    for stem in ("model", "model-*")
    for end in ("", *backend.beside)
)


@dataclass(frozen=True)
class EarlierRun:
    """What an earlier run has left: its record, and what there is to say of it."""

    record: Record | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFolder:
    """A run's place on disk."""

    root: Path

    def stage(self, index: int, label: str) -> Path:
        """The folder of one stage."""
        return self.root / "stages" / f"{index:02d}-{label}"

    def raw(self, index: int, target: str) -> Path:
        """The file of one row's raw samples on one target."""
        return self.root / "measurements" / f"{index:02d}-{target}.jsonl"

    def named(self, path: Path) -> str:
        """A path relative to the folder, for messages."""
        return path.relative_to(self.root).as_posix()

    def prepare(self, name: str, *, fresh: bool) -> EarlierRun:
        """Make the folder ready; what is already there, unless ``fresh``.

        A record or a log that is damaged is set aside, and a note says so.

        Raises:
            RecordError: the folder holds a run of another recipe, or something that is no run.
            StorageError: the folder cannot be made.
        """
        for stage in self.root.glob("stages/*/"):
            sweep_scratch(stage)
        if fresh:
            self.clear()
        try:
            (self.root / "measurements").mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise RecordError(f"{self.root}: this is a file; give a folder.") from None
        except OSError as error:
            raise StorageError(
                f"{self.root}: cannot be made ({error.strerror or error})."
            ) from error
        sweep(self.root)
        record, notes = self._earlier()
        if record is not None and record.name != name:
            raise RecordError(
                f"{self.root}: this folder holds a run of the recipe {record.name!r}, and this is "
                f"{name!r}; give another --out, or --fresh to replace it."
            )
        return EarlierRun(record, (*notes, *self._checked_log()))

    def save(self, record: Record, earlier: Record | None) -> None:
        """Write the record with its fronts, and with the rows that ``earlier`` has beyond it.

        A repetition that is cut short so loses nothing that an earlier run of the same recipe had
        measured.

        Raises:
            StorageError: the disk refused; the previous record is intact.
        """
        rows = list(record.rows)
        if earlier is not None and earlier.recipe == record.recipe:
            known = zip(rows, earlier.rows, strict=False)
            if all(new.fingerprint == old.fingerprint for new, old in known):
                measured = [row for row in rows if row.measurements]
                rows = [*measured, *earlier.rows[len(measured) :]]
        complete = record.model_copy(update={"rows": rows})
        fronts = {name: front_facts(complete, name) for name in complete.targets}
        complete.pareto = record.pareto = fronts
        complete.save(self.root)

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        for stage in self.root.glob("stages/[0-9][0-9]*-*"):
            wanted = [stage / name for name in _OF_A_STAGE]
            wanted += [path for pattern in _MODELS for path in stage.glob(pattern)]
            for path in [*wanted, *stage.glob("measured-*.json")]:
                _remove(path)
            _remove_if_empty(stage)
        for path in self.root.glob("measurements/*.jsonl"):
            _remove(path)
        for name in ("stages", "measurements"):
            _remove_if_empty(self.root / name)
        for name in (_LOG, RECORD_NAME, CONTACT_SHEET):
            _remove(self.root / name)
        remove_shipped(self.root / SHIP)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one event to ``log.jsonl``; a log that cannot be written stops nothing."""
        text = json.dumps({"time_s": round(time.time(), 3), **event})
        line = f'{text[:-1]}, "crc32": {zlib.crc32(text.encode())}}}\n'
        try:
            with (self.root / _LOG).open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError:
            return

    def _earlier(self) -> tuple[Record | None, list[str]]:
        if not (self.root / RECORD_NAME).exists():
            return None, []
        try:
            return Record.load(self.root), []
        except RecordError as error:
            place = _set_aside(self.root / RECORD_NAME)
            text = str(error).rstrip(".")
            return None, [f"{text}; it was set aside as {place.name}, and is made again"]

    def _checked_log(self) -> list[str]:
        """Sets a log aside of which lines are not what was written; a last one may be cut short."""
        path = self.root / _LOG
        try:
            content = path.read_bytes()
        except OSError:
            return []
        *lines, rest = content.split(b"\n")
        notes = []
        if rest:  # of a line that a kill has cut short
            with path.open("r+b") as stream:
                stream.truncate(len(content) - len(rest))
            notes.append(f"{_LOG}: its last line was cut short, and is left out")
        if (bad := _damaged_line(lines)) is not None:
            place = _set_aside(path)
            notes.append(f"{_LOG}: line {bad} is damaged; the log was set aside as {place.name}")
        return notes


def _damaged_line(lines: Sequence[bytes]) -> int | None:
    """The number of the first line whose checksum is another; older lines have none."""
    are_new = False
    for number, line in enumerate(lines, 1):
        text, mark, checksum = line.rpartition(b', "crc32": ')
        are_new |= bool(mark)
        if are_new and checksum != b"%d}" % zlib.crc32(text + b"}"):
            return number
    return None


def _set_aside(path: Path) -> Path:
    number, place = 1, path.with_name(f"{path.name}.damaged")
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}.damaged-{number}")
    try:
        path.replace(place)
    except OSError as error:
        raise StorageError(
            f"{path}: it is damaged and could not be set aside ({error.strerror or error})."
        ) from error
    return place


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or with something of the user's in it
        folder.rmdir()
