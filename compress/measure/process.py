"""Process: jobs of the worker on this machine, with errors that belong to this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.errors import MeasurementError
from compress.measure.ondevice import driver
from compress.measure.runtime_errors import plain_complaint

__all__ = ["WORKER", "run_beside", "run_turns", "run_worker"]

WORKER = driver.WORKER


def run_worker(job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Run ``job`` in a fresh process and return its answer; see :func:`.driver.run_worker`.

    Raises:
        MeasurementError: the job failed, or its process crashed, was killed or took too long.
    """
    try:
        return driver.run_worker(job, timeout_s=timeout_s, worker=WORKER)
    except driver.JobFailed as error:
        raise MeasurementError(_complaint(job, str(error))) from None


def run_beside(jobs: Sequence[Mapping[str, Any]], *, timeout_s: float) -> list[dict[str, Any]]:
    """Run jobs at the same time, each in a fresh process; see :func:`.driver.run_beside`.

    Raises:
        MeasurementError: a job failed, or its process crashed, was killed or took too long.
    """
    try:
        return driver.run_beside(jobs, timeout_s=timeout_s, worker=WORKER)
    except driver.JobFailed as error:
        raise MeasurementError(_complaint(jobs[0], str(error))) from None


def run_turns(
    jobs: Sequence[Mapping[str, Any]], *, seed: int, timeout_s: float
) -> list[dict[str, Any]]:
    """Time several models in fresh processes that take turns; see :func:`.driver.run_turns`."""
    answers = driver.run_turns(jobs, seed=seed, timeout_s=timeout_s, worker=WORKER)
    return [
        {"error": _complaint(job, answer["error"])} if "error" in answer else answer
        for job, answer in zip(jobs, answers, strict=True)
    ]


def _complaint(job: Mapping[str, Any], error: str) -> str:
    return f"{job.get('model', 'the measuring process')}: {plain_complaint(error)}"
