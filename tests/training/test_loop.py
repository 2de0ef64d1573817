import random

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import DataError, TrainingDiverged
from compress.tasks.arrays import ArrayDataset
from compress.training.checkpoint import Checkpoint, unpack
from compress.training.data import SeededEpochs, head, is_labeled, read
from compress.training.loop import (
    AuxiliaryModules,
    Callbacks,
    CheckpointConfig,
    Optimization,
    isolated,
    train,
)

pytestmark = pytest.mark.fast


def dataset(count=50):
    inputs = torch.arange(count, dtype=torch.float32).view(-1, 1) / count
    return ArrayDataset(inputs, (inputs[:, 0] * 3).round().long())


class Plain:
    """A data set without the fast path, of inputs alone, as dictionaries."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return {"a": torch.tensor([float(index)]), "b": torch.ones(2)}


def jitter(inputs, generator):
    return inputs + torch.rand(inputs.shape, generator=generator)


def test_a_seeded_epoch_is_the_same_at_every_call_whatever_the_order():
    seeded = SeededEpochs(dataset(), 8, seed=3, augment=jitter)
    first = {b.index: b for b in seeded.batches(1, order_seed=0)}
    second = {b.index: b for b in seeded.batches(1, order_seed=9)}
    assert list(first) != list(second)
    assert all(torch.equal(first[i].inputs, second[i].inputs) for i in first)


def test_seeded_epochs_differ_and_each_has_every_sample_once():
    seeded = SeededEpochs(dataset(), 8, seed=3)
    seen = [torch.cat([b.inputs for b in seeded.batches(seed)]) for seed in (0, 1)]
    assert not torch.equal(*seen)
    for one in seen:
        assert torch.equal(one.sort(dim=0).values, dataset().inputs)
    assert len(seeded) == 7
    assert seeded.batch_sizes() == [len(b.inputs) for b in seeded.batches(0)]


def test_dictionaries_without_labels_are_read():
    batch = head(Plain(), 3)
    assert batch.labels is None
    assert batch.inputs["a"].tolist() == [[0.0], [1.0], [2.0]]
    assert not is_labeled(Plain())
    assert [len(b.inputs["b"]) for b in read(Plain(), 4)] == [4, 3]


@pytest.mark.parametrize("size", [2, 4])
def test_a_subset_of_torch_is_read_like_what_it_is_of(size):
    subset = torch.utils.data.Subset(dataset(), [4, 9, 2, 7])
    batch = next(read(subset, size))
    expected = head(dataset(), 10)
    assert torch.equal(batch.inputs, expected.inputs[[4, 9, 2, 7][:size]])
    assert torch.equal(batch.labels, expected.labels[[4, 9, 2, 7][:size]])


def test_augmenting_dictionaries_is_refused():
    with pytest.raises(DataError, match="augment needs inputs that are one tensor"):
        list(SeededEpochs(Plain(), 4, seed=0, augment=jitter).batches(0))


def objective(module, batch):
    return nn.functional.cross_entropy(module(batch.inputs), batch.labels)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant", "one-cycle"])
def test_training_lowers_the_loss_and_leaves_the_module_ready(optimizer, schedule):
    with isolated(0):
        module, reports = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 4)), []
        optimization = Optimization(15, 0.05, optimizer=optimizer, schedule=schedule)
        callbacks = Callbacks(epoch_end=reports.append)
        train(module, SeededEpochs(dataset(), 8, 0), objective, optimization, callbacks=callbacks)
    assert reports[-1].loss < 0.8 * reports[0].loss
    assert [r.epoch for r in reports] == list(range(1, 16))
    assert not module.training
    assert all(p.grad is None for p in module.parameters())


def test_training_is_deterministic_for_a_seed():
    def weights():
        with isolated(5):
            module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 4))
            train(module, SeededEpochs(dataset(), 8, 0), objective, Optimization(2, 0.05))
        return torch.cat([p.flatten() for p in module.parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_place(value):
    def diverging(module, batch):
        return objective(module, batch) * (value if batch.index == 2 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"became (nan|inf) in epoch 1, step \d+, at a"):
        train(nn.Linear(1, 4), SeededEpochs(dataset(), 8, 0), diverging, Optimization(1, 0.05))


@pytest.mark.parametrize("labels", [True, False])
def test_the_batch_whose_loss_is_not_finite_is_kept(labels, tmp_path):
    class Broken:
        def __len__(self):
            return 40

        def __getitem__(self, index):
            inputs = {"x": torch.tensor([float("nan") if index == 17 else 1.0])}
            return (inputs, index) if labels else inputs

    def mean(module, batch):
        return module(batch.inputs["x"]).mean()

    checkpointing = CheckpointConfig(diverged_batch=tmp_path / "new" / "batch.safetensors")
    with pytest.raises(
        TrainingDiverged, match=r"\(its batch is saved in .*batch\.safetensors\); s"
    ):
        train(
            nn.Linear(1, 4),
            SeededEpochs(Broken(), 8, 0),
            mean,
            Optimization(1, 0.05),
            checkpointing=checkpointing,
        )
    saved = unpack(checkpointing.diverged_batch.read_bytes())
    assert saved.facts["epoch"] == 1
    assert saved.facts["step"] >= 1
    assert int(saved.tensors["inputs.x"].isnan().sum()) == 1
    assert ("labels" in saved.tensors) == labels
    if labels:
        place = saved.tensors["inputs.x"].isnan().flatten().nonzero()
        assert saved.tensors["labels"][place] == 17


def test_a_batch_that_cannot_be_kept_does_not_hide_what_happened(tmp_path):
    def diverging(module, batch):
        return objective(module, batch) * float("nan")

    (tmp_path / "file").write_text("in the way")
    checkpointing = CheckpointConfig(diverged_batch=tmp_path / "file" / "batch.safetensors")
    with pytest.raises(TrainingDiverged, match=r"became nan in epoch 1, step 1, at a .* 0\.05; s"):
        train(
            nn.Linear(1, 4),
            SeededEpochs(dataset(), 8, 0),
            diverging,
            Optimization(1, 0.05),
            checkpointing=checkpointing,
        )


def test_early_stopping_takes_the_weights_of_the_best_epoch():
    losses, seen, stages = [3.0, 2.0, float("nan"), 2.5, 2.0, 1.0], [], []
    module = nn.Linear(1, 4)

    def validate():
        seen.append(module.weight.detach().clone())
        return losses[len(seen) - 1]

    callbacks = Callbacks(validate=validate, epoch_end=stages.append)
    optimization = Optimization(6, 0.05, patience=3)
    outcome = train(
        module, SeededEpochs(dataset(), 8, 0), objective, optimization, callbacks=callbacks
    )
    assert (outcome.epochs, outcome.epoch_of_weights) == (5, 2)
    assert len(stages) == 5
    assert torch.equal(module.weight, seen[1])


@pytest.mark.parametrize("patience", [1, 4])
def test_without_any_finite_validation_loss_the_last_weights_stay(patience):
    module, seen = nn.Linear(1, 4), []

    def validate():
        seen.append(module.weight.detach().clone())
        return float("nan")

    optimization = Optimization(3, 0.05, patience=patience)
    callbacks = Callbacks(validate=validate)
    outcome = train(
        module, SeededEpochs(dataset(), 8, 0), objective, optimization, callbacks=callbacks
    )
    assert outcome.epoch_of_weights == outcome.epochs == min(patience, 3)
    assert torch.equal(module.weight, seen[-1])


def test_what_is_validated_and_what_leaves_are_the_averaged_weights():
    seen, raw = [], []
    module = nn.Linear(1, 4)
    callbacks = Callbacks(
        after_step=lambda: raw.append(module.weight.detach().clone().numpy()),
        validate=lambda: seen.append(module.weight.detach().clone()),
    )
    first = module.weight.detach().clone().numpy().astype(np.float64)
    optimization = Optimization(3, 0.05, ema=0.9)
    train(module, SeededEpochs(dataset(), 8, 0), objective, optimization, callbacks=callbacks)
    average = first
    for steps, weights in enumerate(raw, start=1):
        decay = min(0.9, (1 + steps) / (10 + steps))
        average = decay * average + (1 - decay) * weights
    np.testing.assert_allclose(module.weight.detach().numpy(), average, rtol=1e-5, atol=1e-6)
    assert torch.equal(module.weight, seen[-1])
    assert not np.allclose(average, raw[-1], atol=1e-4)


class Factor(nn.Module):
    """A part of the result beside the module, such as a learned clip."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4))


def with_factor(beside, optimization, callbacks, checkpoint=None):
    """Train a layer whose outputs are multiplied with ``beside``, and return the layer."""

    def scaled(module, batch):
        outputs = module(batch.inputs) * beside.factor
        return nn.functional.cross_entropy(outputs, batch.labels)

    module = nn.Linear(1, 4)
    train(
        module,
        SeededEpochs(dataset(), 8, 0),
        scaled,
        optimization,
        auxiliary=AuxiliaryModules(kept=(beside,)),
        callbacks=callbacks,
        checkpointing=CheckpointConfig(checkpoint),
    )
    return module


def test_what_is_kept_beside_the_module_is_averaged_with_it():
    beside, raw, seen = Factor(), [], []
    callbacks = Callbacks(
        after_step=lambda: raw.append(beside.factor.detach().clone()),
        validate=lambda: seen.append(beside.factor.detach().clone()),
    )
    with_factor(beside, Optimization(2, 0.05, ema=0.9), callbacks)
    average = torch.ones(4)
    for steps, factor in enumerate(raw, start=1):
        average.lerp_(factor, 1 - min(0.9, (1 + steps) / (10 + steps)))
    torch.testing.assert_close(beside.factor.detach(), average)
    assert torch.equal(beside.factor, seen[-1])
    assert not torch.allclose(average, raw[-1], atol=1e-4)
    assert beside.factor.grad is None
    assert not beside.training


def test_what_is_kept_beside_the_module_is_of_the_epoch_of_its_weights():
    losses, seen, beside = [3.0, 2.0, 2.5, 4.0], [], Factor()

    def validate():
        seen.append(beside.factor.detach().clone())
        return losses[len(seen) - 1]

    with_factor(beside, Optimization(4, 0.05, patience=3), Callbacks(validate=validate))
    assert torch.equal(beside.factor, seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_what_is_kept_beside_the_module_is_in_the_checkpoint(tmp_path):
    def run(checkpoint, stop):
        beside = Factor()

        def epoch_end(report):
            if report.epoch == stop:
                raise KeyboardInterrupt

        callbacks = Callbacks(epoch_end=epoch_end, validate=lambda: 1.0)
        optimization = Optimization(3, 0.05, ema=0.9, patience=3)
        with isolated(0):
            module = with_factor(beside, optimization, callbacks, checkpoint)
        return torch.cat([module.weight.flatten(), beside.factor])

    expected = run(None, None)
    place = Checkpoint(tmp_path / "checkpoint", "key")
    with pytest.raises(KeyboardInterrupt):
        run(place, 3)
    assert place.path.exists()
    assert torch.equal(run(place, None), expected)


@pytest.mark.parametrize("count", [2, 3])
def test_parts_of_a_batch_are_the_batch(count):
    whole = {b.index: b for b in SeededEpochs(dataset(51), 8, seed=3).batches(0, order_seed=0)}
    parts = [
        list(
            SeededEpochs(dataset(51), 8, seed=3, rank=which, world_size=count).batches(
                0, order_seed=0
            )
        )
        for which in range(count)
    ]
    for same in zip(*parts, strict=True):
        batch = whole[same[0].index]
        assert sum(part.weight for part in same) == pytest.approx(1)
        assert all(part.global_size == len(batch.inputs) for part in same)
        if len(batch.inputs) >= 2 * count:
            assert torch.equal(torch.cat([part.inputs for part in same]), batch.inputs)
            assert torch.equal(torch.cat([part.labels for part in same]), batch.labels)
        else:
            assert all(torch.equal(part.inputs, batch.inputs) for part in same)


def test_reading_in_parts_reads_every_sample_once():
    parts = [
        [b.inputs for b in read(dataset(50), 8, rank=which, world_size=3)] for which in range(3)
    ]
    together = torch.cat([inputs for part in parts for inputs in part])
    assert torch.equal(together.sort(dim=0).values, dataset(50).inputs)


def test_where_a_training_is_comes_with_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr("compress.training.loop._REPORT_EVERY_S", 0.0)
    steps, epochs = [], []
    callbacks = Callbacks(step=steps.append, epoch_end=epochs.append)
    train(
        nn.Linear(1, 4),
        SeededEpochs(dataset(), 8, 0),
        objective,
        Optimization(2, 0.05),
        callbacks=callbacks,
    )
    assert [(r.epoch, r.step) for r in steps] == [(e, s) for e in (1, 2) for s in range(1, 8)]
    assert all(r.steps == 7 and r.samples_per_s > 0 and r.left_s >= 0 for r in steps)
    assert epochs[0].left_s > 0
    assert epochs[1].left_s == 0


def test_a_checkpoint_is_replaced_in_every_epoch(tmp_path):
    place, sizes = Checkpoint(tmp_path / "own", "key"), []
    callbacks = Callbacks(epoch_start=lambda _: sizes.append(len(list(place.folder.glob("*")))))
    checkpointing = CheckpointConfig(place)
    seeded = SeededEpochs(dataset(), 8, 0)
    train(
        nn.Linear(1, 4),
        seeded,
        objective,
        Optimization(4, 0.05),
        callbacks=callbacks,
        checkpointing=checkpointing,
    )
    assert sizes == [0, 1, 1, 1]
    assert unpack(place.read()).facts["epochs"] == 4


def test_isolation_leaves_the_generators_where_they_were():
    def seed():
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    def draw():
        return torch.rand(1).item(), np.random.normal(), random.gauss(0, 1)

    def inside():
        with isolated(99), torch.no_grad():
            torch.set_default_dtype(torch.float64)
            return [draw() for _ in range(3)]

    seed()
    expected = draw()
    seed()
    first = inside()
    assert draw() == expected
    assert inside() == first
    assert torch.get_default_dtype() == torch.float32
