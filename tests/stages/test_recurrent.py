"""Stages on recurrent nets: formats for their layers, training in them, and cuts after them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from compress import (
    Candidate,
    DistillStage,
    PruneStage,
    QuantizeStage,
    Recipe,
    ReplayTarget,
    TrainStage,
)
from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.errors import AlreadySo
from compress.quantization.fakequant import fake_quantized_copy, weight_axes
from compress.stage import formats_of, ranges_of
from compress.task import Task
from compress.tasks.arrays import ArrayDataset
from compress.testing.stage_contract import bench_context

ONCE = {"epochs": 1, "batch_size": 32}


class Speech(nn.Module):
    """A convolution over time, an LSTM both ways, a GRU, and a head on its last step."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 16, 3)
        self.lstm = nn.LSTM(16, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.gru, self.head = nn.GRU(48, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        x, _ = self.lstm(torch.relu(self.conv(x.mT)).mT)
        return self.head(self.gru(x)[1][-1])


@pytest.fixture
def start():
    torch.manual_seed(0)
    return Candidate.of(Speech(), torch.randn(4, 9, 6))


@pytest.fixture
def task():
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (128,), generator=draw)
    signals = torch.randn(128, 9, 6, generator=draw) / 2
    signals[torch.arange(128), :, labels] += 1
    data = ArrayDataset(signals, labels)
    return Task(name="signals", train=data, validation=data, test=data)


@pytest.fixture
def context(start, task, tmp_path):
    return replace(bench_context(start, tmp_path / "work"), task=task)


def lowered(candidate, context, path):
    rows = torch.stack([context.task.train[place][0] for place in range(32)])
    lowering = Lowering(avoid_saturation=True)
    return lower(candidate, lowering, calibration=[rows], check=rows, path=path)


def weights_of(candidate, name):
    layer = candidate.module.get_submodule(name)
    return [layer.get_parameter(own) for own in weight_axes(layer)]


RECIPE = """
name: speech
stages:
  - {kind: quantize, select: ["type:LSTM"], weights: int8, activations: dynamic}
  - {kind: train, epochs: 1, batch_size: 32}
  - {kind: quantize, select: [gru, head], weights: int8, activations: dynamic}
"""


def test_a_recipe_quantizes_an_lstm_by_its_class_and_trains_it(start, task, tmp_path):
    recipe = Recipe.loads(RECIPE)
    record = recipe.run(
        start, task, targets=[ReplayTarget()], workdir=tmp_path, mode="quick", report=False
    )
    measured = [row.measurements[0] for row in record.rows]
    first, quantized, trained, last = (each.artifact.weight_bytes for each in measured)
    stored = sum(weight.numel() for weight in weights_of(start, "lstm"))
    assert first["float32"] - quantized["float32"] > 3 * stored
    assert stored <= quantized["int8"] < 1.2 * stored
    assert trained == quantized
    assert last["int8"] >= quantized["int8"] + sum(w.numel() for w in weights_of(start, "gru"))
    assert all(m.artifact.operators["DynamicQuantizeLSTM"] == 2 for m in measured[1:])
    note = "'gru': integer weights and float32 arithmetic, since onnxruntime has no int8 GRU."
    assert [note in each.warnings for each in measured] == [False, False, False, True]


def test_static_formats_come_to_what_recurrent_layers_compute_with(start, context, tmp_path):
    after = QuantizeStage().run(start, context)
    formats = formats_of(after)
    assert {name: format.activations for name, format in formats.items()} == {
        "conv": "int8",
        "lstm": "dynamic",
        "gru": "float32",
        "head": "int8",
    }
    assert set(ranges_of(after.module, formats, context.task)) == {"conv", "head"}
    assert lowered(after, context, tmp_path / "model.onnx").parity.sqnr_db > 30


def test_what_comes_to_the_same_is_so_already(start, context):
    once = QuantizeStage(select=("lstm", "gru"), activations="dynamic").run(start, context)
    with pytest.raises(AlreadySo, match="every selected layer already has weights int8"):
        QuantizeStage(select=("lstm", "gru")).run(once, context)


@pytest.mark.parametrize("activations", ["dynamic", "float32"])
def test_training_in_few_bits_helps_a_recurrent_net(activations, start, context, tmp_path):
    learned = TrainStage(epochs=6, batch_size=16).run(start, context)
    coarse = QuantizeStage(weights="int2", activations=activations).run(learned, context)
    trained = TrainStage(epochs=6, batch_size=16).run(coarse, context)
    for name in ("lstm", "gru"):
        pairs = zip(weights_of(trained, name), weights_of(coarse, name), strict=True)
        assert all(not torch.equal(new, old) for new, old in pairs)
        assert all(len(weight[0].unique()) > 3 for weight in weights_of(trained, name))
    before, after = (loss(candidate, context) for candidate in (coarse, trained))
    assert after < before
    artifact = lowered(trained, context, tmp_path / "model.onnx")
    assert artifact.parity.sqnr_db > 50
    assert artifact.parity.agreement == 1


def loss(candidate, context):
    data = context.task.train
    rows = torch.stack([data[place][0] for place in range(len(data))])
    labels = torch.tensor([int(data[place][1]) for place in range(len(data))])
    with torch.no_grad():
        outputs = fake_quantized_copy(candidate.module, formats_of(candidate)).eval()(rows)
    return float(nn.functional.cross_entropy(outputs, labels))


@pytest.mark.parametrize(
    "following",
    [
        PruneStage(ratio=0.5),
        PruneStage(ratio=0.5, importance="taylor", finetune=ONCE),
        PruneStage(granularity="weights"),
        DistillStage(**ONCE, ema=0.9),
    ],
    ids=["cut", "taylor", "zero", "distill"],
)
def test_stages_after_it_keep_the_formats(following, start, context, tmp_path):
    quantized = QuantizeStage(activations="dynamic").run(start, context)
    after = following.run(quantized, context)
    after.validate()
    assert formats_of(after) == formats_of(quantized)
    artifact = lowered(after, context, tmp_path / "model.onnx")
    assert artifact.parity.sqnr_db > 30
    assert artifact.census.operators["DynamicQuantizeLSTM"] == 2
    assert artifact.census.weight_bytes["int8"] >= sum(
        weight.numel() for name in ("lstm", "gru") for weight in weights_of(after, name)
    )


def test_a_candidate_with_such_formats_is_saved_and_loaded(start, context, tmp_path):
    after = QuantizeStage(select=("lstm*",), activations="dynamic").run(start, context)
    after.save(tmp_path / "saved")
    loaded = Candidate.load(tmp_path / "saved", start.example, lambda _: Speech())
    assert loaded.fingerprint == after.fingerprint
    assert formats_of(loaded) == formats_of(after)
