"""Recurrent layers: their steps in plain operators, and how they compute in their formats."""

import copy

import pytest
import torch
from torch import nn

from compress.quantization import recurrent
from compress.quantization.fakequant import (
    as_computed,
    called_layers,
    declared_formats,
    fake_quantized_copy,
    layers_with_formats,
    observe_ranges,
    quantizable_layers,
    simulate,
    weight_axes,
)
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.quantization.recurrent import StepByStep, has_int8_kernel, is_stepwise, weight_names

# torch says once in a process that a projection has no faster kernel.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

STATIC = LayerFormat(weights="int8", activations="int8")
DYNAMIC = LayerFormat(weights="int8", activations="dynamic")
WEIGHTS = LayerFormat(weights="int8")
HALF = LayerFormat(weights="float16", activations="float16")
FORMATS = [STATIC, DYNAMIC, WEIGHTS, LayerFormat(weights="int2"), HALF]

LAYERS = {
    "lstm": (nn.LSTM, {}),
    "lstm-bi": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lstm-plain": (nn.LSTM, {"bias": False, "bidirectional": True}),
    "lstm-proj": (nn.LSTM, {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
    "lstm-proj-plain": (nn.LSTM, {"proj_size": 3, "bias": False, "batch_first": True}),
    "gru": (nn.GRU, {"num_layers": 2, "bidirectional": True}),
    "rnn": (nn.RNN, {"nonlinearity": "relu", "batch_first": True}),
}
CELLS = {
    "lstm-cell": (nn.LSTMCell, {}),
    "gru-cell": (nn.GRUCell, {}),
    "rnn-cell": (nn.RNNCell, {}),
    "relu-cell": (nn.RNNCell, {"nonlinearity": "relu", "bias": False}),
}


def build(name):
    kind, options = (LAYERS | CELLS)[name]
    torch.manual_seed(0)
    return kind(6, 5, **options).eval()


def inputs_of(name):
    shape = (4, 6) if name in CELLS else (4, 7, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def state_of(layer):
    draw = torch.Generator().manual_seed(2)
    if isinstance(layer, nn.RNNCellBase):
        hidden, cell = (torch.randn(4, 5, generator=draw) for _ in range(2))
    else:
        rows = layer.num_layers * (2 if layer.bidirectional else 1)
        samples = 4 if layer.batch_first else 7
        width = getattr(layer, "proj_size", 0) or 5
        hidden = torch.randn(rows, samples, width, generator=draw)
        cell = torch.randn(rows, samples, 5, generator=draw)
    return (hidden, cell) if isinstance(layer, (nn.LSTM, nn.LSTMCell)) else hidden


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flat(part)]


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("name", [*(n for n in LAYERS if n.startswith("lstm")), *CELLS])
def test_steps_compute_what_torch_computes_at_once(name, given):
    layer, inputs = build(name), inputs_of(name)
    state = (state_of(layer),) if given else ()
    rounded = []
    with StepByStep(lambda values: rounded.append(values) or values):
        steps = layer(inputs, *state)
    assert rounded
    for one, other in zip(flat(steps), flat(layer(inputs, *state)), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_without_rounding_only_projections_are_computed_in_steps(monkeypatch):
    seen, steps = [], recurrent._lstm
    monkeypatch.setattr(recurrent, "_lstm", lambda *given: seen.append(given) or steps(*given))
    for name in ("lstm-bi", "lstm-cell", "gru", "lstm-proj"):
        layer, inputs = build(name), inputs_of(name)
        with StepByStep():
            made = flat(layer(inputs))
        assert len(seen) == (name == "lstm-proj")
        pairs = zip(made, flat(layer(inputs)), strict=True)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_packed_sequences_are_left_to_torch():
    layer, inputs = build("lstm-bi"), inputs_of("lstm-bi")
    packed = nn.utils.rnn.pack_padded_sequence(inputs, torch.tensor([7, 5, 3, 1]), batch_first=True)
    with StepByStep(lambda values: values * 0):
        steps = layer(packed)[0].data
    assert torch.equal(steps, layer(packed)[0].data)


def test_dropout_between_layers_is_of_training_only():
    layer = nn.LSTM(6, 5, num_layers=2, dropout=0.5)
    inputs = inputs_of("lstm")
    with StepByStep(lambda values: values):
        torch.manual_seed(3)
        first, second = layer(inputs)[0], layer(inputs)[0]
        layer.eval()
        calm, again = layer(inputs)[0], layer(inputs)[0]
    assert not torch.equal(first, second)
    assert torch.equal(calm, again)


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_every_weight_is_known_and_counts_its_rows_on_the_first_axis(name):
    layer = build(name)
    names = weight_names(layer)
    assert set(names) == {n for n, _ in layer.named_parameters() if not n.startswith("bias")}
    assert weight_axes(layer) == dict.fromkeys(names, 0)
    per_layer = 3 if "proj" in name else 2
    layers = getattr(layer, "num_layers", 1) * (2 if getattr(layer, "bidirectional", 0) else 1)
    assert len(names) == per_layer * layers


def test_recurrent_layers_have_formats_and_are_no_single_products():
    net = nn.ModuleDict({name: build(name) for name in ("lstm", "gru", "rnn", "gru-cell")})
    kinds = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "gru-cell": "GRUCell"}
    assert layers_with_formats(net) == kinds
    assert quantizable_layers(net) == {}
    assert weight_axes(nn.ConvTranspose1d(2, 3, 1)) == {"weight": 1}


@pytest.mark.parametrize(
    ("name", "static", "dynamic"),
    [
        ("lstm", DYNAMIC, DYNAMIC),
        ("lstm-cell", DYNAMIC, DYNAMIC),
        ("gru-cell", DYNAMIC, DYNAMIC),
        ("lstm-proj", WEIGHTS, WEIGHTS),
        ("gru", WEIGHTS, WEIGHTS),
        ("rnn", WEIGHTS, WEIGHTS),
    ],
)
def test_a_format_comes_to_what_there_is_a_kernel_for(name, static, dynamic):
    layer = build(name)
    assert as_computed(layer, STATIC) == static
    assert as_computed(layer, DYNAMIC) == dynamic
    assert as_computed(layer, WEIGHTS) == WEIGHTS
    assert as_computed(layer, HALF) == HALF
    assert has_int8_kernel(layer) == (static == DYNAMIC)
    assert is_stepwise(layer) == ("cell" in name or "proj" in name)


class Net(nn.Module):
    def __init__(self, name="lstm-bi"):
        super().__init__()
        self.layer, self.name = build(name), name
        self.spare = nn.GRU(6, 5)

    def forward(self, x):
        return flat(self.layer(input=x))[0] ** 2


def test_what_is_called_by_name_has_its_format_and_what_is_not_called_has_none():
    module = Net()
    assert called_layers(module, inputs_of("lstm-bi")) == {"layer"}
    numerics = Numerics((QuantRule(select=("type:LSTM",), format=STATIC),))
    formats = declared_formats(module, numerics, inputs_of("lstm-bi"))
    assert formats == {"layer": DYNAMIC}
    assert observe_ranges(module, formats, [inputs_of("lstm-bi")]) == {}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_a_simulated_layer_computes_with_snapped_weights_and_is_itself_again(name, format):
    module, inputs = Net(name), inputs_of(name)
    format = as_computed(module.layer, format)
    exact, state = module(inputs), copy.deepcopy(module.state_dict())
    with simulate(module, {"layer": format}, {}):
        simulated = module(inputs)
        copied = copy.deepcopy(module)  # as a running average of the weights is made
    assert not torch.equal(simulated, exact)
    if format.activations == "float32":
        assert torch.allclose(
            simulated, fake_quantized_copy(module, {"layer": format})(inputs), atol=1e-6
        )
    for own in (module, copied.cpu()):
        assert list(own.state_dict()) == list(state)
        assert all(torch.equal(value, state[key]) for key, value in own.state_dict().items())
    assert torch.equal(module(inputs), exact)
    assert not any(name.startswith("weight") for name in vars(module.layer))
    assert all(w.is_leaf for w in getattr(module.layer, "_flat_weights", []))


def test_a_fake_quantized_copy_has_every_weight_on_the_grid_of_its_rows():
    layer = nn.Sequential(build("lstm-proj"))
    snapped = fake_quantized_copy(layer, {"0": WEIGHTS})
    for name in weight_names(layer[0]):
        weight = layer[0].get_parameter(name)
        expected = WEIGHTS.weight_quantizer.fake_quantize(weight, axis=0)
        assert torch.equal(snapped[0].get_parameter(name), expected), name
        assert not torch.equal(expected, weight)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_gradients_reach_every_float_parameter(name, format):
    module = Net(name).train()
    format = as_computed(module.layer, format)
    state = (state_of(module.layer),)
    with simulate(module, {"layer": format}, {}, avoid_saturation=True):
        sum(part.pow(2).sum() for part in flat(module.layer(inputs_of(name), *state))).backward()
    for parameter in module.layer.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any())


def test_dynamic_ranges_are_of_each_sample_and_step():
    module, inputs = Net("lstm-bi"), inputs_of("lstm-bi")
    inputs = inputs * torch.tensor([1.0, 10, 100, 1000])[:, None, None]
    with simulate(module, {"layer": DYNAMIC}, {}):
        together, alone = module(inputs)[:1], module(inputs[:1])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_state_is_rounded_at_each_step_and_not_what_it_is_mixed_with():
    # The update gate of a GRU is shut: it keeps its state, which no rounding may touch.
    cell = build("gru-cell")
    with torch.no_grad():
        cell.bias_ih[5:10] = 50
    state = state_of(cell)
    with simulate(nn.Sequential(cell), {"0": DYNAMIC}, {}):
        assert torch.allclose(cell(inputs_of("gru-cell"), state), state, atol=1e-6)


def test_a_forward_that_fails_leaves_nothing_behind():
    module = Net()
    with pytest.raises(RuntimeError), simulate(module, {"layer": DYNAMIC}, {}):
        module(torch.randn(2, 3, 4))
    assert not any(name.startswith("weight") for name in vars(module.layer))
    assert not torch.overrides._get_current_function_mode_stack()
