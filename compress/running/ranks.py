"""Ranks: what rank 0 broadcasts in a run of several processes, and what the other ranks do.

Rank 0 runs the recipe. It broadcasts which stage to take part in, and what came out of every stage,
whether it was run or found. So the other ranks need nothing of its disk; all that they write are
the cached teacher outputs for their own part of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from compress.candidate import FILES
from compress.errors import ProcessError
from compress.io.scratch import scratch
from compress.record import Record
from compress.running.job import CurrentModels, Job, ResumeKeys, load_candidate
from compress.running.planned_rows import PlannedStage
from compress.stage import apply_stage
from compress.training.distributed import Processes

__all__ = ["broadcast_candidate", "broadcast_end", "broadcast_stage", "run_other_rank"]

# A failure of one process is mostly one of all: so long rank 0 has to say so itself.
_GRACE = timedelta(minutes=2)
_LONGEST_MESSAGE = 1000


def broadcast_stage(processes: Processes, planned: PlannedStage, keys: ResumeKeys) -> None:
    """Have the other ranks run a stage, too."""
    message = {"do": "stage", "position": planned.position, "keys": asdict(keys)}
    _broadcast(processes, message)


def broadcast_candidate(processes: Processes, position: int, folder: Path) -> None:
    """Give the other ranks the candidate that is saved in ``folder``.

    Args:
        processes: of this run.
        position: of the stage that made it, in the recipe's list; negative for what comes in.
        folder: has the files of a saved candidate.
    """
    if processes.world_size > 1:
        _broadcast(processes, {"do": "candidate", "position": position})
        for name in FILES:
            processes.broadcast((folder / name).read_bytes())


def broadcast_end(processes: Processes, record: Record | None, error: str) -> None:
    """End the other ranks, with the record or else what went wrong."""
    # Who is in the middle of a training reads nothing: an error must fit in what the socket holds.
    text = record.dumps() if record else None
    _broadcast(processes, {"do": "end", "record": text, "error": error[:_LONGEST_MESSAGE]})


def run_other_rank(job: Job, processes: Processes) -> Record:
    """Take part in the run of rank 0; its record.

    Raises:
        ProcessError: rank 0 failed, or is gone.
        CompressError: this process failed, and rank 0 did not.
    """
    models, failure = CurrentModels.at_the_start(job, processes), None
    while True:
        try:
            message = json.loads(processes.broadcast(timeout=_GRACE if failure else None))
        except ProcessError:
            raise failure or ProcessError(_GONE) from None
        if message["do"] == "end":
            if message["record"] is None:
                raise ProcessError(f"rank 0 failed: {message['error']}")
            return Record.model_validate_json(message["record"])
        if failure:
            raise failure
        if message["do"] == "candidate":
            _receive(job, models, message["position"])
            continue
        planned = job.planned[message["position"]]
        try:
            context = models.context(job, planned, ResumeKeys(**message["keys"]))
            apply_stage(planned.stage, models.candidate, context)
        except Exception as error:
            failure = error


_GONE = "rank 0 of this launch is gone; repeat the command, and it resumes from what was finished."


def _receive(job: Job, models: CurrentModels, position: int) -> None:
    with scratch() as folder:
        for name in FILES:
            (Path(folder) / name).write_bytes(models.processes.broadcast())
        after = load_candidate(job, Path(folder), models.candidate)
    if position < 0:
        models.candidate = models.teacher = models.origin = after
    else:
        models.advance(job.stages[position], after)


def _broadcast(processes: Processes, message: Mapping[str, Any]) -> None:
    processes.broadcast(json.dumps(message).encode())
