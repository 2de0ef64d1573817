"""Followers: what all processes but the first do in a run: train when told to, and wait.

The first process tells the others which stage to take part in, and what came out of every stage,
whether it was run or found. So they need nothing of its disk; all that they write is what their
teacher answers about their own part of the data.
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
from compress.running.job import Job, Progress, Work, load_candidate
from compress.stage import carry_out
from compress.training.distributed import Processes

__all__ = ["follow", "tell_candidate", "tell_end", "tell_stage"]

# A failure of one process is mostly one of all: so long the first has to say so itself.
_GRACE = timedelta(minutes=2)
_LONGEST_MESSAGE = 1000


def tell_stage(processes: Processes, index: int, work: Work) -> None:
    """Let the others run the stage that makes row ``index``."""
    _tell(processes, {"do": "stage", "index": index, "work": asdict(work)})


def tell_candidate(processes: Processes, index: int, folder: Path) -> None:
    """Give the others the candidate of row ``index``, which is saved in ``folder``."""
    if processes.world_size > 1:
        _tell(processes, {"do": "candidate", "index": index})
        for name in FILES:
            processes.broadcast((folder / name).read_bytes())


def tell_end(processes: Processes, record: Record | None, error: str) -> None:
    """Let the others go, with the record or else what went wrong."""
    # Who is in the middle of a training reads nothing: an error must fit in what the socket holds.
    text = record.dumps() if record else None
    _tell(processes, {"do": "end", "record": text, "error": error[:_LONGEST_MESSAGE]})


def follow(job: Job, processes: Processes) -> Record:
    """Take part in the run that the first process leads; its record.

    Raises:
        ProcessError: the first process failed, or is gone.
        CompressError: this process failed, and the first did not.
    """
    progress, failure = Progress.at_the_start(job, processes), None
    while True:
        try:
            order = json.loads(processes.broadcast(timeout=_GRACE if failure else None))
        except ProcessError:
            raise failure or ProcessError(_GONE) from None
        if order["do"] == "end":
            if order["record"] is None:
                raise ProcessError(f"the first process failed: {order['error']}")
            return Record.model_validate_json(order["record"])
        if failure:
            raise failure
        if order["do"] == "candidate":
            _receive(job, progress, order["index"])
            continue
        try:
            context = progress.context(job, order["index"], Work(**order["work"]))
            carry_out(job.stages[order["index"] - 1], progress.candidate, context)
        except Exception as error:
            failure = error


_GONE = (
    "the first process of this launch is gone; repeat the command, and it goes on from what was "
    "finished."
)


def _receive(job: Job, progress: Progress, index: int) -> None:
    with scratch() as folder:
        for name in FILES:
            (Path(folder) / name).write_bytes(progress.processes.broadcast())
        after = load_candidate(job, Path(folder), progress.candidate)
    if index == 0:
        progress.candidate = progress.teacher = progress.origin = after
    else:
        progress.advance(job.stages[index - 1], after)


def _tell(processes: Processes, order: Mapping[str, Any]) -> None:
    processes.broadcast(json.dumps(order).encode())
