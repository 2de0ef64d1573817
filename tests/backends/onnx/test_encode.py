"""The formats without calibration, and all of them in one graph."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.backends.onnx.encoding import encode
from compress.backends.onnx.export import export
from compress.candidate import Candidate
from compress.errors import LoweringError
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule


def operators(made):
    return [node.op_type for node in made.proto.graph.node]


def large_floats(proto):
    """Shapes of the float32 constants that are weights: more than one axis longer than one."""
    arrays = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    return [a.shape for a in arrays if a.dtype == np.float32 and sum(n > 1 for n in a.shape) > 1]


def test_integer_weights_cost_nothing_at_run_time(encoded, rule):
    made = encoded("plain", rule("int8", "float32"))
    assert not large_floats(made.proto)
    # The loader computes Cast and Mul once; a DequantizeLinear would be left in every run.
    plain = ["Conv", "Conv", "Conv", "GlobalAveragePool", "Flatten", "Gemm"]
    assert made.optimized() == plain


def test_dynamic_linear_layers_run_in_one_fused_operator_each(encoded, rule):
    found = encoded("encoder", rule("int8", "dynamic")).optimized()
    # Query, key and value share the quantization of their input.
    assert found.count("MatMulIntegerToFloat") == 3
    assert found.count("DynamicQuantizeLinear") == 1
    assert found.count("DynamicQuantizeMatMul") == 4


def test_dynamic_convolutions_get_integer_weights_and_a_warning(encoded, rule):
    made = encoded("residual", rule("int8", "dynamic"))
    assert "ConvInteger" not in operators(made)
    assert not large_floats(made.proto)
    (warning,) = made.warnings
    assert warning.startswith("'stem', 'conv1', 'conv2': integer weights and float32 arithmetic")
    assert warning.endswith("dynamic int8 convolutions take 5 to 10 times as long.")


def test_transposed_convolutions_get_integer_weights_and_a_warning(encoded, rule):
    made = encoded("unet", rule())
    assert not large_floats(made.proto)
    assert made.optimized().count("ConvTranspose") == 1
    assert "DequantizeLinear" in made.optimized()
    assert "'up': integer weights and float32 arithmetic, since onnxruntime has no int8" in str(
        made.warnings
    )


def test_small_integers_are_stored_one_per_byte_and_say_so(encoded, rule):
    made = encoded("two", rule("int4"))
    assert made.warnings[0].startswith("'conv', 'fc', 'head': stored one value per byte")


def test_float16_halves_the_weights_and_keeps_float32_at_both_ends(encoded, rule):
    made = encoded("residual", rule("float16", "float16"))
    assert not large_floats(made.proto)
    ends = [*made.proto.graph.input, *made.proto.graph.output]
    assert {v.type.tensor_type.elem_type for v in ends} == {onnx.TensorProto.FLOAT}
    # One conversion on the way in, one on the way out, none in between.
    assert operators(made).count("Cast") == 2


def test_float16_refuses_weights_beyond_its_range():
    module = nn.Sequential(nn.Linear(3, 3))
    module[0].weight.data[0, 0] = 1e6
    model = export(module, torch.zeros(1, 3), Lowering())
    format = LayerFormat(weights="float16", activations="float16")
    with pytest.raises(LoweringError, match=r"of '0' holds values above 65504, which float16"):
        encode(model, {"0": format}, [], avoid_saturation=False)


def test_four_formats_live_in_one_graph(net, encoded, rule):
    made = encoded(
        "residual",
        rule(select=("stem", "conv1")),
        rule("int8", "float32", select=("conv2",)),
        rule("float16", "float16", select=("head",)),
    )
    kinds = {numpy_helper.to_array(t).dtype.name for t in made.proto.graph.initializer}
    assert {"int8", "int32", "float16"} <= kinds
    assert not large_floats(made.proto)
    assert made.optimized().count("QLinearConv") == 2
    onnx.checker.check_model(made.proto, full_check=True)


@pytest.mark.parametrize(("activations", "expected"), [("dynamic", 0), ("float32", 1)])
def test_a_float_product_between_int8_ones_keeps_its_scales(activations, expected, encoded, rule):
    made = encoded("plain", rule(), rule("int8", activations, select=("second",)))
    assert made.optimized().count("QLinearConv") == 2
    assert made.optimized().count("Conv") == 1
    assert len([w for w in made.warnings if "'second'" in w]) == 1 - expected


def test_a_layer_that_is_never_called_is_reported(rule):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    format = LayerFormat(weights="int8", activations="int8")
    model = export(Spare().eval(), torch.zeros(1, 3), Lowering())
    formats = {"used": format, "spare": format}
    _, ranges, warnings, *_ = encode(model, formats, [torch.ones(2, 3)], avoid_saturation=False)
    assert warnings == (
        "'spare': its product is computed outside of the layer, so it stays float32.",
    )
    assert ranges == {"used": (0.0, 1.0)}


class Words(nn.Module):
    """An embedding that inputs look rows up in, and one that is read at fixed places."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(40, 16), nn.Embedding(6, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head((self.words(ids) + self.places(places)).mean(1))


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_an_embedding_is_looked_up_in_integers(bits, tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(40, (16, 6))
    rule = QuantRule(format=LayerFormat(weights=bits, activations="int8"))
    candidate = replace(Candidate.of(Words(), ids), numerics=Numerics((rule,)))
    path = tmp_path / "words.onnx"
    made = lower(
        candidate, Lowering(avoid_saturation=True), calibration=[ids], check=ids, path=path
    )
    proto = onnx.load(path)
    arrays = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    (table,) = (a for a in arrays if a.shape == (40, 16))
    assert table.dtype == np.int8
    assert [node.op_type for node in proto.graph.node].count("Gather") == 2
    assert made.parity.sqnr_db > 30
    # The other embedding is read at fixed places, so that its rows are constants that are added.
    told = ("has no smaller kernels for them.", "of the weights (Add) stay in float.")
    assert all(warning.endswith(told) for warning in made.warnings)
    # Rows, the other embedding and the linear layer with its bias; no scale is counted.
    assert made.census.nonzero_weights <= 40 * 16 + 6 * 16 + 16 * 3 + 3
    assert made.census.nonzero_weights > 0.7 * 40 * 16
