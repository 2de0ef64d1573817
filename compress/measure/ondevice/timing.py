"""Timing a model in one process: warm-up, samples of grouped runs, and turns with others."""

from __future__ import annotations

import gc
import itertools
import math
import time
from typing import TYPE_CHECKING, cast

import numpy as np

from compress.measure.ondevice.inputs import rotation_of, shapes_of
from compress.measure.ondevice.machine import machine_state, time_fixed_loop
from compress.measure.ondevice.runtimes import runtime_of
from compress.measure.ondevice.runtimes.base import provider_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from compress.measure.ondevice.answers import TimeAnswer
    from compress.measure.ondevice.jobs import Ask, WorkerJob
    from compress.measure.ondevice.runtimes.base import InferenceSession
    from compress.measure.ondevice.tensor_spec import Feed

    #: Runs a model a few times, and returns the nanoseconds of them all.
    Sample = Callable[[], int]

__all__ = [
    "WarmModel",
    "are_finite",
    "collect",
    "first_runs",
    "runs_per_sample",
    "sampler",
    "take_turns",
    "time_model",
    "warm_up",
    "windows_agree",
]

_SHORT_RUN_NS = 100_000  # below this, the clock and the loop are a visible part of one run
_SHORT_SAMPLE_NS = 200_000  # so runs are timed in groups of about this length
_TURN_S = 0.001  # of a comparison by turns
_SPINNING_TURN_S = 0.02
_LEAD = 0.2  # of a turn, at its beginning, is left out


def are_finite(outputs: Iterable[object]) -> bool:
    """Whether no number of any floating-point output is NaN or infinite."""
    floats = (v for v in outputs if isinstance(v, np.ndarray) and v.dtype.kind == "f")
    return all(bool(np.isfinite(value).all()) for value in floats)


def first_runs(
    session: InferenceSession, feeds: Sequence[Feed], cap_s: float
) -> tuple[list[int], bool]:
    """Times of one run on each batch, cold first, and whether all outputs were finite.

    A slow model sees fewer batches: none after ``cap_s``.
    """
    times: list[int] = []
    finite = True
    for feed in feeds:
        if sum(times) > cap_s * 1e9:
            break
        begin = time.perf_counter_ns()
        outputs = session.run(None, feed)
        times.append(time.perf_counter_ns() - begin)
        finite = finite and are_finite(outputs)
    return times, finite


def runs_per_sample(times: Sequence[int]) -> int:
    """How many runs to time as one, given the times of some: 1 unless they are short."""
    quickest = max(1, min(times))
    return 1 if quickest >= _SHORT_RUN_NS else math.ceil(_SHORT_SAMPLE_NS / quickest)


def sampler(session: InferenceSession, feeds: Sequence[Feed], runs: int) -> Sample:
    """A function that times ``runs`` inferences and returns the nanoseconds of them all."""
    ring = itertools.cycle(feeds)
    run, clock = session.run, time.perf_counter_ns

    def sample() -> int:
        batch = [next(ring) for _ in range(runs)]
        begin = clock()
        for feed in batch:
            outputs = run(None, feed)
        elapsed = clock() - begin
        del outputs
        return elapsed

    return sample


def collect(sample: Sample, seconds: float, least: int, cap_s: float) -> list[int]:
    """Samples until both ``seconds`` and ``least`` are reached, or ``cap_s`` is."""
    samples: list[int] = []
    begin = time.perf_counter()
    while True:
        samples.append(sample())
        elapsed = time.perf_counter() - begin
        if elapsed >= cap_s or (elapsed >= seconds and len(samples) >= least):
            return samples


def windows_agree(earlier: Sequence[int], later: Sequence[int]) -> bool:
    """Whether the quartiles of two windows of samples are within 5 %, 2 % and 5 %."""
    before = np.percentile(earlier, [25, 50, 75])
    after = np.percentile(later, [25, 50, 75])
    return bool((np.abs(after / before - 1) < [0.05, 0.02, 0.05]).all())


def warm_up(sample: Sample, window_s: float, cap_s: float) -> tuple[list[int], bool]:
    """Run until two consecutive windows have like quartiles; the trace, and whether they had."""
    begin = time.perf_counter()
    trace: list[int] = []
    window: list[int] = []
    while True:
        left = max(0.0, cap_s - (time.perf_counter() - begin))
        earlier, window = window, collect(sample, window_s, 10, left)
        trace += window
        if earlier and windows_agree(earlier, window):
            return trace, True
        if time.perf_counter() - begin >= cap_s:
            return trace, False


class WarmModel:
    """A model that is loaded and warmed up, and what its timing showed so far.

    Reads ``window_s`` and ``warmup_cap_s`` (warm-up), ``cap_s``, and optionally
    ``runs_per_sample``, which else is 1 for runs of 100 us or more.
    """

    def __init__(self, job: WorkerJob) -> None:
        self._runtime, self._job = runtime_of(job), job
        begin = time.perf_counter_ns()
        self._runtime.module()
        imported = time.perf_counter_ns()
        self._session = self._runtime.open(job)
        created = time.perf_counter_ns()
        batch, rotation = rotation_of(self._session, job)
        first, finite = first_runs(self._session, rotation, job["cap_s"])
        runs = job.get("runs_per_sample") or runs_per_sample(first)
        self._sample = sampler(self._session, rotation, runs)
        gc.collect()
        gc.freeze()
        gc.disable()
        warmup, steady = warm_up(self._sample, job["window_s"], job["warmup_cap_s"])
        self._facts = {
            "batch": batch,
            "shapes": shapes_of(rotation),
            "runs_per_sample": runs,
            "import_ns": imported - begin,
            "create_ns": created - imported,
            "first_run_ns": first[0],
            "warmup_ns": warmup,
            "steady": steady,
            "finite": finite,
        }
        self._samples: list[int] = []
        self._turns: list[int] = []
        self._wall = self._cpu = 0
        # The loop first: its work is what the clock is then that of.
        self._loop_ns, self._at = time_fixed_loop(), time.monotonic_ns()
        self._state = machine_state()

    def turn(self, seconds: float, least: int) -> None:
        """Take samples, after one that is left out: whoever ran before has had the caches."""
        collect(self._sample, _LEAD * min(seconds, _SPINNING_TURN_S), 1, self._job["cap_s"])
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        samples = collect(self._sample, seconds, least, self._job["cap_s"])
        self._wall += time.perf_counter_ns() - wall
        self._cpu += time.process_time_ns() - cpu
        self._samples += samples
        self._turns.append(len(samples))

    def result(self) -> TimeAnswer:
        """All samples so far, and the machine before and after them."""
        loop_ns, now = time_fixed_loop(), machine_state()
        answer = {
            **self._facts,
            "samples_ns": self._samples,
            "turns": self._turns,
            "wall_ns": self._wall,
            "cpu_ns": self._cpu,
            "probe_ns": [self._loop_ns, loop_ns],
            "at_ns": [self._at, time.monotonic_ns()],
            "state": [self._state, now],
            "load": [self._state["load"], now["load"]],
            "ran": self._runtime.ran(self._session, self._job),
            self._runtime.name: self._runtime.version(),
        }
        return cast("TimeAnswer", answer)


def time_model(job: WorkerJob) -> TimeAnswer:
    """Load, warm up and time a model; see :class:`WarmModel`.

    Reads ``sample_s`` and ``least``, too.
    """
    timed = WarmModel(job)
    timed.turn(job["sample_s"], job["least"])
    return timed.result()


def take_turns(job: WorkerJob, ask: Ask) -> TimeAnswer:
    """Load and warm up a model, then time it a little on each request.

    So that models which are compared are timed within milliseconds of each other: the speed of a
    machine, most of all of a virtual one, may change within a second.
    """
    timed = WarmModel(job)
    # Threads spin for a while after a run, and accelerators change their clocks.
    restless = int(job.get("threads", 1)) > 1 or provider_of(job) != "cpu"
    turn_s = _SPINNING_TURN_S if restless else _TURN_S
    while ask("ready"):
        timed.turn(turn_s, 1)
    return timed.result()
