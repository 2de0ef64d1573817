"""Process: one job of the worker on this machine, with errors that belong to this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.errors import MeasurementError
from compress.measure import driver
from compress.measure.complaints import plain_complaint

__all__ = ["WORKER", "run_worker"]

WORKER = driver.WORKER


def run_worker(job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Run ``job`` in a fresh process and return its answer; see :func:`.driver.run_worker`.

    Raises:
        MeasurementError: the job failed, or its process crashed, was killed or took too long.
    """
    try:
        return driver.run_worker(job, timeout_s=timeout_s, worker=WORKER)
    except driver.JobFailed as error:
        subject = job.get("model", "the measuring process")
        raise MeasurementError(f"{subject}: {plain_complaint(str(error))}") from None
