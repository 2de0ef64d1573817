"""The run folder: where everything of a run lies, and which finished stages can be re-used.

::

    RUN/record.json               the record
    RUN/log.jsonl                 events, one a line
    RUN/stages/00-input/          candidate/, model.onnx, stage.json (written last)
    RUN/measurements/*.jsonl      raw samples
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import CheckpointError, RecordError, StorageError
from compress.pareto import front_facts
from compress.record import RECORD_NAME, Record, write_atomically

__all__ = ["RunFolder", "StageResult"]

_OWN = ("stages", "measurements", "log.jsonl", RECORD_NAME)


@dataclass(frozen=True)
class StageResult:
    """What is remembered of a finished stage beside its candidate.

    ``key`` identifies everything that the result depends on.
    """

    key: str
    fingerprint: str
    seconds: float
    notes: tuple[str, ...]
    history: tuple[dict[str, Any], ...]
    widths: tuple[dict[str, Any], ...] = ()


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

    def prepare(self, name: str, *, fresh: bool) -> Record | None:
        """Make the folder ready; the record that is already there, unless ``fresh``.

        Raises:
            RecordError: the folder holds a run of another recipe, or something that is no run.
            StorageError: the folder cannot be made.
        """
        if fresh:
            self.clear()
        earlier = self._earlier()
        if earlier is not None and earlier.name != name:
            raise RecordError(
                f"{self.root}: this folder holds a run of the recipe {earlier.name!r}, and this is "
                f"{name!r}; give another --out, or --fresh to replace it."
            )
        try:
            (self.root / "measurements").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.root}: cannot be made ({error.strerror or error})."
            ) from error
        return earlier

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
        whole = record.model_copy(update={"rows": rows})
        whole.pareto = record.pareto = {name: front_facts(whole, name) for name in whole.targets}
        whole.save(self.root)

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        for name in _OWN:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def result(self, index: int, label: str) -> StageResult | None:
        """What was remembered of a stage; ``None`` if it did not finish or is damaged."""
        try:
            stored = json.loads((self.stage(index, label) / "stage.json").read_text("utf-8"))
            return StageResult(
                key=stored["key"],
                fingerprint=stored["fingerprint"],
                seconds=float(stored["seconds"]),
                notes=tuple(stored["notes"]),
                history=tuple(stored["history"]),
                widths=tuple(stored.get("widths", ())),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, index: int, label: str, result: StageResult) -> None:
        """Mark a stage as finished; its candidate must be saved before.

        Raises:
            StorageError: the disk refused.
        """
        path = self.stage(index, label) / "stage.json"
        write_atomically(path, json.dumps(vars(result), indent=1) + "\n")

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one event to ``log.jsonl``; a log that cannot be written stops nothing."""
        line = json.dumps({"time_s": round(time.time(), 3), **event})
        try:
            with (self.root / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError:
            return

    def _earlier(self) -> Record | None:
        if (self.root / RECORD_NAME).exists():
            return Record.load(self.root)
        if self.root.is_file():
            raise RecordError(f"{self.root}: this is a file; give a folder.")
        return None


#: What makes a saved candidate unusable; such a stage is simply run again.
DAMAGED = (CheckpointError, OSError)
