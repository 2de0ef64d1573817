import math

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx.export import export
from compress.backends.onnx.files import save
from compress.backends.onnx.parity import (
    Bound,
    bound_of,
    check_parity,
    compare,
    is_right,
    least_r_squared,
    simulated_outputs,
)
from compress.errors import ParityError
from compress.quantization.numerics import LayerFormat

pytestmark = pytest.mark.fast


def test_equal_outputs_have_no_ratio():
    outputs = np.eye(3, dtype=np.float32)
    parity = compare(outputs, outputs)
    assert (parity.agreement, parity.max_error, parity.sqnr_db, parity.samples) == (1, 0, None, 3)
    assert parity.r_squared == 1


def test_known_noise_gives_its_ratio_and_agreement():
    expected = np.array([[10.0, 0.0], [0.0, 10.0]])
    actual = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert compare(expected, actual).sqnr_db == pytest.approx(20)
    assert compare(expected, actual[::-1]).agreement == 0


def test_classes_are_on_axis_one_and_single_outputs_have_none():
    pixels = np.zeros((1, 2, 2, 2))
    pixels[:, 1, 0] = 1
    other = pixels.copy()
    other[:, 1, 0, 0] = -1
    assert compare(pixels, other).agreement == 0.75
    for shape in ((4, 1), (4,)):
        assert math.isnan(compare(np.ones(shape), -np.ones(shape)).agreement)


RNG = np.random.default_rng(0)
OUTPUTS = {
    "classes": (256, 10),
    "one value": (256, 1),
    "one logit, flat": (256,),
    "four values": (256, 4),
    "image": (16, 1, 8, 8),
    "masks": (16, 5, 8, 8),
    "tokens": (16, 12, 30),
}
FORMATS = {
    "float32": LayerFormat(),
    "integer weights": LayerFormat(weights="int4"),
    "float8": LayerFormat(weights="float8"),
    "float16": LayerFormat(weights="float16", activations="float16"),
    "dynamic": LayerFormat(weights="int8", activations="dynamic"),
    "int8": LayerFormat(weights="int8", activations="int8"),
    "int16": LayerFormat(weights="int8", activations="int16"),
    "coarse": LayerFormat(weights="int2", activations="int8"),
}


@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize("cost", [1e-5, 1e-2, 0.5, 3.0])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_nothing_that_ignores_the_inputs_is_right(kind, format, cost, offset):
    rng = np.random.default_rng(0)  # its own: one of all would depend on which tests ran before
    expected = rng.normal(size=OUTPUTS[kind]) + offset
    simulated = expected + np.sqrt(cost) * rng.normal(size=expected.shape)
    least = least_r_squared([FORMATS[format]], expected, simulated)
    assert least >= 0
    swapped, drawn = simulated[::-1], rng.permuted(simulated, axis=0)
    noise = rng.normal(simulated.mean(), simulated.std(), simulated.shape)
    for other in (swapped, drawn, noise):
        parity = compare(simulated, other)
        assert parity.r_squared < -0.5
        assert not is_right(parity, simulated, least=least, is_float=False)
    # What the format itself does to the outputs is allowed, however much it is.
    again = simulated + np.sqrt(cost) * 0.9 * rng.normal(size=expected.shape) * (cost < 0.3)
    if format in ("dynamic", "int8", "coarse") and cost >= 1e-2:
        assert is_right(compare(simulated, again), simulated, least=least, is_float=False)


@pytest.mark.parametrize(("format", "step"), [("int8", 1 / 255), ("dynamic", 1 / 255)])
def test_outputs_that_vary_by_less_than_a_step_are_right_within_one(format, step):
    """As the scores of a detector that has learned nothing, whose R² says nothing."""
    noise = np.random.default_rng(0).uniform(0, 1, (16, 12, 3))
    nearly_constant = -4.6 + 4 * step * noise
    bound = bound_of([FORMATS[format]], nearly_constant, nearly_constant, is_float=False)
    assert bound.step == pytest.approx(4.6 * step, rel=0.01)
    assert bound_of([FORMATS["float32"]], nearly_constant, nearly_constant, is_float=True).step == 0
    wider = -4.6 + 20 * step * noise
    assert bound_of([FORMATS[format]], wider, wider, is_float=False).step == 0


def test_a_constant_net_is_held_to_its_constant():
    constant = np.full((8, 3), 2.0)
    assert compare(constant, constant * 1.001).r_squared == pytest.approx(1 - 1e-6)
    assert compare(np.zeros((8, 3)), np.ones((8, 3))).r_squared < 0


def test_of_one_sample_the_mean_is_that_of_its_values():
    one = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert compare(one, np.full((1, 4), 2.5)).r_squared == 0


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    module = nn.Linear(4, 3).eval()
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    save(ir.to_proto(export(module, torch.zeros(1, 4), Lowering())), path)
    check = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    return path, check, module


def expected_outputs(linear):
    _, check, module = linear
    return simulated_outputs(module, check, {}, {}, avoid_saturation=False)["output"]


@pytest.mark.parametrize(
    ("error", "is_float", "fails"),
    [(1e-5, True, False), (5e-3, True, True), (5e-3, False, False)],
)
def test_a_float_artifact_is_held_to_a_thousandth(error, is_float, fails, linear):
    path, check, _ = linear
    expected = expected_outputs(linear)
    bounds = {"output": Bound(0.99, is_float)}
    shifted = expected + error * np.abs(expected).max()
    if fails:
        with pytest.raises(ParityError, match=r"the float32 artifact .* largest error .* samples"):
            check_parity(path, check, {"output": shifted}, bounds)
    else:
        parity = check_parity(path, check, {"output": shifted}, bounds)
        assert parity.samples == 32


def test_a_quantized_artifact_is_held_to_its_bound_and_the_operator_is_named(linear):
    path, check, _ = linear
    expected, bounds = expected_outputs(linear), {"output": Bound(0.5, is_float=False)}
    message = r"quantized artifact .* R² -?[\d.]+, the same class for .* 0\.5 or more; .* X: excl"
    with pytest.raises(ParityError, match=message):
        check_parity(path, check, {"output": -expected}, bounds, where=lambda: "X")
    assert check_parity(path, check, {"output": 1.3 * expected}, bounds).r_squared > 0.5


def test_outputs_that_are_not_finite_are_refused(linear):
    path, check, _ = linear
    bounds = {"output": Bound(0.9, is_float=True)}
    with pytest.raises(ParityError, match="gives outputs that are not finite where its module"):
        check_parity(path, check * torch.nan, {"output": expected_outputs(linear)}, bounds)


def test_the_simulation_leaves_the_module_as_it_was(linear):
    _, check, module = linear
    before = module.weight.clone()
    format = LayerFormat(weights="int2", activations="int8")
    rough = simulated_outputs(
        module, check, {"": format}, {"": (-1.0, 1.0)}, avoid_saturation=False
    )
    assert torch.equal(module.weight, before)
    assert not module._forward_hooks
    assert np.abs(rough["output"] - expected_outputs(linear)).max() > 0.01


def test_what_float32_cannot_tell_from_rounding_is_no_variance():
    # As deep nets without training have it: outputs that hardly depend on the input.
    expected = 1 + 1e-6 * RNG.normal(size=(64, 4))
    rounded = expected * (1 + 1e-7 * RNG.normal(size=expected.shape))
    assert is_right(compare(expected, rounded), expected, least=0.9999, is_float=True)
    assert not is_right(compare(expected, expected * 1.05), expected, least=0.9999, is_float=True)
