"""What becomes of worker processes, and what is said about it."""

import os
import signal

import numpy as np
import pytest

from compress.errors import MeasurementError
from compress.measure import process

ENDLESS = {"window_s": 0.01, "warmup_cap_s": 0.01, "sample_s": 60, "least": 1, "cap_s": 60}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts other code in the worker's place."""

    def use(text):
        path = tmp_path / "worker.py"
        path.write_text(text)
        monkeypatch.setattr(process, "WORKER", path)

    return use


def run(timeout_s=60, **job):
    return process.run_worker({"kind": "environment", **job}, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, r"m.onnx: killed by signal 9 \(SIGKILL\): most likely out of memory"),
        (signal.SIGILL, r"signal 4 \(SIGILL\): this build of onnxruntime uses instructions that"),
        (signal.SIGSEGV, r"signal 11 \(SIGSEGV\): the process crashed"),
    ],
)
def test_a_killed_process_is_explained(program, number, said):
    program(f"import os; os.kill(os.getpid(), {int(number)})")
    with pytest.raises(MeasurementError, match=said):
        run(model="m.onnx")


def test_a_crash_gives_its_last_words(program):
    program("import sys; sys.stderr.write('first\\nlast words\\n'); sys.exit(3)")
    with pytest.raises(MeasurementError, match="ended with status 3: last words"):
        run()


def test_silence_is_an_error_too(program):
    program("")
    with pytest.raises(MeasurementError, match="ended with status 0: it left no message"):
        run()


def test_a_process_that_takes_too_long_is_stopped(one):
    with pytest.raises(MeasurementError, match=r"no answer within 1\.5 s"):
        run(timeout_s=1.5, kind="time", model=str(one), **ENDLESS)
    with pytest.raises(ChildProcessError):  # nothing is left behind
        os.waitpid(-1, os.WNOHANG)


def test_an_error_answer_names_the_model(truncated):
    with pytest.raises(MeasurementError, match=r"truncated\.onnx: the file is cut off"):
        run(kind="inspect", model=str(truncated))


def test_what_native_code_prints_does_not_reach_the_answer(program):
    program(
        f"import os, sys\nsys.path.insert(0, {str(process.WORKER.parents[3])!r})\n"
        "from compress.measure.ondevice import worker\n"
        "usual = worker.JOBS['environment']\n"
        "def loud(job):\n    os.system('echo hi')\n    return usual(job)\n"
        "worker.JOBS['environment'] = loud\n"
        "worker.main([])\n"
    )
    assert run()["onnxruntime"]


def test_the_worker_sees_no_foreign_python_settings(program, monkeypatch, tmp_path):
    (tmp_path / "json.py").write_text("raise ImportError('shadowed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.chdir(tmp_path)
    program(
        "import json, os\n"
        "print(json.dumps({k: os.environ.get(k) for k in ('PYTHONPATH', 'OMP_NUM_THREADS')}))"
    )
    assert run() == {"PYTHONPATH": None, "OMP_NUM_THREADS": "1"}


def test_peak_memory_is_not_that_of_the_parent(one):
    lean = run(kind="memory", model=str(one))
    if "unavailable" in lean:
        pytest.skip(lean["unavailable"])
    ballast = np.ones(400 * 2**20 // 8)
    fat = run(kind="memory", model=str(one))
    assert ballast.sum() == len(ballast)
    for result in (lean, fat):
        assert result["runtime_bytes"] <= result["load_peak_bytes"] + 2**20
        assert max(result["load_peak_bytes"], result["run_peak_bytes"]) < 300 * 2**20
    assert abs(fat["run_peak_bytes"] - lean["run_peak_bytes"]) < 20 * 2**20
