"""Weights of float8: what the file has, and that it is as small as it should be."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.candidate import Candidate
from compress.errors import SettingsError
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

FLOAT8 = LayerFormat(weights="float8")


def lowered(module, inputs, path, *formats):
    rules = tuple(QuantRule(format=format) for format in formats)
    candidate = replace(Candidate.of(module.eval(), inputs[:2]), numerics=Numerics(rules))
    return lower(candidate, Lowering(), calibration=[], check=inputs, path=path)


def wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.Linear(256, 8))


def test_the_file_is_a_quarter_of_that_of_float32(tmp_path):
    inputs = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
    whole = lowered(wide(), inputs, tmp_path / "float32.onnx")
    made = lowered(wide(), inputs, tmp_path / "float8.onnx", FLOAT8)
    weights = 64 * 256 + 256 * 256 + 256 * 8
    assert made.census.weight_bytes["float8e4m3fn"] == weights
    # Beside them a scale for each output, and biases.
    assert made.census.weight_bytes["float32"] == 2 * 4 * (256 + 256 + 8)
    assert made.bytes < 0.27 * whole.bytes
    assert made.parity.r_squared > 0.999999
    assert not made.warnings


def test_the_stored_numbers_are_the_nearest_ones(tmp_path):
    module, inputs = nn.Linear(7, 5), torch.randn(8, 7, generator=torch.Generator().manual_seed(0))
    lowered(module, inputs, tmp_path / "m.onnx", FLOAT8)
    arrays = [numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer]
    (stored,) = (a for a in arrays if a.dtype.name == "float8_e4m3fn")
    weight = module.weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 448
    expected = (weight / scale).to(torch.float8_e4m3fn).float().numpy()
    turned = expected.T if stored.shape == (7, 5) else expected
    assert np.array_equal(stored.astype(np.float32), turned)


def test_small_weights_beside_large_ones_are_kept_where_int8_rounds_them_away():
    weight = torch.tensor([[1.0, 1e-3, -2e-3, 0.0]])
    int8 = LayerFormat(weights="int8").weight_quantizer.fake_quantize(weight, axis=0)
    float8 = FLOAT8.weight_quantizer.fake_quantize(weight, axis=0)
    assert int8[0, 1:].tolist() == [0, 0, 0]
    assert float8[0].tolist() == pytest.approx([1.0, 1e-3, -2e-3, 0.0], rel=1 / 16)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
def test_it_costs_nothing_at_run_time(kind, tmp_path):
    import onnxruntime as ort

    torch.manual_seed(0)
    module, inputs = nn.Sequential(kind(4, 6, 3), nn.ReLU(), kind(6, 4, 3)), torch.randn(8, 4, 16)
    lowered(module, inputs, tmp_path / "m.onnx", FLOAT8)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(tmp_path / "m.onnx"), options)
    left = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert left.isdisjoint({"Cast", "Mul", "DequantizeLinear"})


def test_an_embedding_is_small_in_the_file_and_told_to_be_large_in_memory(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(500, 32), nn.Flatten(), nn.Linear(4 * 32, 3))
    ids = torch.randint(500, (16, 4), generator=torch.Generator().manual_seed(0))
    made = lowered(module, ids, tmp_path / "m.onnx", FLOAT8)
    assert made.census.weight_bytes["float8e4m3fn"] == 500 * 32 + 4 * 32 * 3
    assert made.warnings == (
        "'0': float32 once the file is loaded, since ONNX cannot look up float8.",
    )
    exact = made.parity.sqnr_db is None  # where both sum in the same order, as some CPUs do
    assert exact or made.parity.sqnr_db > 100


def test_zeros_stay_zeros_and_are_counted_as_such(tmp_path):
    module, inputs = wide(), torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        module[2].weight[:, ::2] = 0
        module[2].weight[:, 1::4] *= -1e-9  # rounded to minus zero, which is no weight either
    made = lowered(module, inputs, tmp_path / "m.onnx", FLOAT8)
    kept = 64 * 256 + 256 * 64 + 256 * 8 + 520
    assert 0.95 * kept < made.census.nonzero_weights <= kept


def test_what_stays_in_float_beside_it_is_said(tmp_path):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Parameter(torch.randn(64, 32)), nn.Linear(32, 8)

        def forward(self, x):
            return self.head(x @ self.table)

    torch.manual_seed(0)
    made = lowered(Half(), torch.randn(8, 64), tmp_path / "m.onnx", FLOAT8)
    (note,) = made.warnings
    assert note.endswith("of the weights (MatMul) stay in float.")


@pytest.mark.parametrize("activations", ["int8", "dynamic", "int16"])
def test_integer_activations_need_integer_weights(activations):
    words = rf"activations: {activations} needs integer weights \(int8, .* or int2\); got weights: "
    with pytest.raises(SettingsError, match=words + "float8"):
        LayerFormat(weights="float8", activations=activations)
