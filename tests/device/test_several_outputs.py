"""Models with several outputs on a device: one is scored, and all are compared with the host's."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.artifact import file_sha256
from compress.device.bundle import Samples, write_bundle
from compress.device.merge import merge
from compress.device.result import load_result
from compress.errors import DataError
from compress.measure.ondevice.bundle import unpack
from compress.measure.ondevice.program import measure_bundle
from compress.measure.ondevice.scoring import differences
from compress.measure.ondevice.session import checked_session

from .rebuilding import classes_of


def two_outputs(path, seed):
    """x (1, 4) -> boxes (1, 2), scores (1, 3)."""
    draws = np.random.default_rng(seed)
    weights = [draws.standard_normal((4, n)).astype(np.float32) for n in (2, 3)]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["boxes"]),
            helper.make_node("MatMul", ["x", "b"], ["scores"]),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 2]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3]),
        ],
        [numpy_helper.from_array(w, name) for w, name in zip(weights, "ab", strict=True)],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return weights


@pytest.fixture
def several(make_run, tmp_path, tiny_plan, monkeypatch):
    """A run of models with two outputs."""
    plans = dict.fromkeys(("quick", "default", "strict"), tiny_plan)
    monkeypatch.setattr("compress.device.bundle.PLANS", plans)
    run = make_run(tmp_path / "run")
    weights = []
    for seed, row in enumerate(run.record.rows):
        facts = row.measurements[0].artifact
        path = run.root / facts.path
        weights.append(two_outputs(path, seed))
        facts.sha256, facts.bytes = file_sha256(path), path.stat().st_size
        facts.outputs = ["boxes", "scores"]
    run.record.task.metric = "accuracy(scores)"
    run.record.save(run.root)
    x = run.test.inputs[""]
    labels = (x @ weights[0][1]).argmax(1)
    test = Samples(run.test.inputs, labels, "accuracy", classes_of, "scores")
    return SimpleNamespace(**{**vars(run), "weights": weights, "test": test, "x": x})


def bundled(several, tmp_path, test=None):
    write_bundle(several.record, several.root, tmp_path / "b.zip", test or several.test)
    return unpack(tmp_path / "b.zip", tmp_path / "there")[0]["session"]


def test_a_bundle_says_which_output_is_scored_and_holds_what_each_should_be(several, tmp_path):
    session = bundled(several, tmp_path)
    assert [model["output"] for model in session["models"]] == [1, 1]
    assert session["expected"] == ["expected/0.npy", "expected/1.npy"]
    assert session["further"] == [["expected/0-1.npy"], ["expected/1-1.npy"]]
    for place, weights in enumerate(several.weights[0]):
        path = tmp_path / "there" / [session["expected"][0], *session["further"][0]][place]
        np.testing.assert_allclose(np.load(path), several.x @ weights, rtol=1e-4, atol=1e-5)


def test_without_labels_they_are_of_the_output_that_is_scored(several, tmp_path):
    test = Samples(several.test.inputs, None, "accuracy", classes_of, "scores")
    session = bundled(several, tmp_path, test)
    labels = np.load(tmp_path / "there" / session["labels"])
    assert labels.tolist() == (several.x @ several.weights[0][1]).argmax(1).tolist()


def test_a_bundle_measured_on_a_device_merges(several, tmp_path):
    bundled(several, tmp_path)
    result, _ = measure_bundle(tmp_path / "b.zip", tmp_path / "r.json", "quick", None)
    first, second = (line for line in result["lines"] if line["kind"] == "outputs")
    assert first["names"] == ["boxes", "scores"]
    assert np.mean(first["scores"]) == 1
    own, labels = several.x @ several.weights[1][1], several.test.labels
    assert np.mean(second["scores"]) == pytest.approx((own.argmax(1) == labels).mean())
    assert set(first["host"]["outputs"]) == {"boxes", "scores"}
    assert first["host"]["agreement"] == 1
    assert first["host"]["max_error"] < 1e-4
    load_result(tmp_path / "r.json")
    merge(several.record, several.root, tmp_path / "r.json", name="pi")
    found = several.record.rows[1].on("pi")
    assert found.accuracy.value == pytest.approx((own.argmax(1) == labels).mean())
    assert found.artifact.outputs == ["boxes", "scores"]


def test_a_run_without_that_output_is_refused(several, tmp_path):
    test = Samples(several.test.inputs, several.test.labels, "accuracy", classes_of, "mask")
    message = r"scored by their output 'mask', and one has boxes, scores; run the recipe again\.$"
    with pytest.raises(DataError, match=message):
        bundled(several, tmp_path, test)


def test_the_difference_is_that_of_the_worst_output():
    a, b = np.eye(3, dtype=np.float32), np.ones((3, 1), np.float32)
    found = differences(["a", "b"], [a, b + 1], [a[::-1], b])
    assert found["outputs"]["a"]["agreement"] == pytest.approx(1 / 3)
    assert found["outputs"]["b"] == {"samples": 3, "agreement": None, "max_error": 1.0}
    assert (found["agreement"], found["max_error"]) == (pytest.approx(1 / 3), 1.0)
    assert differences(["a", "b"], [a, b * np.nan], [a, b])["max_error"] is None
    alone = differences(["a", "b"], [a, b], [a])
    assert alone == {"samples": 3, "agreement": 1.0, "max_error": 0.0}
    with pytest.raises(ValueError, match=r"^it has 1 output\(s\), and 2 were expected\.$"):
        differences(["a"], [a], [a, b])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": -1}, "each model's output must be a place from 0; got -1"),
        ({"output": "scores"}, "each model's output must be a place from 0; got 'scores'"),
    ],
)
def test_a_wrong_place_is_refused(changes, said):
    model = {"path": "m.onnx", "sha256": "0", "name": "a", **changes}
    session = {"models": [model], "inputs": {}, "threads": 1, "batch": 1, "plan": None}
    with pytest.raises(ValueError, match=said):
        checked_session(session)


def test_a_path_of_a_further_output_stays_inside():
    model = {"path": "m.onnx", "sha256": "0", "name": "a"}
    session = {"models": [model], "inputs": {}, "threads": 1, "batch": 1, "plan": None}
    with pytest.raises(ValueError, match=r"the path '\.\./b\.npy' leads out of the folder"):
        checked_session({**session, "expected": ["expected/0.npy"], "further": [["../b.npy"]]})
    with pytest.raises(ValueError, match=r"further must have a list for each entry of expected"):
        checked_session({**session, "expected": ["expected/0.npy"], "further": ["../b.npy"]})


def test_whole_numbers_agree_where_they_are_equal():
    kept = np.array([[1, 2], [3, 4]])
    assert differences(["kept"], [kept], [np.array([[1, 3], [3, 5]])])["agreement"] == 0.5


def test_a_place_that_a_model_does_not_have_is_a_line(several, tmp_path):
    from compress.measure.ondevice.session import run_folder

    session = bundled(several, tmp_path)
    session["models"][1]["output"] = 2
    (tmp_path / "there/session.json").write_text(json.dumps({**session, "plan": None}))
    run_folder(tmp_path / "there")
    lines = [json.loads(x) for x in (tmp_path / "there/session.jsonl").read_text().splitlines()]
    _, second = (line for line in lines if line["kind"] == "outputs")
    assert second["error"] == "01-prune: it has 2 output(s), and none at place 2."
