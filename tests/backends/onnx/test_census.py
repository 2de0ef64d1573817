import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from compress.backends.onnx.census import take_census
from compress.backends.onnx.files import save
from compress.errors import LoweringError

# Convolutions of "residual" on 6 x 6 pixels, and its head.
RESIDUAL_MACS = 36 * 8 * 9 * (2 + 8 + 8) + 8 * 4


def model_of(nodes, inputs, outputs, constants=(), opset=20):
    tensors = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def floats(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def census_of(model, tmp_path):
    save(model, tmp_path / "model.onnx")
    return take_census(tmp_path / "model.onnx")


def test_an_int8_file_is_counted(encoded, rule, net):
    made = encoded("residual", rule())
    census = take_census(made.path)
    assert census.macs == census.int8_macs == RESIDUAL_MACS
    assert census.int8_mac_fraction == 1
    assert census.operators["Conv"] == 3
    size = made.path.stat().st_size
    assert census.graph_bytes + sum(census.weight_bytes.values()) == size
    weights = sum(p.numel() for n, p in net("residual").module.named_parameters() if p.dim() > 1)
    biases = 3 * 8 + 4
    # Zero points of the weights and of nothing else are int8 as well: one per channel, shared.
    assert census.weight_bytes["int8"] - weights <= 8 + 4
    assert census.weight_bytes["int32"] - 4 * biases <= 4 * (8 + 4)
    assert 0.9 * weights <= census.nonzero_weights <= weights + biases


def test_a_float_file_has_no_int8(exported, tmp_path):
    census = census_of(ir.to_proto(exported("residual")), tmp_path)
    assert (census.macs, census.int8_macs) == (RESIDUAL_MACS, 0)
    assert census.float_islands == ()


def test_zeros_are_not_counted_as_weights(exported, rule, net, tmp_path):
    model = exported("plain")
    whole = census_of(ir.to_proto(model), tmp_path)
    weight = model.graph.initializers["second.weight"]
    array = weight.const_value.numpy().copy()
    array[:, 0] = 0
    weight.const_value = ir.tensor(array)
    assert whole.nonzero_weights - census_of(ir.to_proto(model), tmp_path).nonzero_weights == 72


def test_float_operators_between_int8_ones_are_named(encoded, rule):
    assert take_census(encoded("gated", rule()).path).float_islands[-1:] == ("AveragePool",)
    # What comes before the first int8 operator or after the last one is no island.
    tail = take_census(encoded("residual", rule(exclude=("head",))).path)
    assert tail.float_islands == ()
    assert 0 < tail.int8_mac_fraction < 1


def test_macs_of_a_batch_are_those_of_one_sample(tmp_path):
    nodes = [
        helper.make_node("ConvTranspose", ["x", "t"], ["y"], strides=[2, 2]),
        helper.make_node("Flatten", ["y"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["h"], transB=1),
        helper.make_node("MatMul", ["h", "m"], ["z"]),
    ]
    constants = {
        "t": np.ones((3, 4, 2, 2), np.float32),
        "g": np.ones((7, 4 * 10 * 10), np.float32),
        "m": np.ones((7, 2), np.float32),
    }
    expected = 3 * 25 * 4 * 4 + 400 * 7 + 7 * 2
    for batch in (1, 5, "free"):
        ends = [floats("x", [batch, 3, 5, 5])], [floats("z", [batch, 2])]
        assert census_of(model_of(nodes, *ends, constants), tmp_path).macs == expected


def test_products_of_activations_are_counted(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Gemm", ["a", "b"], ["g"], transA=1),
        helper.make_node("Shape", ["g"], ["n"]),
    ]
    inputs = [
        floats("q", [2, 3, 6, 4]),
        floats("k", [2, 3, 4, 5]),
        floats("a", [2, 6]),
        floats("b", [2, 8]),
    ]
    outputs = [
        floats("s", [2, 3, 6, 5]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [2]),
    ]
    assert (
        census_of(model_of(nodes, inputs, outputs), tmp_path).macs
        == (2 * 3 * 6 * 5 * 4 + 6 * 8 * 2) // 2
    )


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_files_of_other_tools_are_counted(form, exported, net, tmp_path):
    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = iter([{"x": net("residual").inputs(1).numpy()}])

        def get_next(self):
            return next(self.rows, None)

    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    save(ir.to_proto(exported("residual")), source)
    quantize_static(
        source,
        target,
        Reader(),
        quant_format=form,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    census = take_census(target)
    assert census.macs == census.int8_macs == RESIDUAL_MACS
    assert 0.9 * 1328 <= census.nonzero_weights <= 1328 + 28
    assert census.float_islands == ("ReduceMean",)


def test_weights_are_zero_at_their_zero_point(tmp_path):
    constants = {
        "w": np.array([[3, 5, 3], [7, 7, 0]], dtype=np.uint8),
        "s": np.ones(2, np.float32),
        "z": np.array([3, 7], dtype=np.uint8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    model = model_of(nodes, [floats("x", [1, 2])], [floats("y", [1, 3])], constants)
    assert census_of(model, tmp_path).nonzero_weights == 2


@pytest.mark.parametrize("share", [0.1, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(share, encoded, rule):
    path = encoded("plain", rule()).path
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(LoweringError, match=r"plain.onnx: not a readable ONNX file .* truncated"):
        take_census(path)


def test_other_damage_is_refused_by_name(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(LoweringError, match=r"not a readable ONNX file .*No such file"):
        take_census(path)
    path.write_bytes(b"")
    with pytest.raises(LoweringError, match="not an ONNX model: it holds no operators"):
        take_census(path)
    strange = helper.make_node("NoSuchOperator", ["x"], ["y"])
    save(model_of([strange], [floats("x", [1])], [floats("y", [1])]), path)
    with pytest.raises(LoweringError, match=r"model.onnx: onnxruntime cannot load .*NoSuchOperat"):
        take_census(path)


def test_missing_external_data_is_refused(exported, tmp_path):
    path = tmp_path / "model.onnx"
    save(ir.to_proto(exported("residual")), path, external_above_bytes=100)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(LoweringError, match="not a readable ONNX file"):
        take_census(path)


def test_a_model_that_does_not_run_on_zeros_is_counted_all_the_same(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["g"]),
        helper.make_node("Reshape", ["g", "to"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    constants = {"table": np.ones((2, 3), np.float32), "to": np.array([7], np.int64)}
    constants["w"] = np.ones((7, 5), np.float32)
    inputs = [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])]
    census = census_of(model_of(nodes, inputs, [floats("y", [5])], constants), tmp_path)
    assert census.macs == 7 * 5
    (note,) = census.notes
    assert note.startswith("it does not run on zeros, so that its shapes are inferred: onnxrun")


def test_a_census_needs_no_torch(encoded, rule):
    path = encoded("plain", rule()).path
    code = (
        "import sys; from pathlib import Path; from compress.backends.onnx import take_census; "
        f"print(take_census(Path({str(path)!r})).macs); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == take_census(path).macs
    assert onnx.load(path).producer_name == "compresskit"
