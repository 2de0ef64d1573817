"""A training that is cut off anywhere, and gone on with, ends as if nothing had happened."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress import Candidate, DistillStage, PruneStage, QuantizeStage, TrainStage
from compress.errors import DataError, TrainingDiverged
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.checkpoint import Checkpoint
from compress.training.data import head

SAMPLES, BATCH, EPOCHS = 96, 32, 4
STEPS = EPOCHS * SAMPLES // BATCH


class First:
    """The first samples of a data set."""

    def __init__(self, dataset, count=SAMPLES):
        self._dataset, self._count = dataset, count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return self._dataset[index]


class CutOff(BaseException):
    """As a killed process is: nothing in the package may catch it."""


class Noise:
    """Augmentation that counts its batches, and cuts the run off before one of them.

    Where no view comes again, it also draws from generators that are not torch's.
    """

    def __init__(self, fatal, views):
        self.fatal, self.count, self.is_free = fatal, 0, views is None

    def __call__(self, inputs, generator):
        if self.count == self.fatal:
            raise CutOff
        self.count += 1
        more = 0.1 * np.random.normal() + 0.1 * random.random() if self.is_free else 0
        return inputs + more + 0.1 * torch.randn(inputs.shape, generator=generator)


COMMON = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 5e-3}

#: By name: the net, the stages before, and the stage that is cut off.
CASES = {
    "train": ("mlp", (), TrainStage(**COMMON)),
    "dropout, sgd, one-cycle, patience": (
        "attention",
        (),
        TrainStage(optimizer="sgd", schedule="one-cycle", patience=1, **COMMON),
    ),
    "batch norm, average, best, channels last": (
        "resnet",
        (),
        TrainStage(ema=0.9, patience=2, **COMMON),
    ),
    "losses that train beside": (
        "resnet",
        (),
        DistillStage(
            student={"arch": "dscnn", "width": 8, "classes": 4},
            views=2,
            losses=[
                {"kind": "hint", "student": "blocks.0", "teacher": "blocks.0"},
                {"kind": "crd", "weight": {"from": 0.5, "to": 0.1}},
                {"kind": "adversarial", "weight": 0.01},
            ],
            **COMMON,
        ),
    ),
    "pruned and quantized": (
        "resnet",
        (QuantizeStage(),),
        PruneStage(ratio=0.3, importance="taylor", finetune={"ema": 0.9, **COMMON}),
    ),
    "learned steps, average, best": (
        "resnet",
        (QuantizeStage(weights="int4", learn_steps=True),),
        TrainStage(ema=0.9, patience=3, **COMMON),
    ),
    "zeros that are learned, average": (
        "mlp",
        (QuantizeStage(weights="int4"), PruneStage(granularity="weights", ratio=0.2)),
        PruneStage(
            ratio=0.6,
            granularity="weights",
            importance="movement",
            scope="global",
            finetune={"ema": 0.9, **COMMON},
        ),
    ),
    "zeros of two kinds": (
        "mlp",
        (PruneStage(granularity="2:4"), QuantizeStage(weights="int4", activations="float32")),
        PruneStage(ratio=0.6, granularity="weights", finetune=COMMON),
    ),
}

_WHOLE = {}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    net, before, stage = CASES[request.param]
    start = Candidate.of(NETS[net].build(), NETS[net].example())
    context = replace(bench_context(start, tmp_path / "work"), task=NETS[net].make_task())
    for earlier in before:
        start = earlier.run(start, context)
    context = replace(context, task=replace(context.task, train=First(context.task.train)))
    return request.param, stage, start, context


def run(stage, start, context, fatal=None, checkpoint=None, events=None):
    """The stage's result; ``None`` where it was cut off before the batch ``fatal``."""
    views = getattr(stage, "views", None)
    noisy = replace(
        context,
        task=replace(context.task, augment=Noise(fatal, views)),
        checkpoint=checkpoint,
        report=lambda event: events is not None and events.append(event),
    )
    try:
        return stage.run(start, noisy)
    except CutOff:
        return None


def whole(name, stage, start, context):
    if name not in _WHOLE:
        events = []
        after = run(stage, start, context, events=events)
        _WHOLE[name] = after, [e for e in events if e["event"] == "epoch"]
    return _WHOLE[name]


def timeless(entries):
    fleeting = ("event", "samples_per_s", "left_s")
    return [{k: v for k, v in e.items() if k not in fleeting} for e in entries]


@pytest.mark.parametrize("fatal", [1, 3, 4, 7, 11])
def test_the_weights_are_those_of_a_training_that_was_not_cut_off(fatal, case, tmp_path):
    name, stage, start, context = case
    expected, reports = whole(name, stage, start, context)
    place, done = Checkpoint(tmp_path / "checkpoint", "key"), []
    if run(stage, start, context, fatal, place, done) is not None:
        assert "patience" in name  # it was over before
    # A teacher that is asked is shown batches, too, so that it may be earlier than it seems.
    is_kept = any(event["event"] == "epoch" for event in done)
    assert place.path.exists() == is_kept
    assert is_kept == (fatal >= SAMPLES // BATCH) or (2 < fatal < 7 and "beside" in name)

    # Whatever comes between must not matter.
    torch.rand(3), np.random.normal(), random.random()
    events = []
    after = run(stage, start, context, None, place, events)
    assert after.fingerprint == expected.fingerprint
    assert after.notes == expected.notes
    resumed = [e for e in events if e["event"] == "resumed"]
    assert len(resumed) == is_kept
    history = [h for e in resumed for h in e["history"]]
    history += [e for e in events if e["event"] == "epoch"]
    assert timeless(history) == timeless(reports)


def test_cut_off_again_and_again_it_still_ends_alike(tmp_path):
    name = "batch norm, average, best, channels last"
    net, _, stage = CASES[name]
    start = Candidate.of(NETS[net].build(), NETS[net].example())
    context = replace(bench_context(start, tmp_path / "work"), task=NETS[net].make_task())
    context = replace(context, task=replace(context.task, train=First(context.task.train)))
    expected = run(stage, start, context)
    place = Checkpoint(tmp_path / "checkpoint", "key")
    tries = 0
    while (after := run(stage, start, context, SAMPLES // BATCH + 1, place)) is None:
        tries += 1
    assert tries == EPOCHS - 1
    assert after.fingerprint == expected.fingerprint


@pytest.fixture
def simple(tmp_path):
    start = Candidate.of(NETS["mlp"].build(), NETS["mlp"].example())
    context = replace(bench_context(start, tmp_path / "work"), task=NETS["mlp"].make_task())
    return start, context, Checkpoint(tmp_path / "checkpoint", "key")


def epochs_of(events):
    return [e["epoch"] for e in events if e["event"] == "epoch"]


@pytest.mark.parametrize(
    "change",
    ["key", "settings", "losses", "start"],
)
def test_a_checkpoint_of_another_training_is_not_used(change, simple):
    start, context, place = simple
    stage = DistillStage(**COMMON)
    assert run(stage, start, context, 20, place) is None
    if change == "key":
        place = replace(place, key="another")
    elif change == "settings":
        stage = DistillStage(**{**COMMON, "learning_rate": 1e-3})
    elif change == "losses":
        stage = DistillStage(losses=[{"kind": "logits-mse"}], **COMMON)
    else:
        start = Candidate.of(NETS["mlp"].build(seed=5), start.example)
    events = []
    after = run(stage, start, context, None, place, events)
    assert epochs_of(events) == [1, 2, 3, 4]
    assert not [e for e in events if e["event"] != "epoch"]
    assert after.fingerprint == run(stage, start, context).fingerprint


@pytest.mark.parametrize("damage", ["truncated", "a bit", "emptied"])
def test_a_damaged_checkpoint_is_dropped_with_a_warning_and_the_training_starts_over(
    damage, simple
):
    start, context, place = simple
    stage = TrainStage(**COMMON)
    assert run(stage, start, context, 20, place) is None
    content = bytearray(place.path.read_bytes())
    if damage == "a bit":
        content[-5] ^= 1
    place.path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    if damage == "emptied":
        place.path.write_bytes(b"")
    events = []
    after = run(stage, start, context, None, place, events)
    assert epochs_of(events) == [1, 2, 3, 4]
    warnings = [e["text"] for e in events if e["event"] == "warning"]
    if damage != "emptied":
        assert len(warnings) == 1
        assert "checkpoint.safetensors: the checkpoint is damaged" in warnings[0]
    assert after.fingerprint == run(stage, start, context).fingerprint


def test_stopping_early_is_noted_and_leaves_the_best_weights(simple):
    start, context, _ = simple
    events = []
    # A learning rate at which the validation loss soon rises.
    stage = TrainStage(epochs=30, batch_size=32, learning_rate=0.3, patience=2, augment=False)
    after = stage.run(start, replace(context, report=events.append))
    losses = [e["validation_loss"] for e in events]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 2 < 30
    (note,) = after.notes
    assert note.startswith(f"trained {len(losses)} of 30 epochs; the weights are of epoch {best},")
    with torch.no_grad():
        batch = head(context.task.validation, 64)
        left = torch.nn.functional.cross_entropy(after.module(batch.inputs), batch.labels)
    assert float(left) == pytest.approx(min(losses), rel=1e-5)


def test_patience_without_labels_to_validate_on_is_explained(simple):
    start, context, _ = simple

    class Bare(First):
        def __getitem__(self, index):
            return self._dataset[index][0]

    bare = replace(context.task, name="bare", validation=Bare(context.task.validation, 9))
    with pytest.raises(DataError, match=r"patience needs labels in the validation .* 'bare' has"):
        TrainStage(patience=2).run(start, replace(context, task=bare))


def test_a_loss_that_is_not_finite_names_the_file_with_its_batch(simple):
    start, context, _ = simple
    path = context.workdir / "diverged-batch.safetensors"
    wild = TrainStage(learning_rate=1e30, clip_norm=None, optimizer="sgd", epochs=3)
    with pytest.raises(TrainingDiverged, match=f"its batch is saved in {path}"):
        wild.run(start, context)
    assert path.exists()
    TrainStage(epochs=1).run(start, context)
    assert not path.exists()


def test_the_average_leaves_the_stage_under_fake_quantization_too(simple):
    start, context, _ = simple
    quantized = QuantizeStage(weights="int4").run(start, context)
    plain = TrainStage(**COMMON).run(quantized, context)
    averaged = TrainStage(ema=0.99, **COMMON).run(quantized, context)
    assert averaged.fingerprint != plain.fingerprint
    assert averaged.numerics == quantized.numerics
    averaged.validate()
