"""OpenVINO as a second runtime: the same jobs, the same answers."""

import json
import sys

import numpy as np
import openvino
import pytest
import torch

from compress.errors import MeasurementError
from compress.measure.local import LocalTarget
from compress.measure.ondevice import machine
from compress.measure.ondevice.checks import sqnr_db
from compress.measure.ondevice.runtimes import RUNTIMES, open_model, runtime_of
from compress.measure.score import score
from compress.measure.target import BenchmarkConfig, Timing
from compress.testing.nets import NETS
from tests.covering import kept_of

OPENVINO = {"runtime": "openvino"}


@pytest.mark.parametrize("name", ["resnet", "conv1d", "attention"])
def test_both_runtimes_compute_the_same_from_a_float_file(name, artifact, answers):
    path, x = artifact(name, "float").path, NETS[name].example(8).numpy()
    expected, found = (answers(path, x, runtime) for runtime in ("onnxruntime", "openvino"))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", kept_of(NETS, ("attention", "mobilenet-v3")))
def test_both_runtimes_answer_alike_from_an_int8_file(name, artifact, answers):
    path, x = artifact(name, "int8").path, NETS[name].example(64).numpy()
    expected, found = (answers(path, x, runtime) for runtime in ("onnxruntime", "openvino"))
    decibels = sqnr_db([expected], [found])
    assert decibels is None or decibels > 25
    assert score(found, expected.argmax(1), "accuracy").mean() > 0.95


@pytest.mark.parametrize("name", ["resnet", "dscnn", "mlp"])
def test_int8_layers_run_in_int8(name, artifact):
    made = artifact(name, "int8")
    job = {"model": str(made.path), **OPENVINO}
    session = open_model(job)
    ran = runtime_of(job).ran(session, job)
    if name == "mlp" and hides_products(session):
        assert ran is None
    else:
        assert ran["int8_mac_fraction"] > made.census.int8_mac_fraction - 0.01


def hides_products(session):
    """Whether OpenVINO made one kernel of the whole net, as it does of an MLP with AVX-512."""
    kinds = {
        str(op.get_rt_info()["layerType"].get())
        for op in session.compiled.get_runtime_model().get_ops()
    }
    return kinds <= {"Input", "Const", "Subgraph", "Output"}


def test_float_layers_run_in_float(artifact):
    for name, format in (("resnet", "float"), ("mlp", "weights")):
        job = {"model": str(artifact(name, format).path), **OPENVINO}
        session = open_model(job)
        if not hides_products(session):
            assert runtime_of(job).ran(session, job) == {"int8_mac_fraction": 0.0}


def test_a_session_has_times_memory_and_what_was_executed(artifact, hasty):
    models = [artifact("resnet", format).path for format in ("float", "int8")]
    config = BenchmarkConfig({"": NETS["resnet"].example(4).numpy()}, "quick")
    base, small = LocalTarget(runtime="openvino").measure(models, config)
    for timing in (base, small):
        assert isinstance(timing, Timing)
        assert timing.latency.p50_s > 0
    if machine.machine()["system"] == "Linux":
        for memory in (base.memory, small.memory):
            assert 0 < memory.model_peak_bytes < memory.peak_rss_bytes
            assert memory.runtime_bytes > 20 * 2**20  # importing openvino alone takes more
    assert base.executed.int8_mac_fraction == 0
    assert small.executed.int8_mac_fraction > 0.9
    assert base.executed.provider_fraction is None


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_is_set_up_for_latency_in_float32_with_the_threads_it_is_given(model, threads):
    session = open_model({"model": str(model), "threads": threads, **OPENVINO})

    def setting(name):
        return session.compiled.get_property(name)

    assert setting("INFERENCE_NUM_THREADS") == threads
    assert setting("NUM_STREAMS") == 1
    assert setting("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert str(setting("PERFORMANCE_HINT")).endswith("LATENCY")


@pytest.mark.parametrize("batch", [1, 3])
def test_an_open_batch_is_fed_at_the_targets_batch(open_batch, batch):
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    (y,) = LocalTarget(runtime="openvino", batch=batch).predict(open_batch, {"": x})
    np.testing.assert_allclose(y, x @ (np.arange(12).reshape(4, 3) / 4), rtol=1e-4, atol=1e-6)


def test_inspect_tells_what_onnxruntime_tells(tokens, work):
    assert work("inspect", tokens, **OPENVINO) == work("inspect", tokens)


def test_inputs_go_by_name_whatever_their_types(tokens, work):
    # Drawn inputs: token ids and a mask.
    found = work("check", tokens, **OPENVINO)
    assert found["finite"]
    assert found["repeatable"]


def test_openvino_saturates_where_onnxruntime_does_and_the_guarded_grid_cures_both(
    adversary, work, answers
):
    module, x, files = adversary
    expected = module(torch.from_numpy(x)).detach().numpy()
    for runtime in ("onnxruntime", "openvino"):
        guarded = answers(files["guarded"], x, runtime)
        assert sqnr_db([expected], [guarded]) > 40
    plain = [answers(files["plain"], x, runtime) for runtime in ("onnxruntime", "openvino")]
    lost = [sqnr_db([expected], [found]) < 30 for found in plain]
    assert lost[0] == lost[1]


def test_check_finds_saturation_in_openvino_too(adversary, answers, work, tmp_path):
    module, x, files = adversary
    np.save(tmp_path / "x.npy", x)
    job = {"inputs": {"": str(tmp_path / "x.npy")}, **OPENVINO}
    expected = module(torch.from_numpy(x)).detach().numpy()
    saturates = sqnr_db([expected], [answers(files["plain"], x, "openvino")]) < 30
    found = {name: work("check", path, **job)["saturation_sqnr_db"] for name, path in files.items()}
    assert found["guarded"] is None
    assert (found["plain"] is not None) == saturates


def test_a_damaged_file_is_an_answer_in_openvinos_words(folder, work):
    path = folder / "broken.onnx"
    path.write_bytes(b"\x08\x07 no model")
    assert work("inspect", path, **OPENVINO)["error"]
    with pytest.raises(MeasurementError, match=r"broken\.onnx: "):
        LocalTarget(runtime="openvino").predict(path, {"": np.zeros((1, 4), np.float32)})


def test_without_openvino_the_error_names_what_to_install(monkeypatch, model, work):
    monkeypatch.setitem(sys.modules, "openvino", None)
    said = work("inspect", model, **OPENVINO)["error"]
    assert "the runtime openvino is not here" in said
    assert "pip install 'compresskit[openvino]'" in said


def test_an_unknown_runtime_is_answered_with_the_known_ones(model, work):
    said = work("inspect", model, runtime="abacus")["error"]
    *most, last = RUNTIMES
    assert said == f"the runtime is 'abacus'; known are {', '.join(most)} and {last}."
    assert {"onnxruntime", "openvino"} <= {*most, last}


def test_operators_are_timed_by_onnxruntime_only(model, work):
    plan = {"window_s": 0.001, "warmup_cap_s": 0.01, "sample_s": 0.01, "least": 1, "cap_s": 0.1}
    said = work("profile", model, **plan, **OPENVINO)["error"]
    assert "operators are timed by onnxruntime's profiler" in said


def test_two_runtimes_are_two_devices():
    ort, ov = (LocalTarget(runtime=r).environment() for r in ("onnxruntime", "openvino"))
    assert ort["device_id"] != ov["device_id"]
    assert ov["device"]["openvino"] == openvino.__version__
    assert "onnxruntime" not in ov["device"]
    assert "float32 where not int8" in ov["state"]["session"]
    assert json.loads(json.dumps(ov)) == ov
