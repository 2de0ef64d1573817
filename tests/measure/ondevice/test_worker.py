"""The worker's jobs, on models with every shape of input."""

import itertools
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from compress.measure.machine import saturates
from compress.measure.ondevice import checks, machine, worker
from compress.measure.ondevice.checks import sqnr_db
from compress.measure.ondevice.inputs import GivenInputs, rotation_of
from compress.measure.ondevice.memory import TRIVIAL_MODEL
from compress.measure.ondevice.timing import warm_up, windows_agree
from compress.measure.process import WORKER

QUICK = {"window_s": 0.002, "warmup_cap_s": 0.02, "sample_s": 0.01, "least": 5, "cap_s": 0.1}


def work(kind, model, **settings):
    """In this process: jobs that do not touch process-wide state."""
    return worker.answer(json.dumps({"kind": kind, "model": str(model), **settings}))


@pytest.fixture
def save(tmp_path):
    def saved(**arrays):
        paths = {}
        for name, array in arrays.items():
            paths[name] = str(tmp_path / f"{name}.npy")
            np.save(paths[name], array)
        return {("" if name == "only" else name): path for name, path in paths.items()}

    return saved


@pytest.fixture
def predict(tmp_path, save):
    """Outputs of a model, and the whole answer, through the ``predict`` job."""

    def run(model, batch=1, **arrays):
        job = {"inputs": save(**arrays), "folder": str(tmp_path), "batch": batch}
        answer = work("predict", model, **job)
        if "error" in answer:
            return answer["error"]
        return [np.load(path) for path in answer["outputs"]], answer

    return run


def rows(n, width=4):
    return np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)


def expected(x):
    return x @ (np.arange(12, dtype=np.float32).reshape(4, 3) / 4)


@pytest.mark.parametrize("samples", [1, 3, 4, 10])
def test_predict_keeps_order_and_cuts_the_padding(predict, one, four, any_batch, samples):
    x = rows(samples)
    for model, batch in ((one, 1), (four, 4), (any_batch, 3)):
        (y,), answer = predict(model, batch=3, only=x)
        assert answer["batch"] == batch
        np.testing.assert_allclose(y, expected(x), rtol=1e-5)


def test_predict_takes_inputs_by_name_and_ignores_others(predict, two_inputs):
    ids, mask = np.array([[0, 7, 3]] * 5), np.ones((5, 3), np.float32)
    (whole,), _ = predict(two_inputs, batch=2, ids=ids, mask=mask, unused=np.ones(5))
    (none,), _ = predict(two_inputs, batch=2, ids=ids, mask=0 * mask)
    assert whole.shape == (5, 5)
    assert np.ptp(whole, axis=0).max() == 0
    assert not np.array_equal(whole, none)
    assert (none == 0).all()


@pytest.mark.parametrize("shape", [[], [3], [2, 2]])
def test_predict_feeds_a_model_without_a_batch_axis_one_sample_at_a_time(predict, build, shape):
    x = rows(6, int(np.prod(shape))).reshape(6, *shape)
    (y,), answer = predict(build("Neg", shape), batch=4, only=x)
    assert answer["batch"] == 1
    np.testing.assert_array_equal(y, -x)


@pytest.mark.parametrize(
    ("elem_type", "dtype"),
    [
        (TensorProto.INT64, np.int64),
        (TensorProto.INT32, np.int64),  # a narrower integer is the same kind
        (TensorProto.FLOAT16, np.float32),
        (TensorProto.DOUBLE, np.float32),
    ],
)
def test_predict_casts_within_a_kind(predict, build, elem_type, dtype):
    x = np.array([[1], [-2]], dtype)
    (y,), _ = predict(build("Neg", ["n", 1], elem_type), only=x)
    np.testing.assert_array_equal(y, -x)
    assert y.dtype == onnx.helper.tensor_dtype_to_np_dtype(elem_type)


def test_predict_feeds_booleans_and_strings(predict, build):
    flags = np.array([[True], [False]])
    (y,), _ = predict(build("Not", ["n", 1], TensorProto.BOOL), only=flags)
    np.testing.assert_array_equal(y, ~flags)
    words = np.array([["a"], ["b"]])
    error = predict(build("Identity", ["n", 1], TensorProto.STRING), only=words)
    assert "the output 'y' holds strings; only numbers can be scored" in error


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": rows(2)}, "the model's input 'x' was not given; given are ['z']"),
        ({"only": rows(2).astype(np.complex64)}, "the input 'x' takes float32; got complex64"),
        ({"only": rows(2, 8).reshape(2, 2, 2, 2)}, "takes [1, 4]; got samples (2, 2, 2, 2)"),
        ({"only": rows(2, 5)}, "Got: 5 Expected: 4"),  # onnxruntime's own words
        ({"only": rows(0)}, "at least one"),
    ],
)
def test_predict_says_what_is_wrong_with_the_inputs(predict, one, arrays, said):
    assert said in predict(one, **arrays)


def test_inputs_of_different_lengths_are_refused(predict, two_inputs):
    error = predict(two_inputs, ids=np.zeros((3, 2), np.int64), mask=np.ones((2, 2), np.float32))
    assert "the same number of samples" in error
    assert "'ids': 3" in error


def test_an_output_without_the_batch_is_refused(predict, total):
    error = predict(total, only=rows(3))
    assert "its first axis should be the 1 samples of the batch" in error


def test_inspect_tells_names_types_and_open_sizes(two_inputs):
    assert work("inspect", two_inputs) == {
        "inputs": [
            {"name": "ids", "type": "tensor(int64)", "shape": [None, None]},
            {"name": "mask", "type": "tensor(float)", "shape": [None, None]},
        ],
        "outputs": [{"name": "y", "type": "tensor(float)", "shape": [None, 5]}],
    }


@pytest.mark.parametrize("name", ["one", "four", "any_batch", "two_inputs", "saturating"])
def test_drawn_inputs_run_on_every_model(request, name):
    model = str(request.getfixturevalue(name))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batch, rotation = rotation_of(session, {"model": model, "batch": 2, "seed": 3})
    assert len(rotation) == 8
    for feed in rotation:
        assert len(session.run(None, feed)[0]) == batch


def test_drawn_inputs_follow_the_seed(one):
    session = onnxruntime.InferenceSession(str(one), providers=["CPUExecutionProvider"])
    first, again, other = (rotation_of(session, {"seed": s})[1] for s in (1, 1, 2))
    np.testing.assert_array_equal(first[0]["x"], again[0]["x"])
    assert not np.array_equal(first[0]["x"], other[0]["x"])


def test_the_rotation_spreads_over_the_samples(save, any_batch):
    session = onnxruntime.InferenceSession(str(any_batch), providers=["CPUExecutionProvider"])
    x = np.repeat(np.arange(80, dtype=np.float32)[:, None], 4, axis=1)
    feeds = GivenInputs(session, {"inputs": save(only=x), "batch": 2}).rotation(8)
    assert [feed["x"][:, 0].tolist() for feed in feeds] == [[i, i + 1] for i in range(0, 80, 10)]


def test_check_finds_saturation_only_where_the_cpu_saturates(save, saturating, one):
    x = np.abs(rows(8, 64)) + 1
    found = work("check", saturating, inputs=save(only=x))["saturation_sqnr_db"]
    facts = machine.machine()
    expected = saturates(arch=facts["arch"], system=facts["system"], flags=machine.cpu_flags())
    assert (found is not None and found < 40) == expected
    plain = work("check", one)
    assert plain["saturation_sqnr_db"] is None
    assert plain["repeatable"]
    assert plain["finite"]
    assert plain["denormal_ratio"] > 0


def test_check_does_without_the_exact_session_where_it_cannot_be_opened(one, monkeypatch):
    usual = checks.open_model

    def refuse(job, *variant):
        if "exact" in variant:
            raise RuntimeError("AddInitializedOrtValue Attempt to replace the existing tensor")
        return usual(job, *variant)

    monkeypatch.setattr(checks, "open_model", refuse)
    found = checks.check({"model": str(one), "inputs": {}, "seed": 0, "batch": 1})
    assert found["saturation_sqnr_db"] is None
    assert found["finite"]


def test_sqnr_is_in_decibel_and_none_for_equal_outputs():
    signal = [np.full(10, 100.0)]
    assert sqnr_db(signal, [np.full(10, 101.0)]) == pytest.approx(40)
    assert sqnr_db(signal, signal) is None


@pytest.mark.parametrize(
    ("earlier", "later", "steady"),
    [
        ([100] * 10, [101] * 10, True),
        ([100] * 10, [103] * 10, False),
        ([100] * 10, [100] * 7 + [200] * 3, False),  # the median agrees, the upper quartile not
    ],
)
def test_windows_agree_by_their_quartiles(earlier, later, steady):
    assert windows_agree(earlier, later) == steady


def test_warm_up_gives_up_at_its_cap_and_says_so():
    growing = itertools.count(1)
    trace, steady = warm_up(lambda: next(growing) ** 3, 0.001, 0.02)
    assert not steady
    assert trace


def fresh(job, *arguments):
    command = [sys.executable, "-I", str(WORKER), *arguments]
    done = subprocess.run(command, input=job, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_time_returns_samples_of_grouped_short_runs(one):
    job = {"kind": "time", "model": str(one), **QUICK}
    code, text = fresh(json.dumps(job))
    result = json.loads(text)
    assert code == 0
    assert len(result["samples_ns"]) >= 5
    assert all(ns > 0 for ns in result["samples_ns"] + result["warmup_ns"] + result["probe_ns"])
    # A product of 4 by 3 takes microseconds: several are timed together.
    assert result["runs_per_sample"] > 1
    assert result["batch"] == 1
    assert result["finite"]
    assert result["first_run_ns"] > 0
    assert result["cpu_ns"] > 0
    assert result["onnxruntime"] == onnxruntime.__version__


def test_time_keeps_the_grouping_that_it_is_given_and_reads_a_job_file(tmp_path, wide):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"kind": "time", "model": str(wide), "runs_per_sample": 3, **QUICK}))
    assert json.loads(fresh("", str(file))[1])["runs_per_sample"] == 3


def test_time_notices_outputs_that_are_not_finite(save, build):
    x = -np.ones((2, 1), np.float32)
    job = {"kind": "time", "model": str(build("Log", ["n", 1])), "inputs": save(only=x), **QUICK}
    assert json.loads(fresh(json.dumps(job))[1])["finite"] is False


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ('{"kind": "sing"}', "the job's kind is 'sing'; known are time, memory"),
        ("not json", "JSONDecodeError"),
        ('{"kind": "inspect", "model": "nowhere.onnx"}', "there is no such file"),
    ],
)
def test_a_wrong_job_is_an_answer_not_a_crash(job, said):
    code, text = fresh(job)
    assert code == 0
    assert said in json.loads(text)["error"]


def test_a_damaged_model_is_an_answer_that_says_so(truncated):
    assert "the file is cut off" in work("inspect", truncated)["error"]


def test_an_input_type_that_numpy_lacks_is_named(build):
    model = build("Identity", ["n", 1], TensorProto.BFLOAT16)
    assert work("check", model)["error"] == (
        "the input 'x' has type tensor(bfloat16), which numpy cannot hold; a Cast from float32 "
        "before it would do."
    )


def test_the_trivial_model_is_a_valid_identity():
    model = onnx.load_from_string(TRIVIAL_MODEL)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_machine_facts_are_plain_data():
    facts = machine.machine()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"]
    assert 1 <= machine.cpu_count() <= facts["cores"]


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, float("inf")),
        ({"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_container_quotas_are_read_in_both_versions(tmp_path, files, limit):
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert machine.cpu_quota(tmp_path) == limit
