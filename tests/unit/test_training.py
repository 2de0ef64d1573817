import pytest
import torch
from torch import nn

from compress.algorithms.batches import Views, head, is_labelled, read
from compress.algorithms.training import Optimization, isolated, train
from compress.errors import DataError, TrainingDiverged
from compress.tasks.arrays import ArrayDataset


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


def test_a_view_is_the_same_at_every_call_whatever_the_order():
    views = Views(dataset(), 8, seed=3, augment=jitter)
    first = {b.index: b for b in views.batches(1, order_seed=0)}
    second = {b.index: b for b in views.batches(1, order_seed=9)}
    assert list(first) != list(second)
    assert all(torch.equal(first[i].inputs, second[i].inputs) for i in first)


def test_views_differ_and_each_has_every_sample_once():
    views = Views(dataset(), 8, seed=3)
    seen = [torch.cat([b.inputs for b in views.batches(v)]) for v in (0, 1)]
    assert not torch.equal(*seen)
    for one in seen:
        assert torch.equal(one.sort(dim=0).values, dataset().inputs)
    assert len(views) == 7
    assert views.rows() == [len(b.inputs) for b in views.batches(0)]


def test_dictionaries_without_labels_are_read():
    batch = head(Plain(), 3)
    assert batch.labels is None
    assert batch.inputs["a"].tolist() == [[0.0], [1.0], [2.0]]
    assert not is_labelled(Plain())
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
        list(Views(Plain(), 4, seed=0, augment=jitter).batches(0))


def objective(module, batch):
    return nn.functional.cross_entropy(module(batch.inputs), batch.labels)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_training_lowers_the_loss_and_leaves_the_module_ready(optimizer, schedule):
    with isolated(0):
        module, reports = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 4)), []
        optimization = Optimization(15, 0.05, optimizer=optimizer, schedule=schedule)
        train(module, Views(dataset(), 8, 0), objective, optimization, on_epoch_end=reports.append)
    assert reports[-1].loss < 0.8 * reports[0].loss
    assert [r.epoch for r in reports] == list(range(1, 16))
    assert not module.training
    assert all(p.grad is None for p in module.parameters())


def test_training_is_deterministic_for_a_seed():
    def weights():
        with isolated(5):
            module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 4))
            train(module, Views(dataset(), 8, 0), objective, Optimization(2, 0.05))
        return torch.cat([p.flatten() for p in module.parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_place(value):
    def diverging(module, batch):
        return objective(module, batch) * (value if batch.index == 2 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"became (nan|inf) in epoch 1, step \d+, at a"):
        train(nn.Linear(1, 4), Views(dataset(), 8, 0), diverging, Optimization(1, 0.05))


def test_isolation_leaves_the_generator_where_it_was():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with isolated(99), torch.no_grad():
        torch.rand(100)
        torch.set_default_dtype(torch.float64)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_default_dtype() == torch.float32
