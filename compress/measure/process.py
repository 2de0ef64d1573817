"""Process: start a worker on this machine, wait for it, and say in a sentence what became of it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import MeasurementError

__all__ = ["WORKER", "run_worker"]

WORKER = Path(__file__).with_name("worker.py")

# Isolated mode keeps this package and the working folder off the path, so that nothing there can
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
_SIGNALS = {
    9: "most likely out of memory",
    4: "this build of onnxruntime uses instructions that the CPU lacks",
}


def run_worker(job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Run ``job`` in a fresh process and return its answer.

    The process is executed, never forked: its peak memory is its own. This one sleeps in the
    kernel meanwhile.

    Raises:
        MeasurementError: the job failed, or its process crashed, was killed or took too long.
    """
    command = [sys.executable, "-I", "-c", _START, str(WORKER), *_library_folders()]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=_environment(),
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            answer, complaint = process.communicate(json.dumps(job), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"{_subject(job)}: no answer within {timeout_s:g} s; the process was stopped."
            ) from None
        finally:
            process.kill()
    if process.returncode != 0 or not answer:
        raise MeasurementError(f"{_subject(job)}: {_exit(process.returncode, complaint)}.")
    result: dict[str, Any] = json.loads(answer)
    if "error" in result:
        raise MeasurementError(f"{_subject(job)}: {result['error']}")
    return result


def _subject(job: Mapping[str, Any]) -> str:
    return str(job.get("model", "the measuring process"))


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | _ONE_THREAD


def _library_folders() -> list[str]:
    specs = [importlib.util.find_spec(name) for name in ("numpy", "onnxruntime")]
    return [str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin]


def _exit(code: int, complaint: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by signal {-code} ({name}): {_SIGNALS.get(-code, 'the process crashed')}"
    last = (complaint.strip().splitlines() or ["it left no message"])[-1]
    return f"the measuring process ended with status {code}: {last}"
