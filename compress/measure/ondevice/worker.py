"""Worker: the work of a fresh process that loads one model and times, sizes, checks or runs it.

A job is a JSON object (:class:`.jobs.WorkerJob`), as one line on standard input or in a file; the
answer is one JSON object on standard output, ``{"error": "..."}`` where the job could not be done.
The exit status is non-zero only if the process crashed. ``start_worker.py`` is what the process
executes::

    python3 -I start_worker.py [job.json]

One kind of job is a conversation. ``turns`` does what ``time`` does, on request: the worker
says ``ready``, takes a turn for each line that it gets, and says ``ready`` again; the answer comes
at the end of its input.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compress.measure.ondevice.checks import check
from compress.measure.ondevice.energy import measure_energy, sustain
from compress.measure.ondevice.jobs import sentence
from compress.measure.ondevice.machine import machine
from compress.measure.ondevice.memory import bound_memory, measure_memory
from compress.measure.ondevice.operators import profile
from compress.measure.ondevice.parent import end_with_parent
from compress.measure.ondevice.predictions import fit, inspect, predict
from compress.measure.ondevice.runtimes import runtime_of
from compress.measure.ondevice.timing import take_turns, time_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compress.measure.ondevice.answers import Answer
    from compress.measure.ondevice.jobs import Ask, WorkerJob

__all__ = ["JOBS", "answer", "main"]


def environment(job: WorkerJob) -> Mapping[str, object]:
    """The machine, and the version, build and providers of the job's runtime."""
    return {**machine(), **runtime_of(job).facts(job)}


#: What each kind of job does: its settings in, its answer out (:mod:`.answers`).
JOBS: Mapping[str, Callable[[WorkerJob], Mapping[str, object]]] = {
    "time": time_model,
    "memory": measure_memory,
    "check": check,
    "energy": measure_energy,
    "sustain": sustain,
    "profile": profile,
    "predict": predict,
    "fit": fit,
    "inspect": inspect,
    "environment": environment,
}


def answer(text: str, *, bounded: bool = False, ask: Ask | None = None) -> Answer:
    """What standard output gets for the job in ``text``.

    ``bounded``: limit the memory of this process first, for good. With ``ask`` there is one more
    kind of job: ``turns``.
    """
    allowed = math.inf
    jobs = dict(JOBS)
    if ask is not None:
        jobs["turns"] = functools.partial(take_turns, ask=ask)
    try:
        job: WorkerJob = json.loads(text)
        allowed = bound_memory(job) if bounded else allowed
        work = jobs.get(job["kind"])
        if work is None:
            return {"error": f"the job's kind is {job['kind']!r}; known are {', '.join(jobs)}."}
        return work(job)
    except Exception as error:
        return {"error": sentence(error, allowed)}


def main(arguments: list[str]) -> None:
    """Do the job in the file named by the first argument, or on standard input."""
    # Native code may print; only the answer may reach standard output.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    text = Path(arguments[0]).read_text(encoding="utf-8") if arguments else sys.stdin.readline()
    end_with_parent(text)

    def ask(line: str) -> str:
        print(line, file=channel, flush=True)
        return sys.stdin.readline()

    with channel:
        json.dump(answer(text, bounded=True, ask=ask), channel)
