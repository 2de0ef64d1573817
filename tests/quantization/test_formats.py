"""What holds of every number format, whatever it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.errors import SettingsError
from compress.quantization import formats
from compress.quantization.formats import (
    ACTIVATIONS,
    FORMATS,
    WEIGHTS,
    default_activations,
    why_not_together,
)
from compress.quantization.formats.base import Pattern, ScaledWeights
from compress.quantization.formats.uniform import StaticActivations
from compress.quantization.numerics import LayerFormat
from compress.stages.quantize import QuantizeStage

pytestmark = pytest.mark.fast

SCALED = [name for name, quantizer in WEIGHTS.items() if isinstance(quantizer, ScaledWeights)]
STATIC = [name for name, each in ACTIVATIONS.items() if isinstance(each, StaticActivations)]
PAIRS = [(weights, activations) for weights in WEIGHTS for activations in ACTIVATIONS]
BOUNDS = (-3.0, 2.0)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def column(scale, dims, axis):
    shape = [1] * dims
    shape[axis] = -1
    return scale.reshape(shape)


def test_formats_are_listed_once():
    names = [format.name for format in FORMATS]
    assert len(set(names)) == len(names)
    assert all(format.weights or format.activations for format in FORMATS)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", WEIGHTS)
def test_rounded_weights_keep_shape_sign_and_zeros_and_are_rounded_once(name, axis):
    weight = numbers(6, 5, 3) * numbers(6, 5, 3, seed=1).exp()
    weight[:, :, 1] = 0
    rounded = WEIGHTS[name].fake_quantize(weight, axis=axis)
    assert rounded.shape == weight.shape
    assert rounded.dtype == torch.float32
    assert not rounded[weight == 0].any()
    assert bool((rounded * weight >= 0).all())
    assert torch.allclose(WEIGHTS[name].fake_quantize(rounded, axis=axis), rounded, rtol=1e-6)


@pytest.mark.parametrize("name", WEIGHTS)
def test_gradients_of_weights_pass_straight_through(name):
    weight = numbers(4, 5).requires_grad_()
    (WEIGHTS[name].fake_quantize(weight, axis=0) * 3).sum().backward()
    assert torch.allclose(weight.grad, torch.full((4, 5), 3.0))


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_channel_of_zeros_stays_one(name):
    weight = numbers(3, 4)
    weight[1] = 0
    rounded = WEIGHTS[name].fake_quantize(weight, axis=0, avoid_saturation=True)
    assert not rounded[1].any()
    assert bool(rounded.isfinite().all())


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", SCALED)
def test_what_is_stored_times_its_scale_is_the_rounded_weight(name, axis, safe):
    import onnx_ir as ir

    quantizer, weight = WEIGHTS[name], numbers(7, 9)
    rounded = quantizer.fake_quantize(weight, axis=axis, avoid_saturation=safe)
    scale = column(quantizer.scale(weight, axis=axis, avoid_saturation=safe), 2, axis)
    stored = quantizer.encode(rounded, scale)
    kind = ir.DataType[quantizer.onnx_type]
    assert stored.itemsize * 8 == kind.bitwidth >= quantizer.bits
    values = stored.view(kind.numpy()).astype(np.float32) * scale.numpy()
    assert np.allclose(values, rounded.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", SCALED)
def test_each_channel_has_a_scale_of_its_own(name):
    weight = numbers(3, 50)
    times = torch.tensor([1.0, 1024.0, 2.0**-10])[:, None]
    once, scaled = (WEIGHTS[name].fake_quantize(w, axis=0) for w in (weight, weight * times))
    assert torch.allclose(once * times, scaled, rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_rounded_activations_keep_zeros_and_are_rounded_once(name):
    values = numbers(4, 30).clamp(*BOUNDS)
    values[:, 0], values[:, 1], values[:, 2] = 0, BOUNDS[0], BOUNDS[1]
    once = ACTIVATIONS[name].fake_quantize(values, BOUNDS)
    assert once.shape == values.shape
    assert not once[:, 0].any()
    assert torch.allclose(ACTIVATIONS[name].fake_quantize(once, BOUNDS), once, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_of_activations_pass_straight_through_inside_the_range(name):
    values = numbers(4, 6).clamp(-1, 1).requires_grad_()
    (ACTIVATIONS[name].fake_quantize(values, BOUNDS) * 3).sum().backward()
    assert torch.allclose(values.grad, torch.full((4, 6), 3.0))


@pytest.mark.parametrize("name", STATIC)
def test_a_static_grid_has_all_its_levels_and_clips_outside_of_them(name):
    quantizer = ACTIVATIONS[name]
    scale, zero = quantizer.grid(*BOUNDS)
    assert quantizer.levels == 2**quantizer.bits - 1
    assert scale * quantizer.levels == pytest.approx(BOUNDS[1] - BOUNDS[0])
    ends = quantizer.fake_quantize(torch.tensor([-100.0, 100.0]), BOUNDS)
    assert ends.tolist() == pytest.approx([-zero * scale, (quantizer.levels - zero) * scale])
    inside = numbers(1000).clamp(*BOUNDS)
    assert float((quantizer.fake_quantize(inside, BOUNDS) - inside).abs().max()) <= 0.51 * scale


@pytest.mark.parametrize(("weights", "activations"), PAIRS)
def test_a_stage_takes_exactly_the_pairs_that_go_together(weights, activations):
    reason = why_not_together(weights, activations)
    if reason is None:
        stage = QuantizeStage(weights=weights, activations=activations)
        assert stage.format == LayerFormat(weights=weights, activations=activations)
        assert stage.format.weights_only.weights == weights
        return
    assert f"weights: {weights}" in reason
    with pytest.raises(SettingsError) as caught:
        QuantizeStage(weights=weights, activations=activations)
    assert reason in str(caught.value)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_alone_are_a_whole_decision(weights):
    stage = QuantizeStage(weights=weights)
    assert stage.activations == (default_activations(weights) or "int8")
    assert (stage.activations == "int8") <= WEIGHTS[weights].is_integer


def test_a_format_may_say_which_activations_its_weights_have(monkeypatch):
    [known] = [one for one in formats.FORMATS if one.name == "int4"]
    alone = replace(known, default_activations="float32")
    monkeypatch.setattr(formats, "FORMATS", (alone,))
    assert default_activations("int4") == "float32"
    assert QuantizeStage(weights="int4").activations == "float32"
    assert QuantizeStage(weights="int4", activations="dynamic").activations == "dynamic"


@pytest.mark.parametrize("weights", ["int9", None, ["float16"], {}])
def test_what_is_no_format_has_no_activations_of_its_own(weights):
    assert default_activations(weights) is None
    with pytest.raises(SettingsError, match="weights: should be 'float32', 'float16', 'int8'"):
        QuantizeStage(weights=weights)


@pytest.mark.parametrize("field", ["weights", "activations"])
def test_the_schema_names_the_formats_of_the_list(field):
    known = {"weights": WEIGHTS, "activations": ACTIVATIONS}[field]
    assert QuantizeStage.model_json_schema()["properties"][field]["enum"] == list(known)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_recurrent_layer_never_has_a_fixed_range(name):
    quantizer = ACTIVATIONS[name]
    weights = "float16" if name == "float16" else "float32"
    weights = "int8" if quantizer.needs_integer_weights else weights
    computed = LayerFormat(weights=weights, activations=name).recurrent
    assert computed.activation_quantizer.pattern is not Pattern.STATIC
    assert computed.weights == weights


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_tolerance_is_stated_for_all_that_rounds(name):
    quantizer = ACTIVATIONS[name]
    assert (quantizer.tolerance is None) == (quantizer.pattern is Pattern.FLOAT32)
    if quantizer.tolerance is not None:
        assert 0 < quantizer.tolerance.least <= quantizer.tolerance.most < 1
        assert 0 < quantizer.tolerance.step < 1
