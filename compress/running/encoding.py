"""From a candidate to the file that a target runs."""

from __future__ import annotations

from pathlib import Path

from compress.artifact import Artifact, Lowering
from compress.candidate import Candidate
from compress.measure.target import Target, backend_of
from compress.stage import calibration_inputs, formats_of
from compress.task import Task
from compress.training.data import head

__all__ = ["encode"]

_PARITY_SAMPLES = 256


def encode(
    candidate: Candidate, task: Task, target: Target, path: Path, lowering: Lowering | None = None
) -> Artifact:
    """The candidate as one file for one target, made by the target's backend.

    ``lowering`` stands in for the target's own.

    Raises:
        LoweringError: it cannot be exported, encoded, or run as the module runs.
    """
    samples = [f.calibration.samples for f in formats_of(candidate).values()]
    calibration = calibration_inputs(task, max(samples, default=1))
    check = head(task.validation, min(_PARITY_SAMPLES, len(task.validation))).inputs
    return backend_of(target).lower(
        candidate,
        target.lowering() if lowering is None else lowering,
        calibration=calibration,
        check=check,
        path=path,
    )
