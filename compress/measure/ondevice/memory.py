"""Memory of one model in one process: its peak, and the bound that keeps the machine alive."""

from __future__ import annotations

import contextlib
import gc
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.measure.ondevice.inputs import rotation_of
from compress.measure.ondevice.machine import free_memory_bytes, read_file
from compress.measure.ondevice.runtimes import open_model
from compress.measure.ondevice.sensors import EnergyMeter
from compress.measure.ondevice.timing import collect, sampler

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import MemoryAnswer, Unavailable
    from compress.measure.ondevice.jobs import WorkerJob

__all__ = ["TRIVIAL_MODEL", "bound_memory", "measure_memory", "status_bytes"]

_MEMORY_RUNS = 20  # an arena has its final size after a few
_MEMORY_CAP_S = 10
_MEMORY_SHARE = 0.9  # of what is free; the rest is for the system and its caches
# The smallest model there is: one Identity (opset 13, IR 7) on one float.
TRIVIAL_MODEL = (
    b'\x08\x07\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def measure_memory(job: WorkerJob) -> MemoryAnswer | Unavailable:
    """Peak resident memory while loading and while running (``VmHWM``, which misses no spike).

    ``ru_maxrss`` will not do: it starts at the parent's footprint. ``runtime_bytes`` is Python,
    numpy and the runtime after one trivial model: the first session of a process pages in some
    10 MB of library, which would hide what a small model needs. Without a writable ``clear_refs``
    the peak of the run includes that of the load, which the headline does anyway.
    """
    if "VmHWM:" not in read_file("/proc/self/status"):
        return {"unavailable": "peak memory needs VmHWM in /proc/self/status, which is not here"}
    free = free_memory_bytes()
    _start_runtime(job)
    gc.collect()
    reset = _reset_peak()
    runtime = status_bytes("VmRSS" if reset else "VmHWM")
    session = open_model(job)
    load_peak = status_bytes("VmHWM")
    # One batch, which an application holds too; more would be this job's own.
    batch, rotation = rotation_of(session, job, 1)
    _reset_peak()
    collect(sampler(session, rotation, 1), 0, _MEMORY_RUNS, _MEMORY_CAP_S)
    run_peak = status_bytes("VmHWM")
    return {
        "batch": batch,
        "runtime_bytes": runtime,
        "load_peak_bytes": load_peak,
        "run_peak_bytes": run_peak,
        "resident_bytes": status_bytes("VmRSS"),
        "free_bytes": None if math.isinf(free) else free,
        "reset": reset,
        "energy_source": EnergyMeter().source,
    }


def _start_runtime(job: WorkerJob) -> None:
    """Open and run a trivial model: what a first session costs is the runtime's, no model's."""
    open_model({**job, "model": TRIVIAL_MODEL}).run(None, {"x": np.ones(1, np.float32)})
    if not job.get("inputs"):
        # Drawing inputs loads a part of numpy that an application would not.
        np.random.default_rng(0).standard_normal(1)


def _reset_peak() -> bool:
    """Set the high-water mark of resident memory back to the present; whether that worked."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def status_bytes(key: str) -> int:
    """A size of this process by its name in ``/proc/self/status``, such as ``VmRSS``."""
    return int(read_file("/proc/self/status").partition(f"{key}:")[2].split()[0]) * 1024


def bound_memory(job: WorkerJob) -> float:
    """Let what would exhaust the machine fail in this process; the bytes that it may take.

    ``RLIMIT_DATA`` is looked at when memory is asked for, not when it is used, so that no number
    here depends on it; unlike ``RLIMIT_AS`` it leaves out the files and libraries that are only
    mapped. Should the machine run short all the same, the kernel is set to end this process
    before any other. Systems without ``/proc`` are left alone.
    """
    allowed = float(job.get("memory_bytes") or _MEMORY_SHARE * free_memory_bytes())
    if math.isinf(allowed) or "VmData:" not in read_file("/proc/self/status"):
        return math.inf
    import resource

    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(allowed) + status_bytes("VmData")
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    return allowed
