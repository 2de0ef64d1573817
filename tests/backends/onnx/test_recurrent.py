"""Recurrent layers: each kind in each format, against its simulation and against itself."""

import functools
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.backends.onnx.encoding import encode
from compress.backends.onnx.export import export
from compress.backends.onnx.files import save
from compress.backends.onnx.parity import compare
from compress.candidate import Candidate
from compress.errors import LoweringError
from compress.quantization.fakequant import declared_formats, simulate, weight_axes
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from tests.covering import covering

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

FORMATS = {
    "float": LayerFormat(),
    "static": LayerFormat(weights="int8", activations="int8"),
    "static-int16": LayerFormat(weights="int8", activations="int16"),
    "dynamic": LayerFormat(weights="int8", activations="dynamic"),
    "weights": LayerFormat(weights="int8"),
    "int4": LayerFormat(weights="int4"),
    "int2": LayerFormat(weights="int2", activations="dynamic"),
    "float8": LayerFormat(weights="float8"),
    "half": LayerFormat(weights="float16", activations="float16"),
}
#: Least signal-to-noise ratio in dB against the simulated module, and against the float one.
#: What is rounded while it runs may lie between two steps, and fall to either side.
BOUNDS = {
    "float": (100, 100),
    "static": (55, 30),
    "static-int16": (100, 30),
    "dynamic": (55, 30),
    "weights": (100, 30),
    "int4": (100, 12),
    "int2": (55, 0),
    "float8": (100, 25),
    "half": (55, 55),
}


class Net(nn.Module):
    """A recurrent layer whose outputs and last states are both read; it may be given states."""

    def __init__(self, kind, states=False, size=24, **options):
        super().__init__()
        self.rnn, self.states = kind(12, size, **options), states
        rows = self.rnn.num_layers * (2 if self.rnn.bidirectional else 1)
        self.hidden = nn.Parameter(torch.randn(rows, 1, self.rnn.proj_size or size))
        self.cell = nn.Parameter(torch.randn(rows, 1, size))

    def forward(self, x):
        first = self.rnn.batch_first
        given = [state * x.mean((1, 2))[:, None] for state in (self.hidden, self.cell)]
        state = tuple(given) if isinstance(self.rnn, nn.LSTM) else given[0]
        made, last = self.rnn(x if first else x.transpose(0, 1), *([state] if self.states else []))
        made = made if first else made.transpose(0, 1)
        last = last if isinstance(self.rnn, nn.LSTM) else (last,)
        return torch.cat([made.flatten(1), *(s.transpose(0, 1).flatten(1) for s in last)], 1)


class Cells(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(12, 24)

    def forward(self, x):
        state, outputs = None, []
        for step in x.unbind(1)[:5]:
            state = self.rnn(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs, 1)


BI = {"num_layers": 2, "bidirectional": True}
NETS = {
    "lstm": lambda: Net(nn.LSTM, batch_first=True),
    "lstm-bi": lambda: Net(nn.LSTM, states=True, **BI),
    "lstm-plain": lambda: Net(nn.LSTM, bias=False, batch_first=True, bidirectional=True),
    "lstm-wide": lambda: Net(nn.LSTM, size=96, batch_first=True, bidirectional=True),
    "lstm-proj": lambda: Net(nn.LSTM, states=True, proj_size=6, bidirectional=True),
    "gru": lambda: Net(nn.GRU, batch_first=True),
    "gru-bi": lambda: Net(nn.GRU, states=True, size=96, **BI),
    "rnn": lambda: Net(nn.RNN, batch_first=True, nonlinearity="relu"),
    "rnn-bi": lambda: Net(nn.RNN, states=True, **BI),
    "rnn-plain": lambda: Net(nn.RNN, bias=False, batch_first=True),
    "lstm-cell": lambda: Cells(nn.LSTMCell),
    "gru-cell": lambda: Cells(nn.GRUCell),
    "rnn-cell": lambda: Cells(nn.RNNCell),
}


def rows(count, seed=1):
    return torch.randn(count, 6, 12, generator=torch.Generator().manual_seed(seed))


@functools.cache
def exported(name):
    torch.manual_seed(0)
    module = NETS[name]().eval()
    model = export(module, rows(2), Lowering())
    return module, ir.to_proto(model).SerializeToString()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recurrent")

    @functools.cache
    def encoded(name, kind):
        module, proto = exported(name)
        rule = QuantRule(format=FORMATS[kind])
        formats = declared_formats(module, Numerics((rule,)), rows(2))
        model = ir.from_proto(onnx.ModelProto.FromString(proto))
        encoded = encode(model, formats, [rows(8)], avoid_saturation=True)
        path = folder / f"{name}-{kind}.onnx"
        save(ir.to_proto(encoded.model), path)
        return path, formats

    return encoded


def run(path, inputs):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (feed,) = session.get_inputs()
    batch = feed.shape[0]
    parts = [inputs[start : start + batch].numpy() for start in range(0, len(inputs), batch)]
    return np.concatenate([session.run(None, {feed.name: part})[0] for part in parts])


def weights_of(layer):
    return [layer.get_parameter(name).detach().numpy() for name in weight_axes(layer)]


def constants(path):
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]


@pytest.mark.parametrize(("name", "kind"), covering(NETS, FORMATS, each=4))
def test_a_file_computes_what_its_module_computes(name, kind, made):
    path, formats = made(name, kind)
    module, _ = exported(name)
    inputs = rows(16)
    with torch.no_grad():
        exact = module(inputs).numpy()
        with simulate(module, formats, {}, avoid_saturation=True):
            simulated = module(inputs).numpy()
    actual = run(path, inputs)
    for expected, least in zip((simulated, exact), BOUNDS[kind], strict=True):
        found = compare(expected, actual).sqnr_db
        assert found is None or found > least


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_weights_are_stored_once_in_their_format_and_never_in_float32(name, kind, made):
    path, _ = made(name, kind)
    module, _ = exported(name)
    count = sum(weight.size for weight in weights_of(module.rnn))
    types = {"float": "float32", "half": "float16", "float8": "float8_e4m3fn"}
    dtype = types.get(kind, "int8")
    stored = sum(array.size for array in constants(path) if array.dtype == dtype)
    others = sum(array.size for array in constants(path) if array.dtype == "float32")
    rows_in_all = sum(len(weight) for weight in weights_of(module.rnn))
    # Beside them zero points, or biases; in float32 biases, what states are made of, and steps.
    assert count <= stored <= count + 2 * rows_in_all
    assert kind == "float" or others <= 4 * rows_in_all


@pytest.mark.parametrize("name", ["lstm", "lstm-bi", "lstm-plain", "lstm-wide"])
def test_an_int8_lstm_is_the_kernel_that_finds_its_ranges_itself(name, made):
    for kind in ("static", "dynamic", "int2"):
        path, _ = made(name, kind)
        found = [node.op_type for node in onnx.load(path).graph.node]
        assert "LSTM" not in found
        assert found.count("DynamicQuantizeLSTM") == (2 if name == "lstm-bi" else 1)
        onnx.checker.check_model(onnx.load(path))


@pytest.mark.parametrize("name", ["lstm", "lstm-wide", "gru", "gru-bi", "rnn", "rnn-bi"])
@pytest.mark.parametrize("kind", ["float", "weights", "float8", "half"])
def test_nothing_but_the_layers_is_left_when_the_file_is_loaded(name, kind, made, tmp_path):
    path, _ = made(name, kind)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    kinds = {"LSTM", "GRU", "RNN"}
    assert len(left & kinds) == 1
    moves = {"Concat", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
    assert left - kinds <= moves | {"Mul", "ReduceMean"}  # the last two make the states


def test_steps_that_share_a_weight_share_its_floats(made):
    for name in ("lstm-cell", "lstm-proj"):
        path, _ = made(name, "weights")
        operators = [node.op_type for node in onnx.load(path).graph.node]
        module, _ = exported(name)
        assert operators.count("Cast") == len(weights_of(module.rnn))


def test_a_layer_of_rnn_is_one_operator_whatever_the_steps():
    module = Net(nn.RNN, **BI).eval()
    for steps in (3, 30):
        model = export(module, torch.randn(1, steps, 12), Lowering())
        assert [node.op_type for node in model.graph].count("RNN") == 2
        assert len([*model.graph]) < 20


def lowered(module, path, *rules, inputs=None, batch=1):
    inputs = rows(24) if inputs is None else inputs
    candidate = Candidate.of(module.eval(), inputs[:2])
    candidate = replace(candidate, numerics=Numerics(rules))
    lowering = Lowering(batch=batch, avoid_saturation=True)
    return lower(candidate, lowering, calibration=[inputs], check=inputs, path=path)


class Tagger(nn.Module):
    """Of every kind one, with layers of other kinds between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.lstm = nn.Linear(12, 16), nn.LSTM(16, 16, batch_first=True)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.rnn = nn.RNN(16, 16, batch_first=True)
        self.proj = nn.LSTM(16, 16, proj_size=8, batch_first=True)
        self.cell, self.head = nn.GRUCell(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.enter(x))
        for layer in (self.lstm, self.gru, self.rnn, self.proj):
            x, _ = layer(x)
        return self.head(self.cell(x[:, -1], x[:, 0]))


_FLOAT = "integer weights and float32 arithmetic, since onnxruntime has no int8"
NO_KERNEL = {
    f"'gru': {_FLOAT} GRU.",
    f"'rnn': {_FLOAT} RNN.",
    f"'proj': {_FLOAT} LSTM with a projection.",
}
NO_RANGE = {
    "'lstm': dynamic int8, since onnxruntime has no static int8 LSTM.",
    "'cell': dynamic int8, since the range of a cell's state changes from step to step.",
}
NO_HALF = {
    f"{name!r}: float16 weights and float32 arithmetic, since onnxruntime has no float16 "
    f"{name.upper()} on a CPU."
    for name in ("lstm", "gru", "rnn")
}


@pytest.mark.parametrize(
    ("kind", "notes"),
    [
        ("static", NO_KERNEL | NO_RANGE),
        ("dynamic", NO_KERNEL),
        ("half", NO_HALF),
        ("weights", set()),
        ("float", set()),
    ],
)
def test_an_artifact_says_what_its_recurrent_layers_compute_with(kind, notes, tmp_path):
    artifact = lowered(Tagger(), tmp_path / "m.onnx", QuantRule(format=FORMATS[kind]))
    assert {note for note in artifact.warnings if note.startswith("'")} == notes
    assert artifact.parity.sqnr_db > {"static": 35, "half": 55}.get(kind, 60)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_batch_has_one_range_and_stays_near_its_simulation(kind, tmp_path):
    inputs = rows(24) * torch.linspace(0.5, 2, 24)[:, None, None]
    rule = QuantRule(format=FORMATS[kind])
    path = tmp_path / "m.onnx"
    artifact = lowered(Net(nn.LSTM, batch_first=True), path, rule, inputs=inputs, batch=4)
    assert artifact.parity.sqnr_db > 30


class Two(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.first(x)[0][:, -1] + self.second(x * 2)[0][:, -1]


def pair():
    torch.manual_seed(0)
    return [nn.LSTM(12, 24, batch_first=True) for _ in range(2)]


def test_a_layer_without_a_format_beside_one_with_it_shares_nothing_with_it(tmp_path):
    rule = QuantRule(select=("first",), format=FORMATS["dynamic"])
    artifact = lowered(Two(*pair()), tmp_path / "m.onnx", rule)
    assert not [note for note in artifact.warnings if "copied" in note]  # states of zeros, say
    assert artifact.census.operators["LSTM"] == 1
    assert artifact.census.operators["DynamicQuantizeLSTM"] == 1


@pytest.mark.parametrize("kind", ["dynamic", "weights", "float8", "half"])
def test_tied_layers_are_stored_once_and_twice_where_their_formats_differ(kind, tmp_path):
    first, second = pair()
    for name, parameter in first.named_parameters():
        setattr(second, name, parameter)
    both, one = QuantRule(format=FORMATS[kind]), QuantRule(format=LayerFormat(), select=("second",))
    tied = lowered(Two(first, second), tmp_path / "tied.onnx", both)
    twice = lowered(Two(first, first), tmp_path / "twice.onnx", both)
    assert tied.census.weight_bytes == twice.census.weight_bytes
    apart = lowered(Two(first, second), tmp_path / "apart.onnx", both, one)
    assert "'first': a weight that is shared with other formats was copied." in apart.warnings
    assert apart.census.weight_bytes["float32"] >= sum(w.nbytes for w in weights_of(second))


class Own(nn.LSTM):
    """A subclass that does something of its own before and after."""

    def forward(self, x, hx=None):
        made, _ = super().forward(torch.tanh(x), hx)
        return made[:, torch.tensor([2, 1, 0])]


@pytest.mark.parametrize("kind", ["dynamic", "weights", "float8", "half"])
def test_what_a_subclass_does_around_its_layer_has_no_format(kind, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(Own(12, 24, batch_first=True), nn.Flatten(), nn.Linear(72, 4))
    artifact = lowered(net, tmp_path / "m.onnx", QuantRule(format=FORMATS[kind]))
    assert artifact.parity.sqnr_db > 55


class Unbatched(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(12, 24), nn.Linear(24, 4)

    def forward(self, x):
        return torch.stack([self.head(self.rnn(sample)[0][-1]) for sample in x.unbind()])


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_samples_may_be_given_one_at_a_time(kind, tmp_path):
    artifact = lowered(Unbatched(), tmp_path / "m.onnx", QuantRule(format=FORMATS[kind]))
    assert artifact.census.operators["DynamicQuantizeLSTM"] == 1
    assert artifact.parity.sqnr_db > 60


class OfConstants(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.queries, self.rnn = nn.Parameter(torch.randn(1, 5, 12)), kind(12, 12, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(x.mean(1) + self.rnn(self.queries)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_layer_may_be_called_on_constants(kind, tmp_path):
    for format in ("dynamic", "weights", "float8", "half"):
        rule = QuantRule(format=FORMATS[format])
        assert lowered(OfConstants(kind), tmp_path / "m.onnx", rule).parity.sqnr_db > 55


class Computed(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.factor = kind(12, 96, batch_first=True), nn.Parameter(torch.tensor([0.5]))

    def forward(self, x):
        scaled = {"weight_hh_l0": self.rnn.weight_hh_l0 * self.factor}
        return torch.func.functional_call(self.rnn, scaled, (x,))[0][:, -1]


@pytest.mark.parametrize("kind", ["dynamic", "weights", "float8", "half"])
def test_a_weight_that_forward_computes_cannot_be_stored(kind, tmp_path):
    rule = QuantRule(format=FORMATS[kind])
    for layer in (nn.LSTM, nn.GRU, nn.RNN):
        with pytest.raises(LoweringError, match="the layer 'rnn' is computed in forward"):
            lowered(Computed(layer), tmp_path / "m.onnx", rule)


def test_half_weights_refuse_what_float16_cannot_hold(tmp_path):
    net = Net(nn.GRU, batch_first=True)
    net.rnn.weight_hh_l0.data[0, 0] = 1e6
    with pytest.raises(LoweringError, match=r"of 'rnn' holds values above 65504, which float16"):
        lowered(net, tmp_path / "m.onnx", QuantRule(format=FORMATS["half"]))
