"""Process: jobs of the worker on this machine, with errors that belong to this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compress.errors import MeasurementError
from compress.measure.ondevice import process
from compress.measure.runtime_errors import readable_error

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import Answer

__all__ = ["WORKER", "run_interleaved", "run_side_by_side", "run_worker"]

WORKER = process.WORKER


def run_worker(job: Mapping[str, object], *, timeout_s: float) -> Answer:
    """Run ``job`` in a fresh process and return its answer; see :mod:`.ondevice.process`.

    Raises:
        MeasurementError: the job failed, or its process crashed, was killed or took too long.
    """
    try:
        return process.run_worker(job, timeout_s=timeout_s, worker=WORKER)
    except process.JobFailed as error:
        raise MeasurementError(_explained(job, str(error))) from None


def run_side_by_side(jobs: Sequence[Mapping[str, object]], *, timeout_s: float) -> list[Answer]:
    """Run jobs at the same time, each in a fresh process; see :mod:`.ondevice.process`.

    Raises:
        MeasurementError: a job failed, or its process crashed, was killed or took too long.
    """
    try:
        return process.run_side_by_side(jobs, timeout_s=timeout_s, worker=WORKER)
    except process.JobFailed as error:
        raise MeasurementError(_explained(jobs[0], str(error))) from None


def run_interleaved(
    jobs: Sequence[Mapping[str, object]], *, seed: int, timeout_s: float
) -> list[Answer]:
    """Time several models in fresh processes that take turns; see :mod:`.ondevice.process`."""
    answers = process.run_interleaved(jobs, seed=seed, timeout_s=timeout_s, worker=WORKER)
    return [
        {"error": _explained(job, answer["error"])} if "error" in answer else answer
        for job, answer in zip(jobs, answers, strict=True)
    ]


def _explained(job: Mapping[str, object], error: str) -> str:
    return f"{job.get('model', 'the measuring process')}: {readable_error(error)}"
