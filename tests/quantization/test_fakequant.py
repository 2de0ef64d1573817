import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.quantization.fakequant import (
    called_layers,
    channel_axis,
    declared_formats,
    fake_quantized_copy,
    layers_with_formats,
    observe_ranges,
    quantizable_layers,
    simulate,
)
from compress.quantization.formats import WEIGHTS
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

pytestmark = pytest.mark.fast

INT8 = LayerFormat(weights="int8", activations="int8")
FORMATS = [
    INT8,
    LayerFormat(weights="int8", activations="dynamic"),
    LayerFormat(weights="int8"),
    LayerFormat(weights="int4"),
    LayerFormat(weights="int2", activations="int8"),
    LayerFormat(weights="float16", activations="float16"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3), nn.Flatten(), nn.Linear(384, 3)
    ).eval()


def test_layers_that_can_be_quantized_are_found_by_path():
    assert quantizable_layers(net()) == {"0": "Conv2d", "2": "ConvTranspose2d", "4": "Linear"}


@given(seed=st.integers(0, 10_000), bits=st.sampled_from([2, 4, 8]), safe=st.booleans())
@settings(max_examples=80, deadline=None)
def test_snapped_weights_lie_on_the_grid_within_half_a_step(seed, bits, safe):
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    quantizer = WEIGHTS[f"int{bits}"]
    step = quantizer.scale(weight, axis=0, avoid_saturation=safe)[:, None]
    snapped = quantizer.fake_quantize(weight, axis=0, avoid_saturation=safe)
    levels = snapped / step
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert float(levels.abs().max()) <= 2 ** (bits - 1) - 1 + 1e-4
    assert bool(((snapped - weight).abs() <= step / 2 + 1e-6).all())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_no_pair_of_safe_levels_can_overflow_16_bits(seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 9, generator=generator) + torch.randn(4, 1, generator=generator)
    step = WEIGHTS["int8"].scale(weight, axis=0, avoid_saturation=True)
    levels = (weight / step[:, None]).round()
    for row in levels:
        for part in (row.clamp(min=0), -row.clamp(max=0)):
            assert 255 * float(part.topk(2).values.sum()) <= 32767


def test_the_safe_grid_is_never_coarser_than_half_range_and_finer_for_one_dominant_weight():
    weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.1, -0.9]])
    full = WEIGHTS["int8"].scale(weight, axis=0)
    safe = WEIGHTS["int8"].scale(weight, axis=0, avoid_saturation=True)
    assert safe.tolist() == pytest.approx([2 * float(full[0]), 1.1 * float(full[1])])


def test_a_channel_of_zeros_has_a_grid():
    assert WEIGHTS["int8"].scale(torch.zeros(2, 3), axis=0).tolist() == [1.0, 1.0]


def test_quantizing_before_a_batch_norm_is_folded_gives_the_same_integers():
    weight = torch.randn(4, 5)
    factor = torch.tensor([0.1, -2.0, 3.0, 1.0])
    folded = weight * factor[:, None]
    plain = INT8.weight_quantizer.fake_quantize(weight, axis=0)
    assert torch.allclose(
        INT8.weight_quantizer.fake_quantize(folded, axis=0), plain * factor[:, None], atol=1e-5
    )


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f"{f.weights}-{f.activations}")
def test_simulation_changes_the_outputs_and_leaves_the_module_as_it_was(format):
    module, inputs = net(), torch.randn(8, 1, 8, 8)
    formats = dict.fromkeys(quantizable_layers(module), format)
    state = copy.deepcopy(module.state_dict())
    exact = module(inputs)
    ranges = observe_ranges(module, formats, [inputs])
    with simulate(module, formats, ranges):
        simulated = module(inputs)
    assert not torch.equal(simulated, exact)
    assert torch.equal(module(inputs), exact)
    assert list(module.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in module.modules())


def test_simulation_is_undone_when_the_forward_fails():
    module = net()
    formats = dict.fromkeys(quantizable_layers(module), LayerFormat(weights="int8"))
    with pytest.raises(RuntimeError), simulate(module, formats, {}):
        module(torch.randn(1, 1, 2, 2))
    assert all("weight" not in vars(layer) for layer in module.modules())


def test_gradients_pass_straight_through_to_the_float_parameters():
    module, inputs = net(), torch.randn(4, 1, 8, 8)
    formats = dict.fromkeys(quantizable_layers(module), INT8)
    with simulate(module, formats, observe_ranges(module, formats, [inputs])):
        module(inputs).pow(2).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def test_the_effective_module_has_snapped_weights_and_the_original_none():
    module = net()
    before = module[0].weight.clone()
    snapped = fake_quantized_copy(module, {"0": LayerFormat(weights="int2")})
    assert torch.equal(module[0].weight, before)
    assert len(snapped[0].weight.detach().flatten(1)[0].unique()) <= 3
    assert torch.equal(snapped[4].weight, module[4].weight)


def test_ranges_are_of_the_inputs_of_static_layers_only():
    module = net()
    formats = {"0": INT8, "2": LayerFormat(weights="int8"), "4": INT8}
    inputs = torch.randn(4, 1, 8, 8)
    ranges = observe_ranges(module, formats, [inputs[:2], inputs[2:]])
    assert set(ranges) == {"0", "4"}
    assert ranges["0"] == pytest.approx((float(inputs.min()), float(inputs.max())))


def test_a_static_layer_without_a_range_is_an_error():
    module = net()
    with pytest.raises(KeyError), simulate(module, {"0": INT8}, {}):
        pass


@pytest.mark.parametrize(
    ("layer", "axis"),
    [(nn.Linear(2, 3), 0), (nn.Conv2d(2, 3, 1), 0), (nn.ConvTranspose2d(2, 3, 1), 1)],
)
def test_the_channel_axis_counts_output_channels(layer, axis):
    assert layer.weight.shape[channel_axis(layer)] == 3


def test_dynamic_activations_have_a_range_for_each_sample():
    module = nn.Sequential(nn.Linear(4, 4)).eval()
    formats = {"0": LayerFormat(weights="int8", activations="dynamic")}
    inputs = torch.tensor(np.array([[1, 2, 3, 4], [100, 200, 300, 400]]), dtype=torch.float32)
    with simulate(module, formats, {}):
        together, alone = module(inputs)[:1], module(inputs[:1])
    assert torch.allclose(together, alone, atol=1e-5)


def words():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(24, 3)).eval()


def test_tables_have_formats_for_their_weights_only():
    module = words()
    assert quantizable_layers(module) == {"2": "Linear"}
    assert layers_with_formats(module) == {"0": "Embedding", "2": "Linear"}
    for format in FORMATS:
        numerics = Numerics((QuantRule(format=format),))
        found = declared_formats(module, numerics, torch.zeros(2, 4, dtype=torch.long))
        assert found["2"] == format
        assert found["0"].weights == format.weights
        assert found["0"].activations in ("float32", "float16")


@pytest.mark.parametrize("format", FORMATS)
def test_rows_are_looked_up_from_the_grid_and_learn(format):
    module, ids = words(), torch.arange(8).view(2, 4)
    formats = {"0": format.weights_only}
    seen = []
    module[0].register_forward_hook(lambda _, __, output: seen.append(output))
    with simulate(module, formats, {}, avoid_saturation=True):
        module(ids).sum().backward()
    snapped = format.weight_quantizer.fake_quantize(module[0].weight, axis=0)
    assert torch.equal(seen[0], snapped[ids])
    assert not torch.equal(snapped, module[0].weight)
    assert module[0].weight.grad[:8].any()
    assert torch.equal(fake_quantized_copy(module, formats)[0].weight, snapped)


class Odd(nn.Module):
    """Layers that are called by name, for training only, in vain, and not at all."""

    def __init__(self):
        super().__init__()
        self.table, self.first, self.head = nn.Embedding(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.extra, self.unused, self.spare = nn.Linear(3, 2), nn.Linear(3, 3), nn.Embedding(4, 3)

    def forward(self, x):
        x = self.first(input=nn.functional.dropout(x, 0.5) + self.table.weight.mean())
        self.table(input=torch.zeros(1, dtype=torch.long))
        return self.head(x) + (self.extra(x) if self.training else 0)


def test_layers_are_called_where_inference_calls_them():
    torch.manual_seed(0)
    module, inputs = Odd(), torch.randn(4, 3)
    before = torch.get_rng_state()
    assert called_layers(module, inputs) == {"table", "first", "head"}
    assert torch.equal(torch.get_rng_state(), before)
    assert module.training
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    assert called_layers(nn.Sequential(nn.ReLU()), inputs) == set()


def test_only_layers_that_are_called_have_formats():
    numerics = Numerics((QuantRule(select=("extra", "first", "spare"), format=INT8),))
    formats = declared_formats(Odd(), numerics, torch.randn(4, 3))
    assert list(formats) == ["table", "first", "head"]
    assert [f.needs_range for f in formats.values()] == [False, True, False]


@pytest.mark.parametrize("format", FORMATS)
def test_a_layer_that_is_called_by_the_name_of_its_argument_is_simulated(format):
    class ByPlace(Odd):
        def forward(self, x):
            return self.head(self.first(x))

    class ByName(Odd):
        def forward(self, x):
            return self.head(input=self.first(input=x))

    torch.manual_seed(0)
    place, name, inputs = ByPlace(), ByName(), torch.randn(4, 3)
    name.load_state_dict(place.state_dict())
    formats = {"first": format, "head": format}
    outputs = []
    for module in (place, name):
        ranges = observe_ranges(module, formats, [inputs])
        with simulate(module, formats, ranges):
            outputs.append(module(inputs))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[1], name(inputs))
