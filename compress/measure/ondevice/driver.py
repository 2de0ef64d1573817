"""Driver: a whole measuring session, in a folder on the device that is measured.

One file on purpose, and beside ``worker.py`` all that a device needs: the standard library, numpy
and onnxruntime, Python 3.9. It knows nothing of this package; the package's own sessions go through
its :func:`measure`, so that there is one loop and one rule for when to stop. ::

    python3 -I driver.py FOLDER

FOLDER/session.json says what to do. Paths are relative to FOLDER and stay inside it::

    {"schema": 1,
     "models": [{"path": "models/0/model.onnx", "sha256": "...", "name": "input",
                 "shapes": {"x": [1, 512]}}, ...],
     "inputs": {"": "inputs/0.npy"},     samples by model input; {}: drawn from the seed
     "values": {"sr": "values/0.npy"},   whole inputs, where the others are drawn
     "plan": {fields of Plan},           null: nothing is timed
     "seed": 0, "threads": 1, "batch": 1,
     "predict": true,                    keep each model's outputs for every sample
     "labels": "labels.npy",             null, or with a metric: each sample is scored
     "metric": "accuracy",               or "mse", or null
     "expected": ["expected/0.npy"],     null, or for each model null or its outputs elsewhere for
                                         the first samples: the difference is reported
     "job": {"runtime": "onnxruntime"},  what else every job of the worker is told
     "timeout_s": 600}                   of one process; a thousand samples to predict may take it

``labels``, ``metric``, ``expected``, ``job``, ``timeout_s``, ``values`` and a model's ``shapes``
(what its inputs are drawn with) may be left out. ``sha256`` is over a model's file and, if there is
one, its external data beside it (``model.onnx.data``). The first model is what the others are
compared with. Without models the environment alone is told.

FOLDER/session.jsonl gets a line for each thing done, and is only ever appended to::

    {"kind": "session", "schema": 1, "session": {session.json}}
    {"kind": "environment", ...}                          answer to the worker's job, as are these:
    {"kind": "memory" | "check" | "energy", "index", "model", ...}
    {"kind": "time", "index", "model", "round", "label", ...}
    {"kind": "round", "round", "half_width", "elapsed_s", "enough"}
    {"kind": "outputs", "index", "model", "samples", "names",
     "files": [{"path": "outputs/0.npy", "sha256"}],      a second output: outputs/0-1.npy
     "scores": [...], "host": {...}}                      with labels; with expected
    {"kind": "end"}

A line with ``error`` (a sentence) stands for a job that could not be done; the session goes on
without that model. ``index`` counts models. The same command again goes on where the last one was
stopped, however it was; a torn last line is dropped, and so is a round that is not whole.

Exit status: 0 the session is whole (see the lines for models that failed); 2 the folder is wrong,
or nothing works here; 3 another session is timing on this device. 2 and 3 come with a sentence on
standard error; standard output stays silent, for whoever listens disturbs.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import itertools
import json
import math
import os
import random
import signal
import site
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "WORKER",
    "Busy",
    "Config",
    "DriverError",
    "JobFailed",
    "Journal",
    "LogRatio",
    "Outcome",
    "Plan",
    "Race",
    "checked_plan",
    "checked_session",
    "device_lock",
    "difference",
    "drive",
    "log_ratio",
    "log_ratios",
    "main",
    "measure",
    "process_median_s",
    "read_lines",
    "run_beside",
    "run_turns",
    "run_worker",
    "scores",
    "stays_inside",
    "student_cdf",
    "student_quantile",
    "turn_logs",
]

Line = dict[str, Any]
#: Runs one job of the worker on the model with an index: (kind, index, settings) -> answer.
Call = Callable[[str, int, Mapping[str, Any]], Mapping[str, Any]]
#: Times several models side by side: (index and settings of each, seed) -> an answer for each,
#: which is ``{"error": "..."}`` where there is none.
Race = Callable[[Sequence["tuple[int, Mapping[str, Any]]"], int], Sequence[Mapping[str, Any]]]

WORKER = Path(__file__).with_name("worker.py")
CONFIDENCE = 0.95

_SCHEMA = 1
_TIMEOUT_S = 600.0
_MEMORY_AGREES = 0.02
_MEMORY_SHARE = 0.5  # of what is free may be taken by models that are timed side by side
_FEWEST_TURNS = 3
_LOCK = "compresskit-device.lock"


class DriverError(Exception):
    """A session that cannot be; the message is a sentence or two."""


class Busy(DriverError):
    """Another session is timing on this device."""


class JobFailed(Exception):
    """A job that could not be done; the message is a sentence, which becomes part of the data."""


# -- how hard to try --------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How hard to try.

    Rounds are added until the 95 % interval of every ratio is within ``bound`` on either side (not
    until it is significant): at least ``min_rounds``, at most ``max_rounds``, and none after
    ``budget_s`` once there are enough. ``timing`` goes to the worker's ``time`` job as it is.
    ``energy_s`` is how long a model runs for its energy to be read, on devices that tell it.
    """

    bound: float
    min_rounds: int
    max_rounds: int
    budget_s: float
    memory_processes: int
    checks: bool
    timing: Mapping[str, float]
    energy_s: float = 0.0


def checked_plan(given: Mapping[str, Any]) -> Plan:
    """A plan from plain data.

    Raises:
        TypeError: other fields than those of :class:`Plan`, or no numbers in them.
        ValueError: numbers with which nothing can be measured.
    """
    plan = Plan(**given)
    if not 2 <= plan.min_rounds <= plan.max_rounds or plan.memory_processes < 1:
        raise ValueError("a plan needs 2 rounds and 1 process for memory, at least")
    if not all(number > 0 for number in (plan.bound, plan.budget_s, *plan.timing.values())):
        raise ValueError("the bound, budget and times of a plan must be positive")
    if not plan.energy_s >= 0:
        raise ValueError("energy_s of a plan must be 0 or more")
    return plan


# -- when it is enough ------------------------------------------------------------------------


def student_cdf(t: float, df: int) -> float:
    """Student's distribution function for whole degrees of freedom (Abramowitz & Stegun 26.7.3)."""
    angle = math.atan2(t, math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(2 + odd, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    area = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 * (1 + area)


def student_quantile(probability: float, df: int) -> float:
    """Inverse of :func:`student_cdf` for probabilities of 0.5 and more, by bisection."""
    lo, hi = 0.0, 1.0
    while student_cdf(hi, df) < probability:
        lo, hi = hi, 2 * hi
    while hi - lo > 1e-12 * hi:
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if student_cdf(middle, df) < probability else (lo, middle)
    return hi


class LogRatio(NamedTuple):
    """Mean over rounds of the logarithm of a ratio, its standard error, and its 95 % half-width."""

    mean: float
    error: float
    half_width: float
    rounds: int


def log_ratio(logs: Sequence[float]) -> LogRatio:
    """Of the logarithms of one ratio from each round, with Student's interval.

    Raises:
        ValueError: fewer than two rounds.
    """
    rounds = len(logs)
    if rounds < 2:
        raise ValueError(f"a paired ratio needs at least 2 rounds; got {rounds}")
    error = statistics.stdev(logs) / math.sqrt(rounds)
    half_width = student_quantile((1 + CONFIDENCE) / 2, rounds - 1) * error
    return LogRatio(statistics.fmean(logs), error, half_width, rounds)


def process_median_s(result: Mapping[str, Any]) -> float:
    """The median time of one inference in one process: the sample that intervals of times use."""
    return float(statistics.median(result["samples_ns"])) / int(result["runs_per_sample"]) / 1e9


def turn_logs(result: Mapping[str, Any]) -> list[float]:
    """Of one process: for each of its turns the logarithm of the median of one inference in ns.

    Raises:
        ValueError: turns that are not those of the samples.
    """
    samples, runs = result["samples_ns"], int(result["runs_per_sample"])
    turns = result.get("turns", [len(samples)])
    if not turns or sum(turns) != len(samples):
        raise ValueError(f"turns of {sum(turns)} samples, where there are {len(samples)}")
    ends = list(itertools.accumulate(turns))
    parts = (samples[ends[i] - turns[i] : ends[i]] for i in range(len(turns)))
    return [math.log(statistics.median(part) / runs) for part in parts]


@dataclass(frozen=True)
class Config:
    """One thing that every round times, with one result per round. The baseline is two of them."""

    index: int
    label: str
    results: list[Line]

    @property
    def medians_s(self) -> list[float]:
        """The median of one inference, of each round's process."""
        return [process_median_s(result) for result in self.results]


def log_ratios(configs: Sequence[Config]) -> list[LogRatio]:
    """Of the baseline against itself, then of the baseline to each other configuration.

    The ratio of a round is the median over its turns, in each of which everything was timed within
    milliseconds. The baseline's time in a turn is the geometric mean of its two processes.

    Raises:
        ValueError: fewer than two rounds, or processes of a round that took other turns.
    """
    first, again, *others = ([turn_logs(r) for r in config.results] for config in configs)
    rounds = range(len(first))
    baseline = [[(a + b) / 2 for a, b in _pairs(first[i], again[i])] for i in rounds]
    pairs = [(first, again), *((baseline, other) for other in others)]
    return [log_ratio([_median_gap(one[i], two[i]) for i in rounds]) for one, two in pairs]


def _median_gap(first: Sequence[float], second: Sequence[float]) -> float:
    return statistics.median(a - b for a, b in _pairs(first, second))


def _pairs(first: Sequence[float], second: Sequence[float]) -> Iterator[tuple[float, float]]:
    # Python 3.9 has no zip(strict=True).
    if len(first) != len(second):
        raise ValueError(f"a turn is missing: {len(first)} and {len(second)} of one round")
    return ((first[i], second[i]) for i in range(len(first)))


# -- the lines --------------------------------------------------------------------------------


class Journal:
    """The lines of a session: those that are there are taken in turn, later ones are made.

    A session decides by nothing but its seed and its lines. So going on with a half-written one,
    or reading a finished one, is going through the same steps with the same lines.
    """

    def __init__(self, lines: Iterable[Line] = (), write: Callable[[Line], None] | None = None):
        self._there = deque(lines)
        self._write = write

    def line(self, place: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Line:
        """The line at ``place``: the next that is there, or a new one with what ``make`` returns.

        Raises:
            DriverError: the next line is of another place, or there is none and none can be made.
        """
        return self.lines([place], lambda: [make()])[0]

    def lines(
        self,
        places: Sequence[Mapping[str, Any]],
        make: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> list[Line]:
        """The lines at ``places``, which are made all at once if they are not there.

        Raises:
            DriverError: as from :meth:`line`.
        """
        if self._there or self._write is None:
            return [self._taken(place) for place in places]
        made = make()
        found = [{**places[i], **made[i]} for i in range(len(places))]
        for line in found:
            self._write(line)
        return found

    def _taken(self, place: Mapping[str, Any]) -> Line:
        if not self._there:
            raise DriverError(f"its lines end before the one with {_words(place)}.")
        line = self._there.popleft()
        if any(line.get(key) != place[key] for key in place if key != "model"):
            raise DriverError(f"expected a line with {_words(place)}; got {_words(line)}.")
        return line


def _words(line: Mapping[str, Any]) -> str:
    keys = ("kind", "index", "round", "label")
    return ", ".join(f"{key} {line[key]!r:.60}" for key in keys if key in line) or "no kind"


def read_lines(path: Path) -> tuple[list[Line], int]:
    """The whole lines of a file, and how many bytes they take; none where there is no file.

    Raises:
        DriverError: a line other than a torn last one is not a JSON object.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(content[:whole].splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise DriverError(f"{path}:{number}: not a line of a session; move the file away.")
        lines.append(line)
    return lines, whole


@contextlib.contextmanager
def _journal(path: Path) -> Iterator[Journal]:
    lines, whole = read_lines(path)
    # What a round timed side by side belongs together: half of a round is done again.
    half = 0
    while half < len(lines) and lines[-1 - half].get("kind") == "time":
        half += 1
    if half:
        lines = lines[:-half]
        whole = sum(map(len, path.read_bytes().splitlines(keepends=True)[: len(lines)]))
    with path.open("a", encoding="utf-8") as stream:
        stream.truncate(whole)

        def write(line: Line) -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        yield Journal(lines, write)


# -- the loop ---------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a session found out, by the index of a model.

    ``surveys`` have ``memory`` (results in order of their peaks, none where it cannot be read),
    ``unavailable`` (why it cannot), ``check`` and ``energy``. Of ``configs`` the first two are the
    baseline; there are none if nothing could be timed.
    """

    surveys: dict[int, Line]
    failures: dict[int, str]
    configs: list[Config]


def measure(
    names: Sequence[str],
    plan: Plan,
    seed: int,
    call: Call,
    journal: Journal,
    race: Race | None = None,
) -> Outcome:
    """Measure models side by side, in fresh processes.

    ::

        each model alone         memory, checks, energy where the device tells it
        until precise enough     one round: every model once and the baseline twice, in random order

    Blocks of one model after the other call identical models different in a fifth of trials;
    rounds cancel what drifts. Within a round the processes take turns of about a millisecond (by
    ``race``; one after the other without it, or where the models do not fit into memory together),
    which cancels what drifts faster. The first model that works is the baseline.

    Raises:
        DriverError: the journal's lines are not those of this session.
    """
    session = _Session(names, plan, seed, call, journal, race)
    surveys: dict[int, Line] = {}
    failures: dict[int, str] = {}
    for index in range(len(names)):
        try:
            surveys[index] = session.survey(index)
        except JobFailed as error:
            failures[index] = str(error)
    while True:
        working = [index for index in range(len(names)) if index not in failures]
        if not working:
            return Outcome(surveys, failures, [])
        configs, failed = session.rounds(working, surveys)
        failures.update(failed)
        # Without its baseline a session has no ratios: begin again with the next one.
        if working[0] not in failed:
            return Outcome(surveys, failures, configs)


class _Session(NamedTuple):
    names: Sequence[str]
    plan: Plan
    seed: int
    call: Call
    journal: Journal
    race: Race | None

    def run(
        self, kind: str, index: int, settings: Mapping[str, Any], place: Mapping[str, Any]
    ) -> Line:
        """One process and its line."""
        where = {"kind": kind, "index": index, "model": self.names[index], **place}
        line = self.journal.line(where, lambda: _or_error(lambda: self.call(kind, index, settings)))
        if "error" in line:
            raise JobFailed(line["error"])
        return line

    def survey(self, index: int) -> Line:
        """Memory, checks and energy of one model; raises for a model that does not load or run."""
        peaks = [self.run("memory", index, {}, {}) for _ in range(self.plan.memory_processes)]
        found: Line = {
            "memory": [],
            "unavailable": peaks[0].get("unavailable"),
            "check": None,
            "energy": None,
        }
        if not found["unavailable"]:
            sizes = [_peak_bytes(peak) for peak in peaks]
            if (max(sizes) - min(sizes)) / max(sizes) > _MEMORY_AGREES:
                peaks.append(self.run("memory", index, {}, {}))
            found["memory"] = sorted(peaks, key=_peak_bytes)
        if self.plan.checks:
            found["check"] = self.run("check", index, {}, {})
        if self.plan.energy_s and peaks[0].get("energy_source"):
            settings = {**self.plan.timing, "energy_s": self.plan.energy_s}
            found["energy"] = self.run("energy", index, settings, {})
        return found

    def rounds(
        self, working: Sequence[int], surveys: Mapping[int, Line]
    ) -> tuple[list[Config], dict[int, str]]:
        """Time the models with these indices in interleaved rounds, until precise enough.

        A model that fails leaves the rounds; if it is the baseline, they end there.
        """
        configs = [Config(index, Path(self.names[index]).name, []) for index in working]
        configs.insert(1, Config(working[0], "baseline again", []))
        together = _fit([surveys[config.index] for config in configs])
        race = self.race if self.race and together else self._one_after_the_other
        failed: dict[int, str] = {}
        chance = random.Random(self.seed)
        begin_s = time.monotonic()
        for number in range(self.plan.max_rounds):
            # random() is the one method whose sequence no version of Python may change.
            order = sorted(configs, key=lambda _: chance.random())
            failed.update(self._round(order, number, race))
            configs = [config for config in configs if config.index not in failed]
            if working[0] in failed:
                break
            verdict = self._verdict(configs, number, begin_s)
            begin_s = min(begin_s, time.monotonic() - verdict["elapsed_s"])
            if verdict["enough"]:
                break
        return configs, failed

    def _round(self, order: Sequence[Config], number: int, race: Race) -> dict[int, str]:
        """Each configuration gets its next result; returns the failures, by index."""
        jobs = [(config.index, self._settings(config)) for config in order]
        places = [
            {
                "kind": "time",
                "index": config.index,
                "model": self.names[config.index],
                "round": number,
                "label": config.label,
            }
            for config in order
        ]
        lines = self.journal.lines(places, lambda: race(jobs, 1000 * self.seed + number))
        failed = {}
        for place, line in enumerate(lines):
            if "error" in line:
                failed[order[place].index] = str(line["error"])
            else:
                order[place].results.append(line)
        return failed

    def _settings(self, config: Config) -> Mapping[str, Any]:
        settings = dict(self.plan.timing)
        if config.results:
            # Every process of a model groups its runs alike, or their medians would not compare.
            settings["runs_per_sample"] = config.results[0]["runs_per_sample"]
        return settings

    def _one_after_the_other(
        self, jobs: Sequence[tuple[int, Mapping[str, Any]]], _: int
    ) -> list[Line]:
        return [_or_error(partial(self.call, "time", index, settings)) for index, settings in jobs]

    def _verdict(self, configs: Sequence[Config], number: int, begin_s: float) -> Line:
        """The line that ends a round, and says whether it was the last."""

        def make() -> Line:
            elapsed_s = time.monotonic() - begin_s
            # The baseline against itself counts too: an interval that is narrow by luck would stop
            # the rounds early and be wrong more often than it says; two at once rarely are.
            widths = [r.half_width for r in log_ratios(configs)] if number else []
            precise = bool(widths) and max(widths) <= self.plan.bound
            enough = number + 1 >= self.plan.min_rounds and (
                precise or elapsed_s > self.plan.budget_s
            )
            return {
                "half_width": max(widths) if widths else None,
                "elapsed_s": elapsed_s,
                "enough": enough,
            }

        return self.journal.line({"kind": "round", "round": number}, make)


def _or_error(work: Callable[[], Mapping[str, Any]]) -> Line:
    """What ``work`` returns, or its failure as data."""
    try:
        return dict(work())
    except JobFailed as error:
        return {"error": str(error)}


def _peak_bytes(result: Mapping[str, Any]) -> int:
    return max(int(result["load_peak_bytes"]), int(result["run_peak_bytes"]))


def _fit(surveys: Iterable[Mapping[str, Any]]) -> bool:
    """Whether models fit into memory together, as far as their systems tell."""
    peaks = [survey["memory"][-1] for survey in surveys if survey["memory"]]
    free = [peak["free_bytes"] for peak in peaks if peak.get("free_bytes") is not None]
    return not free or sum(map(_peak_bytes, peaks)) <= _MEMORY_SHARE * min(free)


# -- processes --------------------------------------------------------------------------------

# Isolated mode keeps the package and the working folder off the path, so that nothing there can
# shadow a library; it also drops a user's own site folder, which is where the libraries may be.
_START = (
    "import runpy, sys; worker, *folders = sys.argv[1:]; sys.argv = [worker]; "
    "sys.path += folders; runpy.run_path(worker, run_name='__main__')"
)
_KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("TMPDIR", "TEMP", "TMP", "SYSTEMROOT"),
)
# What the worker may import: of the runtimes and of onnxruntime's plug-ins, those that are there.
_LIBRARIES = ("numpy", "onnxruntime", "openvino", "onnxruntime_ep_openvino", "onnxruntime_qnn")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# By the kind of job. A good part of a model's file is freed while the model is loaded. glibc moves
# large blocks to the heap once it has seen one freed; whether their places are used again depends
# on where they happen to lie, and the peak differed by a quarter between equal processes. With a
# threshold that is given, large blocks go back to the system as soon as they are freed.
_ENVIRONMENTS = {"memory": {"MALLOC_MMAP_THRESHOLD_": "131072"}}
_READY = "ready"
_SIGNALS = {
    9: "most likely out of memory",
    4: "this build of onnxruntime uses instructions that the CPU lacks",
}


def run_worker(job: Mapping[str, Any], *, timeout_s: float, worker: Path = WORKER) -> Line:
    """Run ``job`` in a fresh process and return its answer.

    The process is executed, never forked: its peak memory is its own. This one sleeps in the
    kernel meanwhile.

    Raises:
        JobFailed: the job failed, or its process crashed, was killed or took too long.
    """
    environment = _ENVIRONMENTS.get(str(job.get("kind")), {})
    with _Worker(worker, timeout_s, environment) as process:
        process.give(job)
        return process.answer()


def run_beside(
    jobs: Sequence[Mapping[str, Any]], *, timeout_s: float, worker: Path = WORKER
) -> list[Line]:
    """Run all ``jobs`` at the same time, each in a fresh process, and return their answers.

    Raises:
        JobFailed: a job failed, or its process crashed, was killed or took too long; the others are
            stopped.
    """
    with contextlib.ExitStack() as stack:
        # From this thread, which the processes end with, and which an interrupt reaches.
        processes = [stack.enter_context(_Worker(worker, timeout_s)) for _ in jobs]
        for place, job in enumerate(jobs):
            processes[place].give(job)
        return [process.answer() for process in processes]


def run_turns(
    jobs: Sequence[Mapping[str, Any]], *, seed: int, timeout_s: float, worker: Path = WORKER
) -> list[Line]:
    """Time several models in fresh processes that take turns.

    Each is started and warmed up in order. Then, again and again, all get one turn, in random
    order, until there was time for ``sample_s`` of each and there were ``least`` turns, or until
    ``cap_s`` of each.

    Args:
        jobs: complete ``time`` jobs for the worker, with the same timing.
        seed: of the order of turns.
        timeout_s: for any one answer of a process.
        worker: the worker's file.

    Returns:
        An answer for each job, ``{"error": "..."}`` where there is none.
    """
    with contextlib.ExitStack() as stack:
        workers, running = [], []
        for job in jobs:
            process = stack.enter_context(_Worker(worker, timeout_s))
            workers.append(process)
            process.give({**job, "kind": "turns"})
            if process.hears_ready():
                running.append(process)
        _alternate(running, jobs[0], random.Random(seed))
        return [_or_error(process.answer) for process in workers]


def _alternate(running: list[_Worker], timing: Mapping[str, Any], chance: random.Random) -> None:
    begin_s = time.monotonic()
    for turns in itertools.count(1):
        for process in chance.sample(running, len(running)):
            process.tell("")
            if not process.hears_ready():
                running.remove(process)
        took_s = (time.monotonic() - begin_s) / max(1, len(running))
        enough = turns >= timing["least"] and took_s >= timing["sample_s"]
        if not running or enough or (turns >= _FEWEST_TURNS and took_s >= timing["cap_s"]):
            return


class _Worker:
    """A fresh process of the worker, spoken with line by line. It ends with its context."""

    def __init__(
        self, worker: Path, timeout_s: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._asked_s: float | None = None
        self._late = False
        self._heard = ""
        self._ended = threading.Event()
        # A file, since a pipe that nobody reads meanwhile would stop the process when it is full.
        self._resources = contextlib.ExitStack()
        self._complaints = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, str(worker), *_library_folders()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**kept, **_ONE_THREAD, **(environment or {})},
            encoding="utf-8",
            errors="replace",
        )

    def __enter__(self) -> _Worker:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._process.kill()
        with contextlib.suppress(OSError), self._resources, self._process:
            pass

    def _watch(self) -> None:
        """Stop the process when it is asked for something and does not answer."""
        while not self._ended.wait(self._left_s()):
            if self._left_s() <= 0:
                self._late = True
                self._process.kill()
                return

    def _left_s(self) -> float:
        asked_s = self._asked_s
        return self._timeout_s - (0.0 if asked_s is None else time.monotonic() - asked_s)

    def give(self, job: Mapping[str, Any]) -> None:
        """Tell the process its job, and with whom to end."""
        self.tell(json.dumps({**job, "parent": os.getpid()}))

    def tell(self, line: str) -> None:
        """Send a line; if the process has ended, :meth:`answer` says why."""
        self._asked_s = time.monotonic()
        with contextlib.suppress(OSError):
            print(line, file=self._process.stdin, flush=True)

    def hears_ready(self) -> bool:
        """Wait for a line, and whether it says that the process is ready for another turn."""
        assert self._process.stdout is not None
        self._heard = self._process.stdout.readline().rstrip("\n")
        self._asked_s = None
        return self._heard == _READY

    def answer(self) -> Line:
        """Tell the process that this was all, and return its answer.

        Raises:
            JobFailed: the job failed, or the process crashed, was killed or took too long.
        """
        if self._asked_s is None:
            self._asked_s = time.monotonic()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        text = self._process.stdout.read() if self._heard in ("", _READY) else self._heard
        self._process.wait()
        if self._late:
            raise JobFailed(f"no answer within {self._timeout_s:g} s; the process was stopped.")
        if self._process.returncode != 0 or not text:
            self._complaints.seek(0)
            complaint = self._complaints.read().decode("utf-8", "replace")
            raise JobFailed(f"{_exit(self._process.returncode, complaint)}.")
        result: Line = json.loads(text)
        if "error" in result:
            raise JobFailed(result["error"])
        return result


def _library_folders() -> list[str]:
    """Where the libraries are, a user's own site folder included."""
    specs = []
    for name in _LIBRARIES:
        own = [site.getusersitepackages()]
        specs.append(
            importlib.util.find_spec(name) or importlib.machinery.PathFinder.find_spec(name, own)
        )
    return [str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin]


def _exit(code: int, complaint: str) -> str:
    if "bad_alloc" in complaint:  # in a thread of native code, where nothing can catch it
        return "it ran out of memory: std::bad_alloc"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by signal {-code} ({name}): {_SIGNALS.get(-code, 'the process crashed')}"
    last = (complaint.strip().splitlines() or ["it left no message"])[-1]
    return f"the measuring process ended with status {code}: {last}"


# -- the folder -------------------------------------------------------------------------------


def drive(
    folder: Path,
    *,
    lines: Path | None = None,
    worker: Path = WORKER,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Do what ``FOLDER/session.json`` says, or go on with it, and return what was measured.

    Args:
        folder: with session.json, models and inputs.
        lines: in place of ``FOLDER/session.jsonl``.
        worker: the worker's file.
        tell: is told in a few words what is about to be done.

    Raises:
        Busy: another session is timing on this device.
        DriverError: the folder is wrong, belongs to other lines, or nothing works here.
        OSError: the disk refused.
    """
    session, plan = _load(folder)
    for model in session["models"]:
        _verify(folder, model)
    path = folder / "session.jsonl" if lines is None else lines
    with device_lock(), _journal(path) as journal:
        header = {"schema": _SCHEMA, "session": session}
        if journal.line({"kind": "session"}, lambda: header).get("session") != session:
            raise DriverError(
                f"{path}: these are the lines of another session; move the file away to start over."
            )
        call = _caller(folder, session, worker, tell)
        try:
            journal.line({"kind": "environment"}, lambda: call("environment", 0, {}))
        except JobFailed as error:
            raise DriverError(
                f"nothing can be measured on this device by {sys.executable}: {error}"
            ) from error
        names = [model["name"] for model in session["models"]]
        outcome = Outcome({}, {}, [])
        if plan is not None:
            race = _racer(folder, session, worker, tell)
            outcome = measure(names, plan, session["seed"], call, journal, race)
        for index, name in enumerate(names if session["predict"] else []):
            place = {"kind": "outputs", "index": index, "model": name}
            journal.line(place, _outputs(folder, session, index, call))
        journal.line({"kind": "end"}, dict)
    return outcome


def _load(folder: Path) -> tuple[Line, Plan | None]:
    """``session.json``, checked and with its defaults filled in, and its plan."""
    path = folder / "session.json"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DriverError(f"{path}: there is no session that can be read ({error}).") from error
    if not isinstance(given, dict) or given.get("schema") != _SCHEMA:
        raise DriverError(f"{path}: not a session of schema {_SCHEMA}; take a driver that fits it.")
    try:
        return checked_session(given)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DriverError(f"{path}: wrong or missing: {error}.") from error


def checked_session(given: Mapping[str, Any]) -> tuple[Line, Plan | None]:
    """A session from plain data with its defaults filled in, and its plan.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: what is wrong or missing, in few words.
    """
    scoring = {"labels": None, "metric": None, "expected": None}
    defaults = {"predict": False, "seed": 0, "job": {}, "timeout_s": _TIMEOUT_S}
    session: Line = {**defaults, **scoring, **given}
    for key in ("threads", "batch"):
        if not isinstance(session[key], int) or session[key] < 1:
            raise ValueError(f"{key} must be a whole number from 1; got {session[key]!r:.40}")
    if session["metric"] not in (None, "accuracy", "mse"):
        raise ValueError(f"metric must be accuracy, mse or null; got {session['metric']!r:.40}")
    if not isinstance(session["job"], dict) or not session["timeout_s"] > 0:
        raise ValueError("job must be a mapping, and timeout_s above 0")
    expected = session["expected"] or []
    if expected and len(expected) != len(session["models"]):
        raise ValueError("expected must have an entry for each model")
    for model in session["models"]:
        if not isinstance(model["name"], str) or not isinstance(model["sha256"], str):
            raise TypeError("each model's name and sha256 must be text")
        sizes = itertools.chain.from_iterable(model.get("shapes", {}).values())
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("each model's shapes must be lists of whole numbers")
    paths = [model["path"] for model in session["models"]]
    paths += [*session["inputs"].values(), session["labels"], *expected]
    paths += session.get("values", {}).values()
    for path in paths:
        if path is not None and not stays_inside(path):
            raise ValueError(f"the path {path!r:.80} leads out of the folder")
    return session, None if session["plan"] is None else checked_plan(session["plan"])


def stays_inside(path: object) -> bool:
    """Whether a relative path, of whichever system, leads to something in its folder."""
    if not isinstance(path, str) or not path or "\\" in path or ":" in path or "\0" in path:
        return False
    return not {"", ".", ".."} & set(path.split("/"))


def _verify(folder: Path, model: Mapping[str, str]) -> None:
    path = folder / model["path"]
    if not path.is_file():
        raise DriverError(f"{path}: there is no such file, yet session.json names it as a model.")
    found = _sha256([path, path.with_name(path.name + ".data")])
    if found != model["sha256"]:
        raise DriverError(
            f"{path}: its sha256 is {found[:12]}..., session.json says {model['sha256'][:12]}...; "
            "send the file again."
        )


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            with path.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
    return digest.hexdigest()


def _caller(
    folder: Path, session: Mapping[str, Any], worker: Path, tell: Callable[[str], None]
) -> Call:
    rounds = itertools.count(1)

    def call(kind: str, index: int, settings: Mapping[str, Any]) -> Line:
        if kind == "environment":
            asked = {**_fixed(session), "kind": kind}
            return run_worker(asked, timeout_s=session["timeout_s"], worker=worker)
        name = session["models"][index]["name"]
        tell(f"{kind} {name}" + (f" ({next(rounds)})" if kind == "time" else ""))
        scale = float(settings.get("samples", 0)) / 1000
        limit_s = session["timeout_s"] * max(1.0, scale)
        job = _job(folder, session, index, {"kind": kind, **settings})
        try:
            return run_worker(job, timeout_s=limit_s, worker=worker)
        except JobFailed as error:
            raise JobFailed(f"{name}: {error}") from error

    return call


def _racer(
    folder: Path, session: Mapping[str, Any], worker: Path, tell: Callable[[str], None]
) -> Race:
    rounds = itertools.count(1)

    def race(jobs: Sequence[tuple[int, Mapping[str, Any]]], seed: int) -> list[Line]:
        tell(f"time {len(jobs)} processes side by side ({next(rounds)})")
        whole = [_job(folder, session, index, settings) for index, settings in jobs]
        limit_s = session["timeout_s"]
        answers = run_turns(whole, seed=seed, timeout_s=limit_s, worker=worker)
        for place, answer in enumerate(answers):
            if "error" in answer:
                name = session["models"][jobs[place][0]]["name"]
                answer["error"] = f"{name}: {answer['error']}"
        return answers

    return race


def _job(
    folder: Path, session: Mapping[str, Any], index: int, settings: Mapping[str, Any]
) -> Mapping[str, Any]:
    model = session["models"][index]
    arrays = {
        key: {name: str(folder / path) for name, path in session.get(key, {}).items()}
        for key in ("inputs", "values")
    }
    own = {"model": str(folder / model["path"]), "shapes": model.get("shapes", {})}
    return {**_fixed(session), **own, **arrays, **settings}


def _fixed(session: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**session["job"], **{key: session[key] for key in ("threads", "batch", "seed")}}


# -- outputs ----------------------------------------------------------------------------------


def _outputs(
    folder: Path, session: Mapping[str, Any], index: int, call: Call
) -> Callable[[], Mapping[str, Any]]:
    """Makes the line about one model's outputs for every sample."""

    def make() -> Line:
        # Not at the top: what a session only times needs no numpy here.
        sys.path.extend(f for f in _library_folders() if f not in sys.path)
        try:
            found = _predicted(folder, session, index, call)
        except JobFailed as error:
            return {"error": str(error)}
        try:
            return {**found, **_judged(folder, session, index, found["files"][0]["path"])}
        except ValueError as error:
            return {**found, "error": f"{session['models'][index]['name']}: {error}"}

    return make


def _predicted(folder: Path, session: Mapping[str, Any], index: int, call: Call) -> Line:
    import numpy as np

    (folder / "outputs").mkdir(exist_ok=True)
    inputs = [folder / path for path in session["inputs"].values()]
    samples = [len(np.load(path, mmap_mode="r", allow_pickle=False)) for path in inputs]
    files = []
    with tempfile.TemporaryDirectory(dir=folder / "outputs") as scratch:
        settings = {"folder": scratch, "samples": max(samples, default=0)}
        answer = call("predict", index, settings)
        for place, written in enumerate(answer["outputs"]):
            name = f"outputs/{index}-{place}.npy" if place else f"outputs/{index}.npy"
            os.replace(written, folder / name)
            files.append({"path": name, "sha256": _sha256([folder / name])})
    return {"samples": answer["samples"], "names": answer["names"], "files": files}


def _judged(folder: Path, session: Mapping[str, Any], index: int, path: str) -> Line:
    """Scores and the difference from the host, where the session asks for them."""
    import numpy as np

    def load(name: str) -> Any:
        return np.load(folder / name, allow_pickle=False)

    found: Line = {}
    outputs, labels = load(path), session["labels"]
    if labels is not None and session["metric"] is not None:
        found["scores"] = scores(outputs, load(labels), session["metric"]).tolist()
    expected = session["expected"][index] if session["expected"] else None
    if expected is not None:
        found["host"] = difference(outputs, load(expected))
    return found


def scores(outputs: Any, labels: Any, metric: str) -> Any:
    """The score of each sample, a float array of shape ``(n,)``.

    Args:
        outputs: ``(n, classes, ...)`` for ``accuracy``, else anything with samples first.
        labels: ``(n, ...)`` class indices for ``accuracy``, of which negative ones do not count;
            else the outputs' shape.
        metric: ``accuracy`` is right (1) or wrong (0), or the share of right positions where a
            sample has several; outputs that are not finite are wrong. ``binary-accuracy`` is the
            share of outputs on the right side of 0. ``mse`` is the mean over a sample's values, and
            ``r2`` has R squared over all samples for its mean.

    Raises:
        ValueError: shapes that do not go together, or labels that are no class.
    """
    if len(outputs) != len(labels):
        raise ValueError(
            f"{len(outputs)} outputs and {len(labels)} labels; there must be one label per sample."
        )
    if metric == "accuracy":
        return _accuracy(outputs, labels)
    values, wanted = _rows(outputs, labels, metric)
    return {"mse": _mse, "r2": _r2, "binary-accuracy": _binary}[metric](values, wanted)


def _accuracy(outputs: Any, labels: Any) -> Any:
    import numpy as np

    if outputs.ndim < 2 or outputs.shape[:1] + outputs.shape[2:] != labels.shape:
        raise ValueError(
            "accuracy needs outputs (n, classes, ...) and labels (n, ...); got "
            f"{outputs.shape} and {labels.shape}."
        )
    classes = outputs.shape[1]
    if labels.dtype.kind not in "iub" or (labels.size and labels.max() >= classes):
        raise ValueError(
            f"labels must be class indices 0 to {classes - 1}; got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}."
        )
    right = (outputs.argmax(axis=1) == labels) & np.isfinite(outputs).all(axis=1)
    return _mean_of_known(right, labels >= 0)


def _mean_of_known(right: Any, known: Any) -> Any:
    import numpy as np

    right, known = (part.reshape(len(part), -1) for part in (right, known))
    if not known.any(axis=1).all():
        raise ValueError("a sample has no label; leave it out.")
    if known.all():
        return right.mean(axis=1, dtype=np.float64)
    return (right & known).sum(axis=1) / known.sum(axis=1)


def _rows(outputs: Any, labels: Any, metric: str) -> Any:
    """Both as ``(n, values)``: only axes of one may differ, and nothing is broadcast."""
    import numpy as np

    shapes = [[size for size in one.shape[1:] if size != 1] for one in (outputs, labels)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{metric} needs outputs and labels of one shape; got {outputs.shape} and "
            f"{labels.shape}."
        )
    return (one.reshape(len(one), -1).astype(np.float64) for one in (outputs, labels))


def _mse(values: Any, labels: Any) -> Any:
    return ((values - labels) ** 2).mean(axis=1)


def _r2(values: Any, labels: Any) -> Any:
    spread = ((labels - labels.mean(axis=0)) ** 2).sum()
    if not spread > 0:
        raise ValueError("r2 needs labels that vary from sample to sample; take mse.")
    return 1 - len(labels) * ((values - labels) ** 2).sum(axis=1) / spread


def _binary(values: Any, labels: Any) -> Any:
    import numpy as np

    known = ~(np.isnan(labels) | (labels < 0))
    return _mean_of_known(((values > 0) == (labels > 0.5)) & np.isfinite(values), known)


def difference(outputs: Any, expected: Any) -> Line:
    """How far outputs are from those of another machine, on the samples that both have.

    ``agreement`` is the share of equal largest outputs (``None`` without classes), ``max_error``
    the largest absolute difference (``None`` if that is not finite).

    Raises:
        ValueError: shapes that do not go together.
    """
    import numpy as np

    own = outputs[: len(expected)]
    if own.shape != expected.shape or not own.size or own.dtype.kind not in "fiub":
        raise ValueError(
            f"its outputs have shape {outputs.shape}; expected were {expected.shape}, of numbers."
        )
    error = float(np.abs(own.astype(np.float64) - expected).max())
    agreement = None
    if own.ndim > 1 and own.shape[1] > 1:
        agreement = float((own.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return {
        "samples": len(expected),
        "agreement": agreement,
        "max_error": error if math.isfinite(error) else None,
    }


# -- one at a time ----------------------------------------------------------------------------


@contextlib.contextmanager
def device_lock() -> Iterator[None]:
    """Hold the device: two sessions that time at once would measure each other.

    The system's own file lock: it goes with its process, however that ends, so none gets stale.

    Raises:
        Busy: another session holds it.
        DriverError: the lock's file cannot be made.
    """
    path = Path(tempfile.gettempdir()) / _LOCK
    with _lock_file(path) as handle:
        try:
            _lock(handle)
        except OSError:
            holder = os.read(handle, 20).decode("ascii", "replace").strip()
            raise Busy(
                f"another session (process {holder or 'unknown'}) is timing on this device and "
                f"holds {path}; wait until it has ended."
            ) from None
        with contextlib.suppress(OSError):  # another user's file: locked, but not to be written
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    try:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:
            handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DriverError(
            f"{path}: the device's lock cannot be made ({error.strerror}); set TMPDIR to a folder "
            "where it can."
        ) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Beyond the number in the file, which others may then read.
        os.lseek(handle, 1000, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _stop(number: int, _: object) -> None:
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """Drive the session in the folder named by the only argument; see the module's docstring."""
    if len(arguments) != 1:
        print("usage: python3 -I driver.py FOLDER", file=sys.stderr)
        return 2
    # Ended politely, it takes its worker along and gives the device back.
    signal.signal(signal.SIGTERM, _stop)
    try:
        drive(Path(arguments[0]).absolute())
    except Busy as error:
        print(error, file=sys.stderr)
        return 3
    except (DriverError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
