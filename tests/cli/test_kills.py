"""Processes that are ended from outside, and what is left of them."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.cli import main
from compress.cli.outputs import check_run
from compress.errors import MeasurementError
from compress.measure.local import LocalTarget
from compress.measure.ondevice.process import WORKER

TINY = """\
schema: 1
name: tiny
task: digits
model: {arch: mlp, in_features: 64, width: 16}
stages:
  - {kind: train, epochs: 1, batch_size: 64, learning_rate: 0.01}
  - {kind: quantize}
"""


def endless(path):
    """A model that never gives an answer: a loop whose condition stays true."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Add", ["before", "one"], ["after"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [1, 4]),
        ],
        [value("still", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.ones((1, 4), np.float32), "one")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
            helper.make_node("Less", ["total", "never"], ["begin"]),
            helper.make_node("Loop", ["", "begin", "x"], ["y"], body=body),
        ],
        "endless",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.array(1e30, np.float32), "never")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def children(process):
    """The numbers of all processes below one."""
    found = []
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *children(child)]
    return found


def is_alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def seconds_of(process):
    """The processor time that a process has taken so far."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(condition, timeout_s=60.0):
    """What ``condition`` returns once it is true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that in time")


@pytest.fixture(autouse=True, scope="module")
def scored_here():
    """Nothing is: processes are what is ended here."""


@pytest.fixture
def start(tmp_path):
    """Starts Python code in a process of its own, with default signals; it is gone at the end."""
    started = []

    def call(code, *arguments, **options):
        # Whatever started the tests may have told them to ignore some.
        heard = (
            "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", heard + code, *map(str, arguments)],
            **{
                "cwd": tmp_path,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )
        started.append(process)
        return process

    yield call
    for process in started:
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()


MAIN = "from compress.cli import main\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture
def run(start, tmp_path):
    """Starts ``run`` of the tiny recipe into ``run``."""
    (tmp_path / "tiny.yaml").write_text(TINY)

    def call(*arguments, preface="", recipe=TINY, **options):
        (tmp_path / "tiny.yaml").write_text(recipe)
        words = ("run", "tiny.yaml", "--quick", "--out", "run", *arguments)
        return start(f"{preface}\n{MAIN}", *words, **options)

    return call


def ended(process, timeout_s=60.0):
    """The exit code and the last line on standard error of a process that was asked to end."""
    _, said = process.communicate(timeout=timeout_s)
    assert "Traceback" not in said, said
    return process.returncode, said.strip().splitlines()[-1]


def record_of(tmp_path):
    return json.loads((tmp_path / "run" / "record.json").read_text())


LOG = "run/log.jsonl"
TRAINING = TINY.replace("epochs: 1,", "epochs: 5000,")


def has(path, words):
    return lambda: path.exists() and words in path.read_text()


# -- a worker and whoever started it ----------------------------------------------------------

WORKS = """
from pathlib import Path
import numpy as np
from compress.measure.local import LocalTarget
from compress.measure.target import BenchmarkConfig
target, model = LocalTarget(timeout_s=500), Path(sys.argv[1])
inputs = {"x": np.zeros((2500, 4), np.float32)}
if sys.argv[2] == "score":
    target.predict(model, inputs)
else:
    target.measure([model], BenchmarkConfig({"x": inputs["x"][:4]}, "quick", 0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("what", ["score", "time"])
def test_workers_end_with_their_parent_whatever_they_compute(what, start, tmp_path):
    parent = start(WORKS, endless(tmp_path / "endless.onnx"), what)
    # Half a second of processor time is more than starting takes: it is in the loop.
    until(lambda: any(seconds_of(child) > 1.0 for child in children(parent.pid)))
    workers = children(parent.pid)
    assert workers
    parent.kill()
    until(lambda: not any(map(is_alive, workers)), timeout_s=5)


def write_job(path, job):
    path.write_text(json.dumps(job))
    return path


def test_a_worker_that_something_stands_between_ends_with_its_parent(start, tmp_path):
    model = endless(tmp_path / "endless.onnx")
    job = {"kind": "check", "model": str(model), "parent": 0}
    # As on a system that has no word for it: the parent is looked at now and then.
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = start(
        "import runpy\nworker = sys.argv.pop(1)\nsys.argv = [worker, *sys.argv[1:]]\n"
        "runpy.run_path(worker, run_name='__main__')",
        WORKER,
        write_job(tmp_path / "job.json", {**job, "parent": parent.pid}),
    )
    until(lambda: seconds_of(worker.pid) > 1.0)
    assert is_alive(worker.pid)
    parent.kill()
    parent.communicate()
    assert worker.wait(timeout=5) == 1


SHELL = """
from compress.measure.remote.shell import execute
execute(["sleep", "300"], "", 300, "there")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_transfer_ends_with_whoever_started_it(start):
    parent = start(SHELL)

    def sleeper():
        names = [Path(f"/proc/{n}/comm").read_text().strip() for n in children(parent.pid)]
        return "sleep" in names

    until(sleeper)
    (transfer,) = children(parent.pid)
    parent.kill()
    until(lambda: not is_alive(transfer), timeout_s=5)


def test_a_model_without_end_is_stopped_after_the_time_that_was_allowed(tmp_path):
    target = LocalTarget(timeout_s=2)
    with pytest.raises(MeasurementError, match=r"no answer within 2 s; the process was stopped"):
        target.predict(endless(tmp_path / "endless.onnx"), {"x": np.zeros((1, 4), np.float32)})


def test_an_interrupt_does_not_wait_for_what_is_scored(start, tmp_path):
    parent = start(
        f"{WORKS.replace('target.', 'heeded_target.')}".replace(
            "inputs =", "heeded_target = target\ninputs ="
        ),
        endless(tmp_path / "endless.onnx"),
        "score",
    )
    until(lambda: any(seconds_of(child) > 1.0 for child in children(parent.pid)))
    workers = children(parent.pid)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=5)
    assert not any(map(is_alive, workers))


NATIVE = """
import types
import compress.cli.signals
import onnxruntime, numpy
compress.cli.signals._PATIENCE_S = 0.5

def forever(_):
    session = onnxruntime.InferenceSession(sys.argv[-1])
    print("begins", flush=True)
    session.run(None, {"x": numpy.zeros((1, 4), numpy.float32)})

sys.modules["compress.cli.schema"] = types.SimpleNamespace(run=forever)
from compress.cli import main
sys.exit(main(["schema"]))
"""


def test_native_code_without_end_does_not_keep_a_command_from_ending(start, tmp_path):
    process = start(NATIVE, endless(tmp_path / "endless.onnx"))
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process, 10)
    assert code == 1
    assert "ended by SIGTERM in the middle of a computation" in said


# -- a run ------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_run_is_held_while_it_trains_and_is_ended_by_two_signals_in_a_row(
    run, tmp_path, monkeypatch, capsys
):
    process = run(recipe=TRAINING)
    until(has(tmp_path / LOG, '"epoch"'))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "tiny.yaml", "--quick", "--out", "run", "--fresh"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"run: process {process.pid} on " in said
    assert "has worked in this folder since" in said
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    code, said = ended(process)
    assert code == 1
    assert re.search(r"interrupted by SIG(TERM|HUP); what was finished is kept, and the same", said)
    assert record_of(tmp_path)["status"] == "interrupted"
    assert not list((tmp_path / "run").rglob("*.part"))
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_is_ended_while_its_workers_measure(run, tmp_path):
    process = run()
    raw = tmp_path / "run" / "measurements"
    until(lambda: raw.is_dir() and any(raw.iterdir()) and children(process.pid))
    workers = children(process.pid)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 1
    assert "interrupted by SIGTERM" in said
    assert record_of(tmp_path)["status"] == "interrupted"
    # One that was just being started sees the end of its input.
    until(lambda: not any(map(is_alive, workers)), timeout_s=5)


WRITES = """
import compress.record as record, os, time
earlier = record.write_atomically

def slowly(path, content):
    if path.name == "record.json":
        open("writing", "w").close()
        time.sleep(0.3)
    earlier(path, content)

record.write_atomically = slowly
"""


@pytest.mark.exhaustive
def test_a_run_is_ended_while_it_writes(run, tmp_path):
    process = run(preface=WRITES)
    until((tmp_path / "writing").exists)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 1
    assert "interrupted by SIGTERM" in said
    assert record_of(tmp_path)["status"] == "interrupted"


IMPORTS = """
import builtins, os
earlier = builtins.__import__

def imported(name, *rest, **named):
    if name == "torch":
        builtins.__import__ = earlier
        os.kill(os.getpid(), signal.SIGINT)
    return earlier(name, *rest, **named)

builtins.__import__ = imported
"""


def test_an_interrupt_during_imports_is_a_sentence(run):
    code, said = ended(run(preface=IMPORTS))
    assert code == 1
    assert said.startswith("compresskit: interrupted; what was finished is kept")


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("measurements", marks=pytest.mark.exhaustive),
        "stages/01-train/stage.json",
        pytest.param("record.json", marks=pytest.mark.exhaustive),
    ],
)
def test_what_a_kill_leaves_is_no_obstacle(place, run, tmp_path):
    process = run()
    until((tmp_path / "run" / place).exists)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not any(map(is_alive, workers)), timeout_s=5)
    check_run(tmp_path / "run")  # a run, though perhaps one without a record


def test_output_that_nobody_reads_ends_in_silence(start):
    process = start(MAIN, "schema", stdout=subprocess.PIPE)
    # The schema fits into a pipe of the usual size, and would all be written before it is closed.
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    process.stdout.read(1)
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "")
