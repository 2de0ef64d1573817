"""A session on a device: in a folder, by one file, and resumed after any end."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.artifact import file_sha256
from compress.measure.ondevice.lock import device_lock
from compress.measure.ondevice.plan import checked_plan
from compress.measure.ondevice.program import main
from compress.measure.ondevice.scoring import difference, scores
from compress.measure.ondevice.session import run_folder
from compress.measure.ondevice.session_log import SessionError
from compress.measure.session import read_session


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def start(session):
    pipe = subprocess.PIPE
    return subprocess.Popen(session.command, stdout=pipe, stderr=pipe, text=True)


def finish(session):
    done = subprocess.run(session.command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def wait_for(session, count, kind="time"):
    """Until the session has so many lines of a kind."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        text = session.lines.read_text() if session.lines.exists() else ""
        if text.count(f'"kind": "{kind}"') >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} lines of {kind} within 30 s: {text}")


def test_a_session_needs_nothing_but_the_standard_library(pretend):
    # No site folders at all: neither this package nor numpy can be imported.
    session = pretend({"ns": 2_000_000}, {"ns": 1_000_000})
    assert finish(session) == (0, "", "")
    lines = lines_of(session.lines)
    assert [lines[0]["kind"], lines[1]["kind"], lines[-1]] == [
        "session",
        "environment",
        {"kind": "end"},
    ]
    assert lines[1]["seen"] == []
    base, half = read_session(session.lines).timings
    assert half.speedup.value == pytest.approx(2, rel=1e-3)
    assert (base.speedup.verdict, half.speedup.verdict) == ("baseline", "faster")
    assert half.memory.model_peak_bytes == 200


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_session_that_is_ended_goes_on_where_it_was(pretend, number, status):
    session = pretend({"sleep_s": 0.05}, {"sleep_s": 0.05})
    process = start(session)
    wait_for(session, 3)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == status
    whole = session.lines.read_bytes()
    begun = whole[: whole.rfind(b"\n") + 1]
    session.lines.write_bytes(begun + b'{"kind": "time", "index": 0, "samp')
    assert finish(session) == (0, "", "")
    kept = begun[: begun.find(b'{"kind": "time"')]  # at least
    assert session.lines.read_bytes().startswith(kept)
    lines = lines_of(session.lines)
    timed = [line for line in lines if line["kind"] == "time"]
    assert len(timed) == 6
    # What was there was not done again, except a round of three that was not whole.
    repeated = len(session.calls()) - sum(line["kind"] in ("time", "memory") for line in lines)
    assert 0 <= repeated <= 3
    assert len(read_session(session.lines).timings) == 2


def test_half_of_a_round_is_done_again(pretend):
    session = pretend({}, {})
    finish(session)
    whole = session.lines.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(whole) if '"kind": "round"' in line)
    session.lines.write_text("".join(whole[: first - 1]))  # one process of the round is missing
    before = len(session.calls())
    assert finish(session) == (0, "", "")
    assert len(session.calls()) - before == 6
    assert session.lines.read_text().startswith("".join(whole[: first - 3]))
    assert len(read_session(session.lines).timings) == 2


def test_a_polite_end_takes_the_worker_along(pretend):
    session = pretend({"sleep_s": 30})
    process = start(session)
    wait_for(session, 1, "environment")
    while not session.calls():
        time.sleep(0.01)
    begin = time.monotonic()
    process.terminate()
    process.communicate(timeout=20)
    assert time.monotonic() - begin < 15
    assert process.returncode == 143


def test_a_finished_session_is_not_done_again(pretend):
    session = pretend({})
    finish(session)
    calls, text = session.calls(), session.lines.read_text()
    assert finish(session) == (0, "", "")
    assert (session.calls(), session.lines.read_text()) == (calls, text)


def test_two_sessions_never_time_at_once(pretend):
    session = pretend({"sleep_s": 0.3})
    process = start(session)
    wait_for(session, 1, "environment")
    status, out, complaint = finish(session)
    assert (status, out) == (3, "")
    assert f"another session (process {process.pid}) is timing on this device" in complaint
    process.kill()
    process.communicate(timeout=30)
    assert finish(session)[0] == 0  # the lock went with its process


def test_a_lock_that_cannot_be_made_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with (
        pytest.raises(SessionError, match=r"lock cannot be made .*; set TMPDIR"),
        device_lock(),
    ):
        pass


def test_a_model_that_breaks_is_a_line_and_the_others_go_on(pretend):
    session = pretend({}, {"error": "time"}, {"ns": 500_000})
    assert finish(session)[0] == 0
    _, broken, fast = read_session(session.lines, ["A", "B", "C"]).timings
    assert broken.error == "b: it broke."
    assert fast.speedup.value == pytest.approx(2, rel=1e-3)


def test_without_its_baseline_a_session_begins_again_with_the_next(pretend):
    session = pretend({"error": "time"}, {}, {})
    assert finish(session)[0] == 0
    failure, base, _ = read_session(session.lines, ["A", "B", "C"]).timings
    assert failure.error == "a: it broke."
    assert base.speedup.verdict == "baseline"
    assert "speed-ups are against B" in base.warnings[0]


def test_a_session_without_models_tells_the_environment(pretend):
    session = pretend(plan=None)
    assert finish(session)[0] == 0
    result = read_session(session.lines)
    assert (result.timings, result.outputs) == ([], [])
    assert result.environment["cpu"] == "Pretended CPU"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "not a session of schema 1"),
        ({"threads": 0}, "threads must be a whole number from 1; got 0"),
        (
            {"metric": "guess"},
            "auroc, spearman or null; got 'guess'",
        ),
        ({"inputs": {"": "../secret.npy"}}, "the path '../secret.npy' leads out of the folder"),
        ({"labels": "/etc/passwd"}, "the path '/etc/passwd' leads out of the folder"),
        ({"labels": "C:labels.npy"}, "the path 'C:labels.npy' leads out of the folder"),
        ({"plan": {"bound": 1}}, "missing 6 required positional arguments"),
        ({"expected": [None, None]}, "expected must have an entry for each model"),
        ({"further": [["a.npy"], []]}, "further must have a list for each entry of expected"),
        ({"expected": ["x.npy"], "further": ["a.npy"]}, "further must have a list for each"),
        ({"expected": ["x.npy"], "further": [["/a.npy"]]}, "'/a.npy' leads out of the folder"),
        ({"models": [{"path": "m.onnx"}]}, "wrong or missing: 'name'"),
        ({"timeout_s": 0}, "job must be a mapping, and timeout_s above 0"),
    ],
)
def test_a_wrong_session_is_refused(pretend, changes, said):
    session = pretend({}, **changes)
    status, out, complaint = finish(session)
    assert (status, out) == (2, "")
    assert said in complaint
    assert not session.lines.exists()


def test_a_folder_without_a_session_is_refused(tmp_path):
    with pytest.raises(SessionError, match="there is no session that can be read"):
        run_folder(tmp_path)


def test_plans_that_measure_nothing_are_refused(tiny_plan):
    plan = vars(tiny_plan)
    with pytest.raises(ValueError, match="a plan needs 2 rounds and 1 process"):
        checked_plan({**plan, "min_rounds": 1})
    with pytest.raises(ValueError, match="times of a plan must be positive"):
        checked_plan({**plan, "budget_s": 0})


def test_other_bytes_than_the_session_names_are_refused(pretend):
    session = pretend({})
    (session.folder / "models/0/model.onnx").write_text("changed")
    assert "session.json says" in finish(session)[2]
    (session.folder / "models/0/model.onnx").unlink()
    assert "there is no such file, yet session.json names it" in finish(session)[2]


def test_lines_of_another_session_are_refused(pretend):
    session = pretend({})
    finish(session)
    path = session.folder / "session.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 7}))
    status, _, complaint = finish(session)
    assert status == 2
    assert "these are the lines of another session; move the file away" in complaint


def test_a_damaged_line_is_refused_by_its_number(pretend):
    session = pretend({})
    finish(session)
    lines = session.lines.read_text().splitlines(keepends=True)
    lines[2] = lines[2][:20] + "\n"
    session.lines.write_text("".join(lines))
    status, _, complaint = finish(session)
    assert status == 2
    assert "session.jsonl:3: not a line of a session" in complaint


def test_where_nothing_works_the_session_says_so(pretend):
    session = pretend({})
    session.use_worker("import nothing_here")
    status, _, complaint = finish(session)
    assert status == 2
    assert "nothing can be measured on this device by" in complaint
    assert "No module named 'nothing_here'" in complaint


def test_the_command_takes_one_folder(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "the following arguments are required: BUNDLE" in capsys.readouterr().err
    assert main([str(tmp_path), "--quick"]) == 2
    said = capsys.readouterr().err
    assert "options are for a bundle; session.json has those of a session" in said


def test_outputs_are_kept_scored_and_compared(run, tmp_path):
    folder = tmp_path / "session"
    (folder / "models").mkdir(parents=True)
    (folder / "models/model.onnx").write_bytes(
        (run.root / "stages/01-prune/model.onnx").read_bytes()
    )
    x = run.test.inputs[""]
    expected = x @ run.weights[1]
    np.save(folder / "x.npy", x)
    np.save(folder / "labels.npy", expected.argmax(1)[::-1].copy())
    np.save(folder / "expected.npy", expected[:8] + 0.25)
    sha256 = run.record.rows[1].measurements[0].artifact.sha256
    session = {
        "schema": 1,
        "plan": None,
        "seed": 0,
        "threads": 1,
        "batch": 1,
        "predict": True,
        "models": [{"path": "models/model.onnx", "sha256": sha256, "name": "prune"}],
        "inputs": {"": "x.npy"},
        "labels": "labels.npy",
        "metric": "accuracy",
        "expected": ["expected.npy"],
    }
    (folder / "session.json").write_text(json.dumps(session))
    run_folder(folder)
    (found,) = read_session(folder / "session.jsonl").outputs
    np.testing.assert_allclose(np.load(found.files[0]), expected, rtol=1e-4, atol=1e-5)
    right = expected.argmax(1) == expected.argmax(1)[::-1]
    assert found.scores.tolist() == right.tolist()
    assert found.host["samples"] == 8
    assert found.host["agreement"] == 1.0
    assert found.host["max_error"] == pytest.approx(0.25, rel=1e-3)
    assert sorted(os.listdir(folder / "outputs")) == ["0.npy"]


def test_all_outputs_are_compared_and_the_worst_counts(run, tmp_path):
    folder = tmp_path / "session"
    folder.mkdir()
    x, ids = np.eye(4, dtype=np.float32), np.arange(4)[::-1].copy()
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("ArgMin", ["x"], ["ids"], axis=1)],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 1]),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), folder / "m.onnx"
    )
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", -x)
    np.save(folder / "ids.npy", x.argmin(1)[:, None] + (ids[:, None] == 0))
    session = {
        "schema": 1,
        "plan": None,
        "seed": 0,
        "threads": 1,
        "batch": 1,
        "predict": True,
        "models": [{"path": "m.onnx", "sha256": file_sha256(folder / "m.onnx"), "name": "two"}],
        "inputs": {"x": "x.npy"},
        "expected": ["y.npy"],
        "further": [["ids.npy"]],
    }
    (folder / "session.json").write_text(json.dumps(session))
    run_folder(folder)
    (found,) = read_session(folder / "session.jsonl").outputs
    worst = {"samples": 4, "agreement": 0.75, "max_error": 1.0}
    same = {"samples": 4, "agreement": 1.0, "max_error": 0.0}
    assert found.host == {**worst, "outputs": {"y": same, "ids": worst}}
    assert sorted(os.listdir(folder / "outputs")) == ["0-1.npy", "0.npy"]


def test_outputs_that_cannot_be_scored_say_why(run, tmp_path):
    outputs = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match="4 outputs and 5 labels"):
        scores(outputs, np.zeros(5, int), "accuracy")
    with pytest.raises(ValueError, match=r"have shape \(4, 3\); expected were \(2, 2\)"):
        difference(outputs, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"expected were \(0, 3\), of numbers"):
        difference(outputs, outputs[:0])
    assert difference(outputs * np.nan, outputs)["max_error"] is None
