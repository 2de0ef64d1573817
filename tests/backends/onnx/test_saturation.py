"""x86 without VNNI saturates in uint8 x int8 products; the guarded grid does not."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx.encoding import encode
from compress.backends.onnx.export import export
from compress.backends.onnx.feeds import batches
from compress.backends.onnx.files import save
from compress.backends.onnx.parity import compare
from compress.backends.onnx.session import open_session
from compress.quantization.fakequant import quantizable_layers
from compress.quantization.numerics import LayerFormat


def saturates() -> bool:
    """Whether 255 * 127 + 255 * 127 comes out smaller on this processor."""
    weight = helper.make_tensor("w", onnx.TensorProto.INT8, [64, 1], [127] * 64)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, 1])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"x": np.full((1, 64), 255, dtype=np.uint8)})[0]
    return bool(result[0, 0] != 64 * 255 * 127)


@pytest.fixture(scope="module")
def adversary():
    """Large weights of one sign and positive activations: the worst case of a saturating sum."""
    draw = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten())
    for layer in (module[0], module[2]):
        layer.weight.data = 0.9 + 0.1 * torch.rand(layer.weight.shape, generator=draw)
        layer.bias.data.zero_()
    inputs = torch.rand(32, 4, 8, 8, generator=draw)
    return (
        module.eval(),
        inputs,
        ir.to_proto(export(module, inputs, Lowering())).SerializeToString(),
    )


def sqnr_db(adversary, path, *, avoid_saturation):
    module, inputs, exported = adversary
    format = LayerFormat(weights="int8", activations="int8")
    formats = dict.fromkeys(quantizable_layers(module), format)
    made, *_ = encode(
        ir.from_proto(onnx.ModelProto.FromString(exported)),
        formats,
        [inputs],
        avoid_saturation=avoid_saturation,
    )
    save(ir.to_proto(made), path)
    session = open_session(path)
    actual = np.concatenate(
        [session.run(None, feeds)[0] for feeds, _ in batches([inputs], session)]
    )
    with torch.no_grad():
        return compare(module(inputs).numpy(), actual).sqnr_db


def test_the_guarded_grid_keeps_40_db_where_the_plain_one_loses_20(adversary, tmp_path):
    guarded = sqnr_db(adversary, tmp_path / "guarded.onnx", avoid_saturation=True)
    assert guarded >= 40
    if saturates():
        plain = sqnr_db(adversary, tmp_path / "plain.onnx", avoid_saturation=False)
        assert plain < guarded - 20


def test_no_pair_of_guarded_weights_can_overflow_16_bits(adversary, tmp_path):
    sqnr_db(adversary, tmp_path / "guarded.onnx", avoid_saturation=True)
    model = onnx.load(tmp_path / "guarded.onnx")
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer]
    checked = 0
    for weight in weights:
        if weight.dtype == np.int8 and weight.ndim > 1:
            rows = np.sort(weight.reshape(len(weight), -1).astype(int), axis=1)
            pairs = np.concatenate([rows[:, -2:].sum(1), -rows[:, :2].sum(1)])
            assert 255 * pairs.max() <= np.iinfo(np.int16).max
            checked += 1
    assert checked == 2
