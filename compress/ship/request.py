"""What is to be shipped: which row of a record, for which target, and in which form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compress import __version__
from compress.artifact import file_sha256
from compress.backends import ONNX
from compress.errors import RecipeError, RecordError
from compress.formatting import sanitize
from compress.io.files import named
from compress.pareto import recommend
from compress.record import Measurement, Record, Row
from compress.report.provenance import device_name

__all__ = ["PROGRAM", "Choice", "ShipRequest", "choose"]

#: What lies in every shipped folder as it is.
PROGRAM = Path(__file__).parent / "program"
PROGRAM_FILES = ("run.py", "reading.py")


@dataclass(frozen=True)
class ShipRequest:
    """What is to be shipped.

    Args:
        row: its number; ``None`` for the one that is advised.
        target: that it is for; ``None`` for the first of the record.
        out: the folder; ``None`` for ``ship`` in that of the run.
        batch: samples of one inference, or ``any``, where it is to be another than was measured.
        samples: how many test samples go with it, or ``all``; ``None`` for about 1 MiB of them.
    """

    row: int | None = None
    target: str | None = None
    out: Path | None = None
    batch: int | Literal["any"] | None = None
    samples: int | Literal["all"] | None = None


@dataclass(frozen=True)
class Choice:
    """A row of a record with its file.

    Args:
        record: of the run.
        row: of the record.
        found: what was measured of it on the target.
        model: the measured file.
        request: what was asked for.
    """

    record: Record
    row: Row
    found: Measurement
    model: Path
    request: ShipRequest

    @property
    def advised(self) -> int:
        """The row that is advised for the target."""
        return recommend(self.record, self.found.target).index

    @property
    def made_from(self) -> str:
        """A digest of all that the shipped folder is made from, less the data."""
        record, request = self.record, self.request
        facts = [
            *(__version__, record.name, record.seed, record.status, record.error),
            *(record.recipe, device_name(record, self.found.target)),
            *(self.advised, record.baseline),
            record.task.model_dump(mode="json"),
            [row.model_dump(mode="json") for row in record.rows],
            [self.row.index, self.found.target, request.batch, request.samples],
            [(PROGRAM / name).read_text(encoding="utf-8") for name in PROGRAM_FILES],
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def choose(record: Record, run: Path, request: ShipRequest) -> Choice:
    """The row that a request is about.

    Raises:
        RecipeError: no such target, or one whose files onnxruntime does not run.
        RecordError: nothing was measured, no such row, or one whose file is gone or was changed.
    """
    if not record.targets:
        raise RecordError(
            f"the run {named(record.name)} has no measured row yet, so that there is none to ship; "
            "repeat the run, which resumes."
        )
    target = request.target or record.targets[0]
    if target not in record.targets:
        raise RecipeError(
            f"--target {named(target)}: nothing was measured on it; the run {named(record.name)} "
            f"has {', '.join(sanitize(name, 60) for name in record.targets)}."
        )
    row = _row(record, target, request)
    found = row.on(target)
    if found is None:
        rows = [str(one.index) for one in record.rows if one.on(target) is not None]
        raise RecordError(
            f"row {row.index} ({named(row.stage)}): it was not measured on {named(target)}; rows "
            f"{', '.join(rows)} were."
        )
    return Choice(record, row, found, _model(run, row, found), request)


def _row(record: Record, target: str, request: ShipRequest) -> Row:
    index = recommend(record, target).index if request.row is None else request.row
    found = next((row for row in record.rows if row.index == index), None)
    if found is None:
        raise RecordError(
            f"--row {index}: the run {named(record.name)} has rows 0 to {len(record.rows) - 1}."
        )
    return found


def _model(run: Path, row: Row, found: Measurement) -> Path:
    where = f"row {row.index} ({named(row.stage)})"
    path = run / found.artifact.path
    if not path.resolve().is_relative_to(run.resolve()):
        raise RecordError(f"{where}: its file {named(path)} lies outside of the run's folder.")
    if path.suffix != ONNX.suffix:
        raise RecipeError(
            f"{where}: its file on {named(found.target)} is {named(path.name)}, and what is "
            "shipped is run by onnxruntime; deploy that file itself, or ship the row of "
            "another target."
        )
    if not path.is_file():
        raise RecordError(f"{where}: its file {named(path)} is gone; run the recipe again.")
    if file_sha256(path) != found.artifact.sha256:
        raise RecordError(
            f"{where}: its file {named(path)} is not the one that the record describes; run the "
            "recipe again."
        )
    return path
