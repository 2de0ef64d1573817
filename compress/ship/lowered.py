"""A row lowered again for another batch: not the file that was timed, but checked as that was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from compress.artifact import Artifact
from compress.candidate import FILES
from compress.errors import LoweringError, RecordError
from compress.running.encoding import encode
from compress.running.job import Job, load_candidate
from compress.running.row_candidate import check_candidate
from compress.ship.request import Choice

__all__ = ["lowered_again"]


def lowered_again(choice: Choice, job: Job, batch: int | Literal["any"], place: Path) -> Artifact:
    """The row's candidate as a file of another batch, at ``place``.

    Args:
        choice: the row.
        job: what the run was of; its targets are those of the recipe.
        batch: samples of one inference, or any number.
        place: where the file is written.

    Raises:
        RecordError: the row's candidate is gone, or was changed.
        LoweringError: a target that is not the recipe's, or formats that have no such form.
        ParityError: a file that does not compute what the module computes.
        MeasurementError: a device that cannot say how it wants files.
    """
    row, name = choice.row, choice.found.target
    target = next((one for one in job.targets if one.name == name), None)
    if target is None:
        raise LoweringError(
            f"--batch {batch}: the target {name!r} is none of the recipe's, so that nothing says "
            "how its files are made; give another --target."
        )
    folder = job.folder.stage(row.index, row.stage) / "candidate"
    if not all((folder / file).is_file() for file in FILES):
        raise RecordError(
            f"row {row.index} ({row.stage}): its candidate {folder} is gone; run the recipe again."
        )
    candidate = load_candidate(job, folder, job.candidate)
    check_candidate(candidate, row, folder)
    own = target.lowering()
    lengths = tuple(axis for axis in own.open if axis == "length")
    lowering = (
        replace(own, batch=1, open=("batch", *lengths))
        if batch == "any"
        else replace(own, batch=batch, open=lengths)
    )
    return encode(candidate, job.task, target, place, lowering)
