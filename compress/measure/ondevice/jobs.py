"""What a worker process is asked to do: one JSON object, with the keys of :class:`WorkerJob`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Says something to whoever gave the job; returns the line that comes back, empty at the end.
    Ask = Callable[[str], str]

__all__ = ["JobError", "TimingSettings", "WorkerJob", "sentence"]


class JobError(Exception):
    """A job that cannot be done; the message is the whole explanation."""


def sentence(error: BaseException, allowed: float = math.inf) -> str:
    """What went wrong, on one line; ``allowed`` are the bytes that the process may take."""
    text = " ".join(str(error).split())
    if isinstance(error, JobError):
        return text
    text = f"{type(error).__name__}: {text}"[:2000]
    if math.isfinite(allowed) and "alloc" in text:
        text += f" [the process may take {allowed:.0f} bytes of memory]"
    return text


class TimingSettings(TypedDict, total=False):
    """How long to warm up and to time: seconds, and a number of samples."""

    window_s: float
    warmup_cap_s: float
    sample_s: float
    least: int
    cap_s: float


class WorkerJob(TimingSettings, total=False):
    """A job; ``kind`` is one of :data:`compress.measure.ondevice.worker.JOBS`.

    Every job with a model reads ``model`` (a path, or the file's bytes), ``runtime`` (by default
    ``onnxruntime``), ``provider`` (one that the runtime has, by default ``cpu``), ``threads`` (of
    one operator), ``batch`` (for models that do not fix it), ``inputs`` (model input name to
    ``.npy`` path, the empty name for a single input; array rows are samples), ``session`` (options
    of onnxruntime's session, by key) and ``arena`` (false turns its memory arena off).

    Without ``inputs`` they are drawn from ``seed`` (:class:`.drawn_inputs.DrawnInputs`). Then
    ``shapes`` has sizes by the name of an input, or a single one by that of an open axis, and
    ``values`` has ``.npy`` paths by the name of an input: such an array is the whole input, in
    every run.

    ``memory_bytes`` bounds what the process may take; without it, nearly all that is free.
    ``parent`` is the process that gave the job: this one ends when it does. ``runs_per_sample`` is
    how many inferences are timed as one. The rest belongs to single kinds of job: ``energy_s``;
    ``sustain_s`` and ``interval_s``; ``graph``; ``folder`` and ``samples`` of ``predict``.
    """

    kind: str
    model: str | bytes
    runtime: str
    provider: str
    threads: int
    batch: int
    inputs: dict[str, str]
    values: dict[str, str]
    shapes: dict[str, list[int]]
    session: dict[str, str]
    arena: bool
    seed: int
    memory_bytes: float
    parent: int
    runs_per_sample: int
    energy_s: float
    sustain_s: float
    interval_s: float
    graph: bool
    folder: str
    samples: int
