"""What lowering says of models, inputs and kernels that are not as they should be."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compress.backends.onnx.build
from compress.artifact import Lowering
from compress.backends.onnx.build import lower
from compress.candidate import Candidate
from compress.errors import LoweringError, ParityError
from compress.testing.nets import NETS
from tests.covering import covering, kept_of

from .formats import FORMATS, lower_in

every_format = pytest.mark.parametrize("format", FORMATS)
# Every format, of which most are for before a release.
int8_and_float = pytest.mark.parametrize("format", kept_of(FORMATS, ["float32", "int8"]))
# Where it does not matter which of the formats it is that something is encoded in.
some_formats = pytest.mark.parametrize("format", ["float32", "int8"])


def images(count=32):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """Something between two convolutions."""

    def __init__(self, middle, outputs=4):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.first, self.middle = nn.Conv2d(3, 8, 3), middle
            self.last = nn.Conv2d(8, outputs, 1)

    def forward(self, x):
        return self.last(self.middle(self.first(x))).mean((2, 3))


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments, **named):
        return self.function(*arguments, **named)


def make(module, x, tmp_path, format="float32", check=None, calibration=None):
    path = tmp_path / "model.onnx"
    return lower_in(format, module, x, path, check=check, calibration=calibration)


def run(made, x):
    session = ort.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    named = x if isinstance(x, dict) else {session.get_inputs()[0].name: x}
    count = len(next(iter(named.values())))
    rows = [{k: v[i : i + 1].numpy() for k, v in named.items()} for i in range(count)]
    return np.concatenate([session.run(None, row)[0] for row in rows])


# -- models that no file can compute --


@some_formats
def test_a_norm_that_takes_the_statistics_of_the_batch_is_named(format, tmp_path):
    module = Between(nn.BatchNorm2d(8, track_running_stats=False))
    message = (
        r"the module 'middle' \(BatchNorm2d\) mixes the samples of a batch, .* a batch of 1 "
        r"computes something else; use statistics that are learned"
    )
    with pytest.raises(ParityError, match=message):
        make(module, images(), tmp_path, format)


class Centered(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        made = self.head(x)
        return made - made.mean(0)


def test_code_that_mixes_the_samples_is_named_too(tmp_path):
    with pytest.raises(ParityError, match="the model's forward mixes the samples of a batch, so"):
        make(Centered(), torch.randn(32, 8), tmp_path)


@some_formats
def test_what_is_random_is_told_from_what_is_wrong(format, tmp_path):
    module = Between(Of(lambda x: x + torch.randn_like(x)))
    with pytest.raises(ParityError, match=r"gives other outputs each time .* out of forward\."):
        make(module, images(), tmp_path, format)


def test_the_module_whose_values_are_not_finite_is_named(tmp_path):
    module = Between(Of(lambda x: (x - x.max()).log()))
    module.middle = nn.Sequential(nn.ReLU(), Of(lambda x: 1 / (x - x)))
    with pytest.raises(LoweringError, match=r"not finite, from the module 'middle\.1' \(Of\) on"):
        lower(
            Candidate(module.eval(), images(2)),
            Lowering(),
            calibration=[],
            check=images(),
            path=tmp_path / "model.onnx",
        )


def test_where_float16_overflows_is_named(tmp_path):
    module = Between(nn.Identity())
    with torch.no_grad():
        module.first.weight.mul_(3e5)
        module.last.weight.div_(3e5)
    with pytest.raises(
        LoweringError, match=r"not finite, from .* 'last' \(Conv2d\) on, .* float16"
    ):
        make(module, images() * 1e2, tmp_path, "float16")


# -- an exporter that is wrong --


@int8_and_float
def test_what_the_exporters_optimizer_gets_wrong_is_left_out(format, tmp_path):
    module, x = Between(Of(lambda x: F.relu(x.clamp(max=-0.1)) + x)), images()
    made = make(module, x, tmp_path, format)
    assert made.warnings[0] == (
        "the exporter's optimizer changes what the model computes, so that only batch norms were "
        "folded."
    )
    expected = module(x).detach().numpy()
    assert ((run(made, x) - expected) ** 2).mean() < 0.01 * expected.var(0).mean()


@some_formats
def test_the_operator_that_the_exporter_gets_wrong_is_named(format, tmp_path):
    # ONNX has no divisor, and divides a window that hangs over by what it covers.
    module = Between(nn.AvgPool2d(4, ceil_mode=True, divisor_override=3))
    message = (
        r"float32 graph does not compute what the module computes, from aten\.avg_pool2d\.default "
        r"in the module 'middle' \(line \d+ of .*test_checks\.py\) on; write it with other"
    )
    with pytest.raises(ParityError, match=message):
        make(module, images(), tmp_path, format)


# -- kernels --


def test_an_operator_whose_int8_kernel_is_wrong_stays_in_float(tmp_path):
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2, 2, ceil_mode=True)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2, 2), nn.Conv2d(8, 4, 1)),
    )
    x = torch.randn(32, 3, 9, 9) + 1
    made = make(module, x, tmp_path, "int8")
    (note,) = made.warnings
    assert note.startswith("AveragePool (")
    assert "ceil_mode=1" in note
    assert "in the module '2'" in note
    assert note.endswith("float32, since onnxruntime's int8 kernel gives other results than the "
                         "operator.")  # fmt: skip
    assert "AveragePool" in made.census.float_islands
    assert made.parity.r_squared > 0.99
    assert made.census.int8_mac_fraction == 1
    # The other pooling, which is right, is int8 still: rounded to before it and behind it.
    graph = onnx.load(made.path).graph
    makers = {name: node for node in graph.node for name in node.output}
    before = [makers[n.input[0]].op_type for n in graph.node if n.op_type == "AveragePool"]
    assert sorted(before) == ["Clip", "DequantizeLinear"]


# -- inputs --


NAN = images()
NAN[3, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("check", "calibration", "message"),
    [
        (NAN, None, r"the check input holds NaN in 1 of 32 samples \(the first is 3\), so that"),
        (None, [NAN], r"the calibration\[0\] input holds NaN in 1 of 32 samples"),
        (
            images(0),
            None,
            r"the check input has shape \(0, 3, 8, 8\), which holds no samples; pass",
        ),
        (
            None,
            [images(), images(0)],
            r"the calibration\[1\] input has shape \(0, 3, 8, 8\), which",
        ),
        (None, [], r"int8 activations need calibration data, and none was given"),
    ],
)
def test_inputs_that_say_nothing_are_refused(check, calibration, message, tmp_path):
    with pytest.raises(LoweringError, match=message):
        make(Between(nn.ReLU()), images(), tmp_path, "int8", check, calibration)


def test_calibration_data_that_nothing_needs_may_be_anything(tmp_path):
    assert make(Between(nn.ReLU()), images(), tmp_path, calibration=[NAN]).parity.r_squared > 0.999


def test_a_named_input_is_named(tmp_path):
    module, x = Of(lambda x, mask: x.mean((2, 3)) * mask), {"x": NAN, "mask": torch.ones(32, 1)}
    module.weight = nn.Parameter(torch.ones(1))
    good = {"x": images(), "mask": torch.ones(32, 1)}
    with pytest.raises(LoweringError, match="the check input 'x' holds NaN in 1 of 32 samples"):
        make(module, good, tmp_path, check=x)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(10, 8), nn.Linear(8, 3)

    def forward(self, ids, mask):
        kept = self.table(ids.long()) * (mask & mask).unsqueeze(-1)
        return self.head(kept.masked_fill(mask.unsqueeze(-1) == 0, -1.0).sum(1))


@pytest.mark.parametrize(
    ("kind", "format"),
    covering(
        [torch.int8, torch.int16, torch.int32, torch.uint8, torch.bool],
        ["float32", "int8"],
        each=1,
    ),
)
def test_masks_of_any_type_are_taken(kind, format, tmp_path):
    draw = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 2, (32, 5), generator=draw)
    x = {"ids": torch.randint(0, 10, (32, 5), generator=draw), "mask": mask.to(kind)}
    module = Masked()
    made = make(module, x, tmp_path, format)
    expected = module.eval()(**x).detach().numpy()
    assert ((run(made, x) - expected) ** 2).mean() < 1e-3 * expected.var(0).mean()


# -- names, and nets that compute little --


class Renamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, output):
        return self.head(output)


@every_format
def test_an_input_may_be_called_output(format, tmp_path):
    module, x = Renamed(), torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    made = make(module, x, tmp_path, format)
    graph = onnx.load(made.path).graph
    assert [value.name for value in graph.input] == ["output"]
    assert [value.name for value in graph.output] == ["output_2"]
    expected = module(x).detach().numpy()
    # A weight in float8 has three bits of mantissa: its error is up to a sixteenth of it.
    assert ((run(made, x) - expected) ** 2).mean() < 5e-3 * expected.var(0).mean()


@every_format
def test_a_net_that_returns_its_input_keeps_both_names(format, tmp_path):
    module, x = Renamed(), torch.randn(32, 4)
    module.forward = None
    returned = Of(lambda x: x)
    returned.head = module.head
    made = make(returned, x, tmp_path, format)
    graph = onnx.load(made.path).graph
    assert len(graph.input) == len(graph.output) == 1
    assert graph.output[0].name == "output"
    assert np.array_equal(run(made, x), x.numpy())


@every_format
def test_a_net_that_ignores_its_input_is_a_constant(format, tmp_path):
    module, x = Of(lambda x: module.head.bias.expand(len(x), 3)), torch.randn(8, 4)
    module.head = nn.Linear(4, 3)
    made = make(module, x, tmp_path, format)
    assert np.allclose(run(made, x), module.head.bias.detach().numpy())


# -- grids --


@pytest.mark.parametrize(
    ("bounds", "format"),
    covering([(-1, 0.7), (-1.0, 1), (-1, 1), (0, 0.5)], ["float32", "int8"], each=1),
)
def test_a_clamp_takes_numbers_of_two_kinds(format, bounds, tmp_path):
    module, x = Between(Of(lambda x: x.clamp(*bounds))), images()
    made = make(module, x, tmp_path, format)
    expected = module(x).detach().numpy()
    assert ((run(made, x) - expected) ** 2).mean() < 0.01 * expected.var(0).mean()


def test_biases_behind_a_silent_tensor_are_kept(tmp_path):
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.dead, self.alive = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.head = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.head(F.relu(self.dead(F.relu(x - 1e4)) + self.alive(x)))

    module, x = Silent(), images()
    with torch.no_grad():
        module.dead.bias.copy_(torch.tensor([0.11, -0.23, 0.37, 0.05]))
    made = make(module, x, tmp_path, "int8")
    expected = module.eval()(x).detach().numpy()
    assert ((run(made, x) - expected) ** 2).mean() < 2e-3 * expected.var(0).mean()


FACTORS = torch.logspace(-4, 0, 8)


class Scaled(nn.Module):
    """Layer scale behind convolutions and linear layers, with and without a bias."""

    def __init__(self, kind, *, bias):
        super().__init__()
        self.kind, self.gamma = kind, nn.Parameter(FACTORS.clone())
        self.inner = (
            nn.Linear(8, 8, bias=bias) if kind == "linear" else nn.Conv2d(8, 8, 1, bias=bias)
        )
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        if self.kind == "linear":
            x = (self.gamma * self.inner(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        else:
            x = self.inner(x) * self.gamma.reshape(8, 1, 1)
        return self.head(x)


@pytest.mark.parametrize(("kind", "format"), covering(["linear", "convolution"], FORMATS))
@pytest.mark.parametrize("bias", [True, False])
def test_layer_scale_becomes_part_of_its_layer(kind, bias, format, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of some weights int8 makes a hundredth of the variance
        module, x = Scaled(kind, bias=bias), images()
    made = make(module, x, tmp_path, format)
    expected = module.eval()(x).detach().numpy()
    assert ((run(made, x) - expected) ** 2).mean() < 0.01 * expected.var(0).mean()
    if format == "float32":
        assert "Mul" not in made.census.operators


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x.add_(1))


@int8_and_float
def test_a_net_that_works_in_its_inputs_changes_nobodys(format, tmp_path):
    module, x = InPlace().eval(), torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    made = make(module, x, tmp_path, format)
    assert torch.equal(x, before)
    expected = module(x.clone()).detach().numpy()
    assert ((run(made, x) - expected) ** 2).mean() < 1e-3 * expected.var(0).mean()


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return self.head(x) * self.count


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Counting(), "gives other outputs each time that it is run on the same inputs"),
        (Of(lambda x: x.sum()), r"gives outputs of shape \(\) for a batch of 2; their first axis"),
        (Of(lambda x: x.t() @ x), r"gives outputs of shape \(4, 4\) for a batch of 2; their first"),
        (Of(lambda x: (x, x.t() @ x)), r"gives an output '1' of shape \(4, 4\) for a batch of 2"),
    ],
)
@some_formats
def test_models_without_an_output_for_each_sample_are_refused(format, module, message, tmp_path):
    module.weight = nn.Parameter(torch.ones(1))
    with pytest.raises(LoweringError, match=message):
        make(module, torch.randn(32, 4), tmp_path, format)


class Borrowed(nn.Module):
    """A layer whose weight is used without calling it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return F.linear(x, self.head.weight * 2, self.head.bias)


@pytest.mark.parametrize(
    ("format", "note"),
    [
        ("int8", "100.0 % of the products (Gemm) and 80.0 % of the weights (Gemm) stay in float."),
        ("integer weights", "80.0 % of the weights (Gemm) stay in float."),
    ],
)
def test_formats_that_nothing_takes_are_told(format, note, tmp_path):
    assert make(Borrowed(), torch.randn(32, 4), tmp_path, format).warnings == (note,)
    assert make(Borrowed(), torch.randn(32, 4), tmp_path).warnings == ()


@pytest.mark.parametrize(("name", "format"), covering(NETS, ["int8", "dynamic"], each=1))
def test_kernels_that_are_right_are_never_accused(name, format, tmp_path, monkeypatch):
    monkeypatch.setattr(compress.backends.onnx.build, "differ", lambda *_: True)
    net = NETS[name]
    module, x = net.build(), net.example(32)
    with torch.no_grad():
        module.train()(x)
    made = make(module, x, tmp_path, format)
    assert not [warning for warning in made.warnings if "kernel gives other" in warning]
