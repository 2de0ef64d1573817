"""A session written for a device and read back: the loop and the statistics are the local ones."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from compress.artifact import file_sha256
from compress.errors import MeasurementError, StorageError
from compress.measure.ondevice import session
from compress.measure.ondevice.plan import checked_plan
from compress.measure.ondevice.session import checked_session
from compress.measure.raw_samples import RawLog
from compress.measure.replay import ReplayTarget
from compress.measure.rounds import Device, run_session
from compress.measure.session import few_samples, read_session, write_session
from compress.measure.target import BenchmarkConfig, Failure

pytestmark = pytest.mark.fast

FACTS = {
    **dict.fromkeys(("arch", "system", "kernel", "cpu", "board", "boost", "python", "build"), "x"),
    **dict.fromkeys(("isa", "max_khz", "governor", "mains_power", "providers"), ()),
    "cores": 2,
    "memory_gib": 1.0,
    "onnxruntime": "1",
    "affinity": [0, 1],
    "cpu_limit": None,
}
MODELS = ["a", "b", "c"]


@pytest.fixture
def noisy():
    """A replayed session's lines, as a device writes them, and the timings found on this side."""

    def make(mode="quick", errors=None):
        target = ReplayTarget(
            latency_s={"a": 2e-3, "b": 1e-3, "c": 1.9e-3},
            model_peak_bytes=dict.fromkeys(MODELS, 1000),
            errors=errors or {},
        )
        draws = np.random.default_rng(4)
        lines = []

        def call(kind, model, _):
            return target.answer(kind, model, float(draws.standard_normal()))

        class Log(RawLog):
            def write(self, line):
                lines.append(json.loads(json.dumps(line)))

        target = ReplayTarget(**{**vars(target), "noise": 0.02})
        device, config = (
            Device(call, threads=1, batch=1, cores=2),
            BenchmarkConfig({}, mode, seed=5),
        )
        timings = run_session([Path(m) for m in MODELS], config, device, Log(None))
        models = [{"path": m, "sha256": m, "name": m} for m in MODELS]
        plan = json.loads(json.dumps(vars(checked_plan(vars(plans()[mode])))))
        session = {
            "schema": 1,
            "models": models,
            "inputs": {},
            "plan": plan,
            "seed": 5,
            "threads": 1,
            "batch": 1,
        }
        header = {"kind": "session", "schema": 1, "session": session}
        whole = [header, {"kind": "environment", **FACTS}, *lines, {"kind": "end"}]
        return whole, timings

    return make


def plans():
    from compress.measure.modes import PLANS

    return PLANS


@pytest.mark.parametrize("errors", [{}, {"b": "no."}, {"a": "no."}])
@pytest.mark.parametrize("mode", ["quick", "default"])
def test_lines_read_back_give_what_the_session_gave(noisy, mode, errors):
    lines, timings = noisy(mode, errors)
    result = read_session(lines)
    assert result.timings == timings
    assert result.environment["state"]["threads"] == 1
    assert result.environment["device_id"]


def test_a_result_of_no_models_with_failures_only(noisy):
    lines, timings = noisy("quick", dict.fromkeys(MODELS, "no."))
    assert read_session(lines).timings == timings == [Failure(f"{m}: no.") for m in MODELS]


def test_names_in_sentences_are_those_given(noisy):
    lines, _ = noisy("quick", {"a": "no."})
    assert (
        "speed-ups are against row 1"
        in read_session(lines, ["row 0", "row 1", "row 2"]).timings[1].warnings[0]
    )


def last(lines, kind):
    return max(i for i, line in enumerate(lines) if line["kind"] == kind)


def change(kind, **fields):
    def changed(lines):
        place = last(lines, kind)
        return [*lines[:place], {**lines[place], **fields}, *lines[place + 1 :]]

    return changed


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: lines[:-1], "its lines end before the one with kind 'end'"),
        (lambda lines: lines[:6], "its lines end before the one with kind"),
        (lambda lines: lines[1:], "expected a line with kind 'session'; got kind 'environment'"),
        (lambda lines: [], "its lines end before the one with kind 'session'"),
        (lambda lines: [*lines[:4], *lines[5:]], "expected a line with kind"),
        (change("time", samples_ns=[]), "no median for empty data"),
        (change("time", samples_ns=["much"]), "not str|could not convert|unsupported"),
        (change("time", samples_ns=[-5.0]), "math domain error|positive"),
        (change("time", runs_per_sample=0), "division"),
        (change("time", index=7), "got kind 'time', index 7"),
        (change("memory", load_peak_bytes=None), "int\\(\\) argument"),
        (change("environment", affinity=None), "has no len"),
        (change("session", session={"schema": 1}), "'threads'"),
        (change("session", session=None), "not a mapping"),
    ],
)
def test_lines_that_are_no_session_are_refused(noisy, spoil, said):
    lines, _ = noisy()
    with pytest.raises(MeasurementError, match=f"not the lines of a whole session: .*({said})"):
        read_session(spoil(lines))


def test_another_number_of_models_is_refused(noisy):
    with pytest.raises(MeasurementError, match="it is about 3 models, not 1"):
        read_session(noisy()[0], ["a"])


def test_a_session_is_laid_out_for_the_driver(run, tmp_path):
    folder = tmp_path / "session"
    models = [run.root / row.measurements[0].artifact.path for row in run.record.rows]
    config = BenchmarkConfig({"": np.zeros((500, 4), np.float32)}, "strict", 11)
    write_session(folder, models, config, threads=2, batch=3)
    session, plan = checked_session(json.loads((folder / "session.json").read_text()))
    assert plan == plans()["strict"]
    assert (session["seed"], session["threads"], session["batch"]) == (11, 2, 3)
    assert session["predict"] is False
    for model, entry in zip(models, session["models"], strict=True):
        assert entry["name"] == str(model)
        assert file_sha256(folder / entry["path"]) == entry["sha256"] == file_sha256(model)
    assert np.load(folder / session["inputs"][""]).shape == (64, 4)


def test_outputs_are_asked_for_of_all_samples(run, tmp_path):
    x = np.zeros((500, 4), np.float32)
    model = run.root / "stages/00-input/model.onnx"
    write_session(tmp_path, [model], None, threads=1, batch=1, inputs_for_predict={"": x})
    session = json.loads((tmp_path / "session.json").read_text())
    assert (session["plan"], session["predict"]) == (None, True)
    assert np.load(tmp_path / session["inputs"][""]).shape == (500, 4)


def test_external_data_travels_with_its_model(run, tmp_path):
    model = tmp_path / "big.onnx"
    model.write_bytes(b"graph")
    (tmp_path / "big.onnx.data").write_bytes(b"weights")
    write_session(tmp_path / "session", [model], None, threads=1, batch=1)
    assert (tmp_path / "session/models/0/big.onnx.data").read_bytes() == b"weights"
    entry = json.loads((tmp_path / "session/session.json").read_text())["models"][0]
    session.check_model(tmp_path / "session", entry)


def test_a_model_that_is_missing_is_refused(tmp_path):
    with pytest.raises(MeasurementError, match=r"gone\.onnx: there is no such file"):
        write_session(tmp_path / "s", [tmp_path / "gone.onnx"], None, threads=1, batch=1)


def test_a_disk_that_refuses_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=re.escape("the session could not be written")):
        write_session(tmp_path / "file" / "s", [], None, threads=1, batch=1)


def test_samples_to_time_with_are_spread_over_the_data():
    few = few_samples({"x": np.arange(1000), "y": np.arange(10)}, batch=16)
    assert (len(few["x"]), few["x"][0], few["x"][-1], len(few["y"])) == (128, 0, 999, 10)
