"""Inputs drawn to a model's signature: their sizes, their values, and what is told of them."""

import json

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from compress.measure.ondevice import drawn_inputs, predictions, worker
from compress.measure.ondevice.drawn_inputs import DrawnInputs


def session_of(model):
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def draws(model, **job):
    return DrawnInputs(session_of(model), job)


def fit(model, **job):
    return worker.answer(json.dumps({"kind": "fit", "model": str(model), **job}))


def on_disk(folder, array):
    np.save(folder / "value.npy", array)
    return str(folder / "value.npy")


DECLARED = {  # inputs as a file has them, the job, sizes, axes that are guessed
    "as the file says, whatever comes first": (
        {"x": [1, 16], "h": [2, 1, 8]}, {"batch": 4},
        {"x": [1, 16], "h": [2, 1, 8]}, {},
    ),
    "a vector and a scalar": (
        {"a": [3], "b": [2, 2], "c": []}, {},
        {"a": [3], "b": [2, 2], "c": []}, {},
    ),
    "nothing": ({"x": [0, 4]}, {}, {"x": [0, 4]}, {}),
    "one name is one size": (
        {"x": ["batch", "t"], "h": [2, "batch", 8]}, {"batch": 4},
        {"x": [4, 16], "h": [2, 4, 8]}, {"x": [1]},
    ),
    "also of a later input": (
        {"h": [2, "n", 8], "x": ["n", 5]}, {"batch": 3},
        {"h": [2, 3, 8], "x": [3, 5]}, {},
    ),
    "told of another input": (
        {"a": ["n", "t"], "b": ["t", 2]}, {"shapes": {"b": [7, 2]}},
        {"a": [1, 7], "b": [7, 2]}, {},
    ),
    "told of axes": (
        {"a": ["n", "t"], "b": ["t", 2]}, {"shapes": {"t": [7], "n": [5]}},
        {"a": [5, 7], "b": [7, 2]}, {},
    ),
    "a sum of names": (
        {"mask": ["n", "past + 1"], "k": ["n", 2, "past", 8]}, {"shapes": {"past": [6]}},
        {"mask": [1, 7], "k": [1, 2, 6, 8]}, {},
    ),
    "a sum of products": (
        {"k": ["2*n + t", 3], "x": ["n", "t"]}, {"batch": 2, "shapes": {"t": [4]}},
        {"k": [8, 3], "x": [2, 4]}, {},
    ),
    "a sum of unknown names": ({"x": ["n", "a+b"]}, {}, {"x": [1, 16]}, {"x": [1]}),
    "called a batch": (
        {"x": ["time", "batch_size", 4]}, {"batch": 2},
        {"x": [16, 2, 4]}, {"x": [0]},
    ),
    "first": ({"x": ["T", "N", 4]}, {"batch": 2}, {"x": [2, 16, 4]}, {"x": [1]}),
    "layers before the batch": (
        {"x": [None, None], "h": [2, None, 8]}, {"batch": 2},
        {"x": [2, 16], "h": [2, 2, 8]}, {"x": [1]},
    ),
    "no batch left open": ({"x": [1, None]}, {"batch": 2}, {"x": [1, 16]}, {"x": [1]}),
    "no names": (
        {"x": ["?", "?"], "h": [2, "?", 8]}, {"batch": 2},
        {"x": [2, 16], "h": [2, 2, 8]}, {"x": [1]},
    ),
    "an image": ({"x": ["n", 3, "h", "w"]}, {}, {"x": [1, 3, 224, 224]}, {"x": [2, 3]}),
    "a line of text": ({"x": ["n", 3, 48, "w"]}, {}, {"x": [1, 3, 48, 224]}, {"x": [3]}),
    "channels last": ({"x": ["n", "h", "w", 3]}, {}, {"x": [1, 224, 224, 3]}, {"x": [1, 2]}),
    "all open": ({"x": ["n", "c", "h", "w"]}, {}, {"x": [1, 3, 224, 224]}, {"x": [1, 2, 3]}),
    "features": ({"x": ["n", 64, "h", "w"]}, {}, {"x": [1, 64, 224, 224]}, {"x": [2, 3]}),
    "keys of a cache": ({"k": ["n", 8, "past", 64]}, {}, {"k": [1, 8, 16, 64]}, {"k": [2]}),
}  # fmt: skip


@pytest.mark.parametrize(("declared", "job", "shapes", "guessed"), DECLARED.values(), ids=DECLARED)
def test_sizes_are_told_declared_shared_or_guessed_in_this_order(
    summing, declared, job, shapes, guessed
):
    found = draws(summing(**declared), **job)
    assert found.shapes == shapes
    assert found.guessed == guessed
    (feed,) = found.rotation(1)
    assert {name: list(array.shape) for name, array in feed.items()} == shapes


@pytest.mark.parametrize(
    ("declared", "batch", "expected"),
    [
        ({"x": ["n", 4]}, 3, 3),
        ({"x": [4, 16], "h": [2, 4, 8]}, 1, 4),
        ({"x": [1, 16], "h": [2, 1, 8]}, 4, 1),
        ({"x": [5, 16], "h": [2, 1, 8]}, 4, 1),
        ({"x": [7]}, 4, 1),
        ({"x": []}, 4, 1),
    ],
)
def test_the_batch_is_an_axis_of_every_input_or_one(summing, declared, batch, expected):
    assert draws(summing(**declared), batch=batch).batch == expected


@pytest.mark.parametrize(
    ("elem_type", "shape", "low", "high"),
    [
        (TensorProto.INT64, [], 1, 1),
        (TensorProto.INT64, [3], 1, 1),
        (TensorProto.FLOAT, [], 1, 1),
        (TensorProto.FLOAT, [4], 1, 1),
        (TensorProto.INT64, [64], 0, 1),
        (TensorProto.INT32, [8, 8], 0, 1),
        (TensorProto.DOUBLE, [64], -6, 6),
    ],
)
def test_scalars_and_short_vectors_are_ones_since_they_may_be_shapes(
    summing, elem_type, shape, low, high
):
    feeds = draws(summing(elem_type, x=shape)).rotation(8)
    values = np.stack([feed["x"] for feed in feeds])
    assert values.dtype == helper.tensor_dtype_to_np_dtype(elem_type)
    assert low <= values.min() <= values.max() <= high
    if low != high:
        assert len(np.unique(values)) > 1


def test_whole_inputs_are_fed_as_they_are_and_tell_sizes(summing, tmp_path):
    model = summing(x=["n", "t"], h=[2, "n", 3])
    value = np.arange(10).reshape(2, 5) / 2
    found = draws(model, values={"x": on_disk(tmp_path, value), "z": "nowhere.npy"})
    assert found.shapes == {"x": [2, 5], "h": [2, 2, 3]}
    assert found.guessed == {}
    feeds = found.rotation(8)
    assert all(np.array_equal(feed["x"], value) for feed in feeds)
    assert feeds[0]["x"].dtype == np.float32
    assert not np.array_equal(feeds[0]["h"], feeds[1]["h"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((2, 3)), "the input 'x' takes [n, 4]; got 2x3."),
        (np.zeros((1, 1, 4)), "the input 'x' takes [n, 4]; got 1x1x4."),
        (np.array(1.0), "the input 'x' takes [n, 4]; got a scalar."),
        (np.zeros((1, 4), np.complex64), "the input 'x' takes float32; got complex64."),
        (np.array([["a"] * 4]), "the input 'x' takes float32; got <U1."),
    ],
)
def test_whole_inputs_that_do_not_fit_are_refused(summing, tmp_path, value, said):
    model = summing(x=["n", 4])
    assert fit(model, values={"x": on_disk(tmp_path, value)}) == {"error": said}


def test_strings_are_given_as_strings(build, tmp_path):
    model = build("Identity", ["n", 2], TensorProto.STRING)
    found = draws(model, values={"x": on_disk(tmp_path, np.array([["a", "b"]]))})
    (feed,) = found.rotation(1)
    assert feed["x"].tolist() == [["a", "b"]]
    answer = fit(model, values={"x": on_disk(tmp_path, np.zeros((1, 2)))})
    assert answer == {"error": "the input 'x' takes strings; got float64."}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([2, 5], "the input 'x' takes [?, 4]; got 2x5."),
        ([4], "the input 'x' takes [?, 4]; got 4."),
        ([1, 1, 4], "the input 'x' takes [?, 4]; got 1x1x4."),
    ],
)
def test_sizes_that_do_not_fit_are_refused(summing, shape, said):
    assert fit(summing(x=[None, 4]), shapes={"x": shape}) == {"error": said}


def test_inputs_that_take_much_memory_are_drawn_fewer_times(summing, monkeypatch):
    model = summing(x=[1, 1000])
    assert len(draws(model).rotation(8)) == 8
    monkeypatch.setattr(drawn_inputs, "FEEDS_BYTES", 8000)
    assert len(draws(model).rotation(8)) == 2
    monkeypatch.setattr(drawn_inputs, "FEEDS_BYTES", 1)
    assert len(draws(model).rotation(8)) == 1


def optional(folder):
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    graph = helper.make_graph(
        [helper.make_node("OptionalHasElement", ["x"], ["y"])],
        "optional",
        [helper.make_value_info("x", helper.make_optional_type_proto(inner))],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [])],
    )
    path = folder / "optional.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_optional_inputs_are_left_out_unless_they_are_told_of(tmp_path):
    model = optional(tmp_path)
    session = session_of(model)
    given = on_disk(tmp_path, np.zeros(2, np.float32))
    for job, there in (
        ({}, False),
        ({"shapes": {"x": [2]}}, True),
        ({"values": {"x": given}}, True),
    ):
        found = DrawnInputs(session, job)
        assert list(found.shapes) == (["x"] if there else [])
        assert session.run(None, found.rotation(1)[0]) == [there]


def test_a_model_without_inputs_is_fed_nothing(tmp_path):
    node = helper.make_node("Constant", [], ["y"], value_float=1.0)
    graph = helper.make_graph(
        [node], "constant", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]
    )
    path = tmp_path / "constant.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    found = draws(path, batch=4)
    assert (found.shapes, found.batch, found.rotation(1)) == ({}, 1, [{}])


# -- fit --------------------------------------------------------------------------------------


def test_a_model_that_runs_is_fitted_at_once(recurrent):
    for batch in (1, "batch"):
        answer = fit(recurrent(batch))
        assert answer["failed"] is None
        assert answer["shapes"] == {"frame": [1, 16], "state": [2, 1, 8]}
        assert answer["tried"] == [answer["shapes"]]
        assert [port["name"] for port in answer["inputs"]] == ["frame", "state"]


def test_guesses_are_tried_until_the_model_runs(product):
    answer = fit(product([1, "n"], 48))
    assert answer["failed"] is None
    assert answer["shapes"] == {"x": [1, 48]}
    assert answer["guessed"] == {"x": [1]}
    assert answer["tried"][0] == {"x": [1, 16]}
    assert answer["tried"][-1] == {"x": [1, 48]}


def test_what_is_told_is_never_guessed(product):
    model = product([1, "n"], 48)
    answer = fit(model, shapes={"x": [1, 16]})
    assert "dimension mismatch" in answer["failed"]
    assert answer["tried"] == [{"x": [1, 16]}]
    assert fit(model, shapes={"n": [48]})["guessed"] == {}


def test_without_a_guess_that_runs_the_first_words_and_sizes_are_told(product, monkeypatch):
    model = product(["n", "m"], 49)
    answer = fit(model)
    assert "dimension mismatch" in answer["failed"]
    assert answer["shapes"] == answer["tried"][0] == {"x": [1, 16]}
    assert len(answer["tried"]) > 10
    monkeypatch.setattr(predictions, "GUESSING_CAP_S", 0)
    assert len(fit(model)["tried"]) == 1


def test_guesses_that_would_take_much_memory_are_left_out(product, monkeypatch):
    monkeypatch.setattr(drawn_inputs, "FEEDS_BYTES", 400)
    sizes = [shapes["x"][1] for shapes in fit(product([1, "m"], 49))["tried"]]
    assert max(sizes) == 100
    monkeypatch.setattr(drawn_inputs, "FEEDS_BYTES", 1)
    assert fit(product(["n", "m"], 49))["tried"] == [{"x": [1, 1]}]
    assert fit(product([1, 48], 48))["tried"] == [{"x": [1, 48]}]


def test_many_open_axes_are_not_all_of_the_usual_length(build):
    assert fit(build("Neg", [None] * 9))["shapes"] == {"x": [1, *[8] * 8]}


def test_a_model_is_timed_on_the_sizes_that_it_is_told(summing):
    model = summing(x=["n", "t"])
    timing = {"window_s": 0.002, "warmup_cap_s": 0.02, "sample_s": 0.01, "least": 5, "cap_s": 0.1}
    found = worker.answer(
        json.dumps({"kind": "profile", "model": str(model), "shapes": {"x": [2, 7]}, **timing})
    )
    assert (found["shapes"], found["batch"]) == ({"x": [2, 7]}, 2)
    assert found["operators"][0]["inputs"][0] == ("float", [2, 7])


@pytest.mark.parametrize("kind", ["check", "memory"])
def test_other_jobs_draw_the_same(summing, kind):
    answer = worker.answer(
        json.dumps({"kind": kind, "model": str(summing(x=[2, "t"], s=[])), "shapes": {"t": [5]}})
    )
    assert "error" not in answer


def test_outputs_that_change_their_shape_are_not_repeatable(tmp_path):
    nodes = [
        helper.make_node("RandomUniform", [], ["r"], shape=[64], low=-1.0, high=1.0),
        helper.make_node("Relu", ["r"], ["p"]),
        helper.make_node("NonZero", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "random", [], [helper.make_tensor_value_info("y", TensorProto.INT64, [1, None])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "random.onnx").write_bytes(model.SerializeToString())
    answer = worker.answer(json.dumps({"kind": "check", "model": str(tmp_path / "random.onnx")}))
    assert answer["repeatable"] is False
