"""Static int16: what the file has, in any opset, by itself and beside int8."""

from dataclasses import replace

import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.backends.onnx.encoding import encode
from compress.backends.onnx.export import export
from compress.backends.onnx.parity import Bound, check_parity, simulated_outputs
from compress.candidate import Candidate
from compress.errors import LoweringError
from compress.measure.local import LocalTarget
from compress.quantization.fakequant import observe_ranges
from compress.quantization.numerics import Numerics


def types_of(proto):
    return {numpy_helper.to_array(tensor).dtype.name for tensor in proto.graph.initializer}


@pytest.mark.parametrize("name", ["residual", "plain", "encoder", "unet", "one_d"])
def test_sixteen_bits_are_rounded_to_and_computed_in_float(name, encoded, rule):
    made = encoded(name, rule("int8", "int16"))
    assert types_of(made.proto) >= {"int8", "int32", "uint16"}
    assert "uint8" not in types_of(made.proto)
    assert not [op for op in made.optimized() if op.startswith("QLinear")]
    assert made.warnings[0].endswith("onnxruntime has no int16 kernels on a CPU.")
    transposed = "onnxruntime has no int16 transposed convolution."
    assert [w.endswith(transposed) for w in made.warnings[1:]] == [True] * (name == "unet")


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_sixteen_bits_are_written_in_any_opset(opset, net, rule, tmp_path):
    candidate = replace(
        Candidate.of(net("residual").module, net("residual").inputs(2)),
        numerics=Numerics((rule("int8", "int16"),)),
    )
    data = net("residual").inputs(16)
    made = lower(
        candidate,
        Lowering(opset=opset),
        calibration=[data],
        check=data,
        path=tmp_path / "model.onnx",
    )
    assert made.parity.sqnr_db > 75
    assert made.census.int8_macs == 0 < made.census.macs


@pytest.mark.parametrize("order", [("int8", "int16"), ("int16", "int8")])
@pytest.mark.parametrize("name", ["residual", "plain", "encoder", "gated", "two"])
def test_two_static_formats_live_in_one_graph(name, order, net, encoded, rule):
    layers = list(net(name).formats())
    first, second = (
        rule("int8", bits, select=part)
        for bits, part in zip(order, (tuple(layers[::2]), tuple(layers[1::2])), strict=True)
    )
    made = encoded(name, first, second)
    assert types_of(made.proto) >= {"int8", "uint8", "uint16"}
    formats = net(name).formats(first, second)
    data = [net(name).inputs(8, seed) for seed in (1, 2)]
    seen = observe_ranges(net(name).module, formats, data)
    assert made.ranges.keys() == seen.keys()
    for layer, bounds in seen.items():
        assert made.ranges[layer] == pytest.approx(bounds, rel=1e-3, abs=1e-6), layer
    check = net(name).inputs(16, 3)
    expected = simulated_outputs(
        net(name).module, check, formats, made.ranges, avoid_saturation=True
    )
    bounds = {"output": Bound(0.99, is_float=False)}
    parity = check_parity(made.path, check, expected, bounds)
    assert parity.sqnr_db > 25


def test_what_layers_of_two_formats_read_is_rounded_for_each(rule):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.coarse, self.fine = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x):
            return self.coarse(x) + self.fine(x)

    torch.manual_seed(0)
    module, data = Both().eval(), torch.randn(32, 6)
    formats = {
        "coarse": rule().format,
        "fine": rule("int8", "int16").format,
    }
    model = export(module, data[:2], Lowering())
    made, *_ = encode(model, formats, [data], avoid_saturation=True)
    rounded = [n for n in made.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "x"]
    assert len(rounded) == 2


def test_a_runtime_that_computes_it_wrongly_gets_no_such_file(net, rule, tmp_path):
    candidate = replace(
        Candidate.of(net("plain").module, net("plain").inputs(2)),
        numerics=Numerics((rule("int8", "int16"),)),
    )
    data, target = net("plain").inputs(8), LocalTarget(runtime="openvino")
    with pytest.raises(LoweringError, match="is declared int16, and OpenVINO's CPU loads") as said:
        lower(
            candidate,
            target.lowering(),
            calibration=[data],
            check=data,
            path=tmp_path / "model.onnx",
        )
    assert str(said.value).endswith("quantize to another format, or leave this target out.")
    assert LocalTarget().lowering().refused == ()
