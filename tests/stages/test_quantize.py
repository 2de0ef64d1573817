"""The quantize stage: what it declares, what it leaves alone, and what it says of that."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from compress import Candidate, DistillStage, PruneStage, QuantizeStage, TrainStage
from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.errors import AlreadySo, NoEffect, SelectorError
from compress.stage import apply_stage, formats_of
from compress.task import Task
from compress.tasks.arrays import ArrayDataset
from compress.testing.stage_contract import bench_context

ONCE = {"epochs": 1, "batch_size": 32}
LAYERS_OF_AN_ENCODER = {"inner", "encoder.layers.0.linear1", "encoder.layers.0.linear2", "head"}


class Encoder(nn.Module):
    """torch's own, in which attention reads the weight of ``out_proj`` and does not call it."""

    unused, used = "encoder.layers.0.self_attn.out_proj", LAYERS_OF_AN_ENCODER

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.inner = nn.Linear(6, 16)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.encoder(self.inner(x)).mean(1))


class Auxiliary(nn.Module):
    """A second head, which only training uses."""

    unused, used = "extra", {"first", "second", "head"}

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 16)
        self.head, self.extra = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.first(x.mean(1)))
        outputs = self.head(torch.relu(self.second(x)))
        return outputs + 0.1 * self.extra(x) if self.training else outputs


class Leftover(nn.Module):
    """A head that is built and never used, of a convolutional net."""

    unused, used = "old", {"conv", "head"}

    def __init__(self):
        super().__init__()
        self.conv, self.old, self.head = nn.Conv1d(6, 16, 3), nn.Conv1d(6, 4, 1), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x.mT)).mean(2))


class Constant(nn.Module):
    """A layer that is called on a parameter, so that what it gives is a constant."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, 16) - 1)
        self.inner, self.keys, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        keys = self.keys(self.queries)
        return self.head((torch.softmax(self.inner(x) @ keys.mT, -1) @ keys).mean(1))


NETS = (Encoder, Auxiliary, Leftover)
FORMATS = {
    "static": ("int8", "int8"),
    "dynamic": ("int8", "dynamic"),
    "weights": ("int8", "float32"),
    "half": ("float16", "float16"),
    "int4": ("int4", "int8"),
    "int16": ("int8", "int16"),
    "float8": ("float8", "float32"),
}
#: Least signal-to-noise ratio in dB of an artifact against the simulated module.
LEAST_SQNR = {
    "static": 35,
    "dynamic": 35,
    "weights": 100,
    "half": 55,
    "int4": 35,
    "int16": 75,
    "float8": 100,
}


@pytest.fixture
def case(tmp_path):
    def make(net):
        torch.manual_seed(0)
        data = ArrayDataset(torch.randn(64, 5, 6), torch.randint(4, (64,)))
        start = Candidate.of(net(), torch.stack([data[place][0] for place in range(4)]))
        task = Task(name="noise", train=data, validation=data, test=data)
        return start, replace(bench_context(start, tmp_path / "work"), task=task)

    return make


def rows(context):
    return torch.stack([context.task.train[place][0] for place in range(64)])


def lowered(candidate, context, path):
    inputs, lowering = rows(context), Lowering(avoid_saturation=True)
    return lower(candidate, lowering, calibration=[inputs], check=inputs, path=path)


@pytest.mark.parametrize("net", NETS)
def test_a_layer_that_is_never_called_has_no_format_and_is_named(net, case):
    start, context = case(net)
    after = QuantizeStage().run(start, context)
    assert after.notes == (f"'{net.unused}' is not called by the model and stays in float32",)
    assert set(formats_of(after)) == net.used
    assert after.fork().notes == ()


@pytest.mark.parametrize(
    "following",
    [
        PruneStage(ratio=0.5),
        PruneStage(granularity="weights"),
        PruneStage(ratio=0.5, finetune=ONCE),
        TrainStage(**ONCE),
        DistillStage(**ONCE),
    ],
    ids=["cut", "zero", "cut and train", "train", "distill"],
)
@pytest.mark.parametrize("net", NETS)
def test_stages_after_it_run_such_a_layer_in_float(net, following, case, tmp_path):
    start, context = case(net)
    after = following.run(QuantizeStage().run(start, context), context)
    after.validate()
    made = lowered(after, context, tmp_path / "model.onnx")
    assert made.parity.sqnr_db > 30
    assert made.census.int8_mac_fraction > 0.3


def test_a_head_that_only_training_uses_learns_in_float(case):
    start, context = case(Auxiliary)
    quantized = QuantizeStage(weights="int2", activations="int8").run(start, context)
    after = TrainStage(**ONCE).run(quantized, context)
    assert not torch.equal(after.module.extra.weight, start.module.extra.weight)
    assert len(after.module.extra.weight[0].unique()) > 3


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("net", NETS)
def test_the_artifact_has_it_in_float_too(net, format, case, tmp_path):
    start, context = case(net)
    weights, activations = FORMATS[format]
    after = QuantizeStage(weights=weights, activations=activations).run(start, context)
    made = lowered(after, context, tmp_path / "model.onnx")
    assert made.parity.sqnr_db > LEAST_SQNR[format]
    assert made.parity.agreement == 1
    assert not [w for w in made.warnings if net.unused in w]
    dtype = {"half": "float16", "float8": "float8e4m3fn"}.get(format, "int8")
    least = sum(start.module.get_submodule(name).weight.numel() for name in net.used)
    size = made.census.weight_bytes[dtype]
    assert least <= size // (2 if format == "half" else 1) < 1.2 * least


@pytest.mark.parametrize("format", FORMATS)
def test_a_layer_that_is_called_on_constants_is_one_and_is_told_of(format, case, tmp_path):
    start, context = case(Constant)
    weights, activations = FORMATS[format]
    after = QuantizeStage(weights=weights, activations=activations).run(start, context)
    made = lowered(after, context, tmp_path / "model.onnx")
    assert made.parity.sqnr_db > LEAST_SQNR[format]
    told = "'keys': its product is computed outside of the layer, so it stays float32."
    assert told in made.warnings


def test_several_layers_that_are_never_called_are_counted(case):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(6, 4), nn.ModuleList(nn.Linear(6, 4) for _ in "abcde")

        def forward(self, x):
            return self.used(x.mean(1))

    start, context = case(Spare)
    (note,) = QuantizeStage().run(start, context).notes
    assert note == (
        "'spare.0', 'spare.1', 'spare.2' and 2 more are not called by the model and stay in float32"
    )
    assert QuantizeStage(exclude=("spare",)).run(start, context).notes == ()
    with pytest.raises(NoEffect, match=r"calls none of the selected layers \('spare.0', .* others"):
        QuantizeStage(select=("spare",)).run(start, context)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"select": ("extra",)}, NoEffect, "the model calls none of the selected layers"),
        ({"exclude": ("*",)}, NoEffect, "exclude leaves none of the selected layers"),
        ({"select": ("tail",)}, SelectorError, "'tail' matches no layer"),
        ({"weights": "float32"}, AlreadySo, "has weights float32 and activations float32"),
    ],
)
def test_what_cannot_be_done_and_what_is_so_already_are_told_apart(settings, error, message, case):
    start, context = case(Auxiliary)
    with pytest.raises(error, match=message) as caught:
        QuantizeStage(**settings).run(start, context)
    assert caught.type is error


def test_a_model_without_layers_cannot_be_quantized(case):
    start, context = case(partial(nn.Flatten))
    with pytest.raises(NoEffect, match="has no layer whose weights could be quantized"):
        QuantizeStage().run(start, context)


@pytest.mark.parametrize("rehearsing", [False, True])
def test_where_all_is_so_already_a_stage_leaves_the_candidate_and_says_so(rehearsing, case):
    start, context = case(Auxiliary)
    stage = QuantizeStage(label="again")
    once = apply_stage(stage, start, context, dry_run=rehearsing)
    assert once.fingerprint != start.fingerprint
    part = QuantizeStage(select=("first", "extra"))
    for repeated in (stage, part):
        with pytest.raises(AlreadySo, match="every selected layer already has weights int8"):
            repeated.run(once, context)
        twice = apply_stage(repeated, once, context, dry_run=rehearsing)
        assert twice.fingerprint == once.fingerprint
        assert twice.module is not once.module
        assert twice.notes == (
            "every selected layer already has weights int8 and activations int8; nothing changed",
        )


def test_what_cannot_be_done_is_not_carried_out(case):
    start, context = case(Auxiliary)
    with pytest.raises(NoEffect, match="calls none of the selected layers"):
        apply_stage(QuantizeStage(select=("extra",)), start, context)
