"""Worker processes: started so that nothing disturbs them, spoken with line by line, and ended."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import itertools
import json
import os
import random
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from compress.measure.ondevice.runtimes import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compress.measure.ondevice.answers import Answer
    from compress.measure.ondevice.jobs import TimingSettings

    #: A complete job; its keys are those of :class:`.jobs.WorkerJob`.
    AnyJob = Mapping[str, object]

__all__ = [
    "WORKER",
    "JobFailed",
    "WorkerProcess",
    "library_folders",
    "or_error",
    "run_interleaved",
    "run_side_by_side",
    "run_worker",
]

WORKER = Path(__file__).with_name("start_worker.py")
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
_FEWEST_TURNS = 3


class JobFailed(Exception):
    """A job that could not be done; the message is a sentence, which becomes part of the data."""


def or_error(work: Callable[[], Answer]) -> Answer:
    """What ``work`` returns, or its failure as data."""
    try:
        return work()
    except JobFailed as error:
        return {"error": str(error)}


def run_worker(job: AnyJob, *, timeout_s: float, worker: Path = WORKER) -> Answer:
    """Run ``job`` in a fresh process and return its answer.

    The process is executed, never forked: its peak memory is its own. This one sleeps in the
    kernel meanwhile.

    Raises:
        JobFailed: the job failed, or its process crashed, was killed or took too long.
    """
    environment = _ENVIRONMENTS.get(str(job.get("kind")), {})
    with WorkerProcess(worker, timeout_s, environment) as process:
        process.give(job)
        return process.answer()


def run_side_by_side(
    jobs: Sequence[AnyJob], *, timeout_s: float, worker: Path = WORKER
) -> list[Answer]:
    """Run all ``jobs`` at the same time, each in a fresh process, and return their answers.

    Raises:
        JobFailed: a job failed, or its process crashed, was killed or took too long; the others are
            stopped.
    """
    with contextlib.ExitStack() as stack:
        # From this thread, which the processes end with, and which an interrupt reaches.
        processes = [stack.enter_context(WorkerProcess(worker, timeout_s)) for _ in jobs]
        for place, job in enumerate(jobs):
            processes[place].give(job)
        return [process.answer() for process in processes]


def run_interleaved(
    jobs: Sequence[AnyJob], *, seed: int, timeout_s: float, worker: Path = WORKER
) -> list[Answer]:
    """Time several models in fresh processes that take turns.

    Each is started and warmed up in order. Then, again and again, all get one turn, in random
    order, until there was time for ``sample_s`` of each and there were ``least`` turns, or until
    ``cap_s`` of each.

    Args:
        jobs: complete ``time`` jobs for the worker, with the same timing.
        seed: of the order of turns.
        timeout_s: for any one answer of a process.
        worker: the file that a process executes.

    Returns:
        An answer for each job, ``{"error": "..."}`` where there is none.
    """
    with contextlib.ExitStack() as stack:
        workers, running = [], []
        for job in jobs:
            process = stack.enter_context(WorkerProcess(worker, timeout_s))
            workers.append(process)
            process.give({**job, "kind": "turns"})
            if process.hears_ready():
                running.append(process)
        _alternate(running, cast("TimingSettings", jobs[0]), random.Random(seed))
        return [or_error(process.answer) for process in workers]


def _alternate(running: list[WorkerProcess], timing: TimingSettings, chance: random.Random) -> None:
    begin_s = time.monotonic()
    for turns in itertools.count(1):
        for process in chance.sample(running, len(running)):
            process.send("")
            if not process.hears_ready():
                running.remove(process)
        took_s = (time.monotonic() - begin_s) / max(1, len(running))
        enough = turns >= timing["least"] and took_s >= timing["sample_s"]
        if not running or enough or (turns >= _FEWEST_TURNS and took_s >= timing["cap_s"]):
            return


class WorkerProcess:
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
        self._stderr = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, str(worker), *library_folders()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**kept, **_ONE_THREAD, **(environment or {})},
            encoding="utf-8",
            errors="replace",
        )

    def __enter__(self) -> WorkerProcess:
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

    def give(self, job: AnyJob) -> None:
        """Tell the process its job, and with whom to end."""
        self.send(json.dumps({**job, "parent": os.getpid()}))

    def send(self, line: str) -> None:
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

    def answer(self) -> Answer:
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
            self._stderr.seek(0)
            words = self._stderr.read().decode("utf-8", "replace")
            raise JobFailed(f"{_exit(self._process.returncode, words)}.")
        result: Answer = json.loads(text)
        if "error" in result:
            raise JobFailed(result["error"])
        return result


def library_folders() -> list[str]:
    """Where the libraries are, a user's own site folder included."""
    specs = []
    for name in LIBRARIES:
        own = [site.getusersitepackages()]
        specs.append(
            importlib.util.find_spec(name) or importlib.machinery.PathFinder.find_spec(name, own)
        )
    return [str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin]


def _exit(code: int, words: str) -> str:
    if "bad_alloc" in words:  # in a thread of native code, where nothing can catch it
        return "it ran out of memory: std::bad_alloc"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by signal {-code} ({name}): {_SIGNALS.get(-code, 'the process crashed')}"
    last = (words.strip().splitlines() or ["it left no message"])[-1]
    return f"the measuring process ended with status {code}: {last}"
