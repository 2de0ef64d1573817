"""The census of files of other makes: packed and sparse constants, inputs of any type, damage."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from compress.artifact import Census
from compress.backends.onnx.census import census_notes, take_census, uncounted_note
from compress.errors import LoweringError

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(0)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, stored=(), sparse=(), opset=21):
    graph = helper.make_graph(
        nodes, "test", inputs, outputs, list(stored), sparse_initializer=list(sparse)
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def census_of(made, folder):
    path = folder / "model.onnx"
    onnx.save(made, path)
    return take_census(path)


def filled(shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def product(weight, shape=(2, 8)):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [value("x", shape)], [value("y", None)], [weight])


# -- constants --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (TensorProto.INT4, [0, -8, 7, 1] * 16),
        (TensorProto.UINT4, [0, 15, 1, 0] * 16),
        (TensorProto.INT8, [0, -128, 127, 1] * 16),
        (TensorProto.FLOAT16, [0.0, 0.0, 0.0, 1.0] * 16),
        (TensorProto.BFLOAT16, [0.0, 0.5, 0.0, 1.0] * 16),
        (TensorProto.FLOAT8E4M3FN, [0.0, 0.5, 0.0, 1.0] * 16),
        (TensorProto.FLOAT, [0.0, 0.5, 0.0, 1.0] * 16),
        (TensorProto.DOUBLE, [0.0, 0.5, 0.0, 1.0] * 16),
    ],
)
def test_constants_of_any_type_take_what_they_take_in_the_file(kind, numbers, tmp_path):
    """As numbers in fields, where zeros and small ones take fewer bytes than their type has."""
    stored = helper.make_tensor("w", kind, [8, 8], numbers)
    nodes = [
        helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    made = model(nodes, [value("x", [2, 8])], [value("y", None)], [stored])
    if kind in (TensorProto.INT4, TensorProto.UINT4):
        nodes[0] = helper.make_node("DequantizeLinear", ["w", "s"], ["f"])
        scale = numpy_helper.from_array(np.float32(1), "s")
        made = model(nodes, [value("x", [2, 8])], [value("y", None)], [stored, scale])
    census = census_of(made, tmp_path)
    size = (tmp_path / "model.onnx").stat().st_size
    assert census.graph_bytes == size - sum(census.weight_bytes.values())
    assert 0 < census.graph_bytes < size
    assert (census.weights, census.nonzero_weights) == (64, np.count_nonzero(numbers))
    assert census.macs == 8 * 8


def test_bytes_of_packed_weights_are_those_of_the_file(tmp_path):
    numbers = RANDOM.integers(-8, 8, (8, 9))
    packed = helper.make_tensor("w", TensorProto.INT4, [8, 9], numbers.ravel().tolist())
    raw = helper.make_tensor("w", TensorProto.INT4, [8, 9], packed_bytes(numbers), raw=True)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"]),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    scale = numpy_helper.from_array(np.float32(1), "s")
    for stored in (packed, raw):
        made = model(nodes, [value("x", [2, 8])], [value("y", None)], [stored, scale])
        census = census_of(made, tmp_path)
        assert census.nonzero_weights == np.count_nonzero(numbers)
    assert census.weight_bytes == {"float32": 4, "int4": 8 * 9 // 2}


def packed_bytes(numbers):
    codes = np.append(numbers.ravel() & 15, [0] * (numbers.size % 2)).astype(np.uint8)
    return (codes[::2] | codes[1::2] << 4).tobytes()


def test_weights_in_constant_nodes_are_weights(tmp_path):
    weight = numpy_helper.from_array(filled((8, 4)))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Constant", [], ["b"], value_floats=[0.0, 1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["to"], value_ints=[1, 8]),
        helper.make_node("Reshape", ["x", "to"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    census = census_of(model(nodes, [value("x", [1, 2, 4])], [value("y", None)]), tmp_path)
    assert (census.weights, census.nonzero_weights) == (8 * 4 + 4, 8 * 4 + 3)
    assert census.float_weights == {"MatMul": 8 * 4}  # and not the bias
    assert 4 * 36 <= census.weight_bytes["float32"] < 4 * 36 + 8
    assert census.graph_bytes > 0


def test_sparse_weights_are_those_that_are_stored(tmp_path):
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("places", TensorProto.INT64, [3], [1, 7, 30]),
        [8, 4],
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    made = model([node], [value("x", [2, 8])], [value("y", None)], sparse=[sparse])
    census = census_of(made, tmp_path)
    assert (census.weights, census.nonzero_weights) == (8 * 4, 3)
    assert census.macs == 8 * 4
    assert census.graph_bytes > 0


def test_texts_masks_and_shapes_are_no_weights(tmp_path):
    stored = [
        helper.make_tensor("words", TensorProto.STRING, [2], ["one", "another"]),
        numpy_helper.from_array(np.ones((8, 4), bool), "mask"),
        numpy_helper.from_array(np.array([4, 8], np.int64), "to"),
        numpy_helper.from_array(filled((8, 4)), "w"),
    ]
    nodes = [
        helper.make_node("Where", ["mask", "w", "zero"], ["kept"]),
        helper.make_node("MatMul", ["x", "kept"], ["y"]),
        helper.make_node("Equal", ["text", "words"], ["same"]),
        helper.make_node("Reshape", ["w", "to"], ["z"]),
    ]
    stored.append(numpy_helper.from_array(np.float32(0), "zero"))
    inputs = [value("x", [2, 8]), value("text", [2], TensorProto.STRING)]
    outputs = [value("y", None), value("same", None, TensorProto.BOOL), value("z", None)]
    census = census_of(model(nodes, inputs, outputs, stored), tmp_path)
    assert (census.weights, census.nonzero_weights, census.macs) == (8 * 4, 8 * 4, 8 * 4)
    assert {"string", "bool", "int64"} < census.weight_bytes.keys()
    assert census.notes == ()


def test_zero_points_of_blocks_are_taken_off_along_their_axis(tmp_path):
    weight = np.array([[1, 2, 2, 2], [1, 1, 0, 2], [3, 1, 4, 4], [3, 3, 3, 4]], np.uint8)
    zero = np.array([[1, 2, 2, 2], [3, 3, 4, 4]], np.uint8)
    stored = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.ones((2, 4), np.float32), "s"),
        numpy_helper.from_array(zero, "z"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=0, block_size=2),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    census = census_of(model(nodes, [value("x", [1, 4])], [value("y", None)], stored), tmp_path)
    assert census.nonzero_weights == np.count_nonzero(weight.astype(int) - zero.repeat(2, 0))


def test_external_data_under_any_name_counts_once(tmp_path):
    made = product(numpy_helper.from_array(filled((8, 64)), "w"))
    other = made.graph.initializer.add()
    other.CopyFrom(made.graph.initializer[0])
    other.name = "v"
    made.graph.node.append(helper.make_node("MatMul", ["x", "v"], ["z"]))
    made.graph.output.append(value("z", None))
    convert_model_to_external_data(made, location="weights.bin", size_threshold=0)
    path = tmp_path / "model.onnx"
    onnx.save(made, path)
    stripped = onnx.load(path, load_external_data=False)
    del stripped.graph.initializer[1].external_data[:]
    stripped.graph.initializer[1].external_data.extend(stripped.graph.initializer[0].external_data)
    path.write_bytes(stripped.SerializeToString())
    census = take_census(path)
    sizes = path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert census.weight_bytes == {"float32": 4 * 8 * 64}
    assert census.graph_bytes == sizes - 4 * 8 * 64
    assert census.macs == 2 * 8 * 64


# -- inputs -----------------------------------------------------------------------------------


def test_nets_that_are_too_large_for_axes_of_one_are_counted_at_larger_ones(tmp_path):
    weight = numpy_helper.from_array(filled((4, 3, 5, 5)), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    made = model([node], [value("x", ["n", 3, "h", "w"])], [value("y", None)], [weight])
    census = census_of(made, tmp_path)
    assert census.macs == 4 * 28 * 28 * 3 * 25
    assert census.notes == ("free axes, but for each input's first one, are counted as 32.",)


def sequence_model():
    """A product of what a sequence holds, of a known shape, and one of what it does not tell."""
    listed = helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("SequenceAt", ["list", "first"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
    ]
    stored = [
        numpy_helper.from_array(np.int64(0), "first"),
        numpy_helper.from_array(filled((8, 4)), "w"),
    ]
    return model(
        nodes, [listed, value("x", [3, 8])], [value("y", None), value("z", [3, 4])], stored
    )


def test_what_an_input_does_not_tell_is_said_not_to_be_counted(tmp_path):
    census = census_of(sequence_model(), tmp_path)
    assert census.macs == 8 * 4
    first, second = census.notes
    assert first.startswith("it does not run on zeros, so that its shapes are inferred: ")
    assert second == "the products of 1 MatMul are not counted, since their shapes are not known."
    assert census_notes(census)[0].startswith("the census is not exact: it does not run on zeros")


def test_shapes_that_a_run_does_not_give_are_inferred(tmp_path):
    """Of what no input can be made up for, and of onnxruntime's own operators too."""
    stored = [
        numpy_helper.from_array(np.array([7], np.int64), "to"),  # a batch of one is too small
        numpy_helper.from_array(filled((2, 6)), "table"),
        numpy_helper.from_array(filled((1, 5)), "w"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["g"]),
        helper.make_node("Reshape", ["g", "to"], ["flat"]),
        helper.make_node("MatMul", ["v", "m"], ["y"]),
        helper.make_node("FusedMatMul", ["y", "m2"], ["z"], domain="com.microsoft", transA=1),
    ]
    stored += [numpy_helper.from_array(filled((6, 5)), "m")]
    stored += [numpy_helper.from_array(filled((3, 2)), "m2")]
    inputs = [value("x", ["n"], TensorProto.INT64), value("v", [3, 6])]
    outputs = [value("flat", [7]), value("z", None)]
    census = census_of(model(nodes, inputs, outputs, stored), tmp_path)
    assert census.macs == 3 * 6 * 5 + 5 * 3 * 2
    assert "cannot run the model" in census.notes[0]


def test_bodies_of_a_file_that_does_not_run_count_as_often_as_its_constants_say(tmp_path):
    state = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL)]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [*state, value("h", None)],
        [value("on", [], TensorProto.BOOL), value("next", None)],
    )
    made = sequence_model()
    made.graph.initializer.append(numpy_helper.from_array(np.int64(6), "passes"))
    made.graph.initializer.append(numpy_helper.from_array(filled((4, 4)), "v"))
    body.node[0].input[1] = "v"
    made.graph.node.append(helper.make_node("Loop", ["passes", "", "z"], ["end"], body=body))
    made.graph.output.append(value("end", None))
    assert census_of(made, tmp_path).macs == 8 * 4 + 6 * 4 * 4


def test_a_loop_without_an_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("compress.backends.onnx.census_run.PATIENCE_S", 0.2)
    state = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL)]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [*state, value("h", [2, 8])],
        [value("on", [], TensorProto.BOOL), value("next", [2, 8])],
        [numpy_helper.from_array(filled((8, 8)), "w")],
    )
    node = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    stored = [numpy_helper.from_array(np.array(True), "yes")]
    made = model([node], [value("x", [2, 8])], [value("y", [2, 8])], stored)
    census = census_of(made, tmp_path)
    assert census.macs == 8 * 8
    assert "terminate" in census.notes[0]
    assert census.notes[1] == "the inputs decide how often a loop runs: one pass is counted."


def test_lengths_of_sequences_that_are_inputs_do_not_shorten_the_count(tmp_path):
    node = helper.make_node("GRU", ["x", "w", "r", "", "lengths"], ["y"], hidden_size=4)
    stored = [
        numpy_helper.from_array(filled((1, 12, 5)), "w"),
        numpy_helper.from_array(filled((1, 12, 4)), "r"),
    ]
    inputs = [value("x", [7, 3, 5]), value("lengths", [3], TensorProto.INT32)]
    census = census_of(model([node], inputs, [value("y", None)], stored), tmp_path)
    assert census.macs == 7 * 12 * (5 + 4)


# -- files that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an ONNX model: it holds no operators"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not a readable ONNX file"),
        (b"a text that is long enough to be read", "not a readable ONNX file"),
        (b"{}", "not a readable ONNX file"),
    ],
)
@pytest.mark.parametrize("name", ["model.onnx", "model.json", "model.onnxtxt"])
def test_foreign_files_are_refused_by_name(content, words, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LoweringError, match=f"{name}: {words}"):
        take_census(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(LoweringError, match="not a readable ONNX file"):
        take_census(tmp_path)


def test_a_constant_that_holds_too_little_is_refused_by_name(tmp_path):
    # onnxruntime does not look at what no operator reads.
    made = product(numpy_helper.from_array(filled((8, 4)), "w"))
    made.graph.initializer.append(
        TensorProto(name="short", data_type=TensorProto.FLOAT, dims=[9], raw_data=b"\0" * 8)
    )
    with pytest.raises(LoweringError, match=r"model.onnx: the constant 'short' does not hold"):
        census_of(made, tmp_path)


def test_a_graph_that_onnxruntime_does_not_write_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "compress.backends.onnx.census_run.open_session", lambda path, options: None
    )
    made = product(numpy_helper.from_array(filled((8, 4)), "w"))
    with pytest.raises(LoweringError, match=r"model.onnx: the graph that onnxruntime makes of it"):
        census_of(made, tmp_path)


def test_names_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    made = product(numpy_helper.from_array(filled((8, 4)), "w"), shape=["batch", 8])
    path.write_bytes(made.SerializeToString().replace(b"batch", b"b\xfftch"))
    with pytest.raises(LoweringError, match=r"model.onnx: a name in the model is not text .*dam"):
        take_census(path)


def test_an_operator_without_a_rule_is_said_not_to_be_counted(tmp_path):
    heads, size = 2, 8
    node = helper.make_node(
        "LinearAttention", ["q", "k", "v"], ["y", "state"], domain="com.microsoft",
        q_num_heads=heads, kv_num_heads=heads, update_rule="linear",
    )  # fmt: skip
    inputs = [value(name, [1, 3, heads * size]) for name in "qkv"]
    made = model([node], inputs, [value("y", None), value("state", None)])
    assert census_of(made, tmp_path).notes == ("the products of LinearAttention are not counted.",)


# -- what stays in float ----------------------------------------------------------------------


def counted(int8, float_macs, weights=0, float_weights=None):
    return Census(
        operators={},
        weight_bytes={"float32": 4, "int8": 1} if int8 else {"float32": 4},
        graph_bytes=0,
        macs=int8 + sum(float_macs.values()),
        int8_macs=int8,
        nonzero_weights=0,
        float_macs=float_macs,
        weights=weights,
        float_weights=float_weights or {},
    )


@pytest.mark.parametrize(
    ("census", "note"),
    [
        (
            counted(96, {"LSTM": 102400}, 4480, {"LSTM": 4384}),
            "99.9 % of the products (LSTM) and 97.9 % of the weights (LSTM) stay in float.",
        ),
        (
            counted(60, {"MatMul": 30, "Einsum": 9, "Conv": 1}),
            "40.0 % of the products (MatMul, Einsum) stay in float.",
        ),
        (counted(100, {}, 100, {"Gather": 50}), "50.0 % of the weights (Gather) stay in float."),
        (
            counted(1, {"Einsum": 999_999}),
            "over 99.9 % of the products (Einsum) stay in float: no layer with a format has them.",
        ),
        (counted(91, {"MatMul": 9}, 100, {"Add": 9}), None),
        (counted(0, {"LSTM": 99}, 100, {"LSTM": 100}), None),  # nothing is meant to be in int8
    ],
)
def test_the_share_that_stays_in_float_is_said(census, note):
    assert uncounted_note(census) == note
    assert census_notes(census) == ((note,) if note else ())


@pytest.mark.parametrize(
    ("kind", "is_narrow"),
    [
        *((name, True) for name in ("int8", "uint4", "int2", "float8e4m3fn", "float4e2m1")),
        *((name, False) for name in ("float16", "uint16", "int32", "int64", "bfloat16", "bool")),
    ],
)
def test_weights_beside_those_of_eight_bits_or_fewer_are_said_to_stay_in_float(kind, is_narrow):
    census = counted(0, {"MatMul": 99}, 100, {"Gather": 50})
    narrow = replace(census, weight_bytes={"float32": 4, kind: 1})
    note = "50.0 % of the weights (Gather) stay in float."
    assert uncounted_note(narrow) == (note if is_narrow else None)
