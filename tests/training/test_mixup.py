"""Mixtures: what is in them, and what their labels are."""

import math

import pytest
import torch

from compress.errors import DataError
from compress.tasks.arrays import ArrayDataset
from compress.training.data import SeededEpochs
from compress.training.mixup import Mix

pytestmark = pytest.mark.fast

KINDS = ["mixup", "cutmix"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(count=8, shape=(1, 6, 6)):
    """Inputs that are their own number everywhere, labeled with it."""
    inputs = torch.arange(count, dtype=torch.float32).view(-1, *[1] * len(shape))
    return inputs.expand(-1, *shape).contiguous(), torch.arange(count)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 7), (2, 11), (1, 3, 4, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_mixture_is_of_its_two_labels_in_their_shares(kind, shape, seed):
    inputs, labels = numbered(shape=shape)
    before = inputs.clone()
    mixed = Mix(kind, 1.0)(inputs, labels, generator(seed))
    assert torch.equal(inputs, before)
    assert torch.equal(mixed.labels, labels)
    assert sorted(mixed.mixed_targets.tolist()) == labels.tolist()
    expected = mixed.lam * labels + (1 - mixed.lam) * mixed.mixed_targets
    assert torch.allclose(mixed.inputs.flatten(1).mean(1), expected.float(), atol=1e-5)
    assert 0 <= mixed.lam <= 1


def test_cutmix_pastes_one_box_of_whole_values():
    inputs, labels = numbered(shape=(2, 9, 9))
    mixed = Mix("cutmix", 1.0)(inputs, labels, generator(3))
    pasted = mixed.inputs == mixed.mixed_targets.view(-1, 1, 1, 1).float()
    kept = mixed.inputs == labels.view(-1, 1, 1, 1).float()
    assert bool((pasted | kept).all())
    moved = pasted[mixed.mixed_targets != labels]
    assert torch.equal(moved, moved[:1].expand_as(moved))
    rows, columns = moved[0, 0].any(1), moved[0, 0].any(0)
    assert torch.equal(moved[0, 0], rows[:, None] & columns[None, :])


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.2, 0.35, 0.49), (1.0, 0.25, 0.33)])
def test_alpha_sets_how_far_shares_are_from_a_half(alpha, low, high):
    inputs, labels = numbered(2, (1,))
    lambdas = [Mix("mixup", alpha)(inputs, labels, generator(s)).lam for s in range(300)]
    # Of Beta(a, a), the standard deviation is sqrt(1 / (4 (2 a + 1))).
    assert low < math.sqrt(sum((lam - 0.5) ** 2 for lam in lambdas) / 300) < high


@pytest.mark.parametrize("shape", [(6, 6), (3, 6, 6)])
def test_labels_of_positions_are_cut_with_their_inputs(shape):
    inputs, _ = numbered()
    labels = inputs.expand(-1, 3, 6, 6) if len(shape) == 3 else inputs[:, 0]
    mixtures = [Mix("cutmix", 1.0)(inputs, labels.long(), generator(s)) for s in range(9)]
    for mixed in mixtures:
        assert mixed.mixed_targets is None
        assert mixed.lam == 1.0
        assert torch.equal(mixed.labels.float().reshape(8, -1, 6, 6)[:, :1], mixed.inputs)
    # A box may be empty, but not at every seed.
    assert any(not torch.equal(mixed.labels, labels) for mixed in mixtures)


@pytest.mark.parametrize("kind", KINDS)
def test_no_labels_are_needed(kind):
    inputs, _ = numbered()
    mixtures = [Mix(kind, 1.0)(inputs, None, generator(s)) for s in range(9)]
    assert all(mixed.labels is None and mixed.mixed_targets is None for mixed in mixtures)
    assert any(not torch.equal(mixed.inputs, inputs) for mixed in mixtures)


@pytest.mark.parametrize(
    ("kind", "inputs", "labels", "message"),
    [
        ("mixup", torch.ones(4, 3, dtype=torch.int64), None, "floating-point numbers; got torch.i"),
        ("cutmix", torch.ones(4, 3), None, r"inputs with positions.* got \(4, 3\): use mixup"),
        ("cutmix", torch.ones(4, 1, 6, 6), torch.ones(4, 3, 3), r"\(3, 3\) lie in .*\(1, 6, 6\)"),
    ],
)
def test_what_cannot_be_mixed_is_explained(kind, inputs, labels, message):
    with pytest.raises(DataError, match=message):
        Mix(kind, 1.0)(inputs, labels, generator())


@pytest.mark.parametrize("kind", KINDS)
def test_mixtures_are_part_of_the_seeded_epoch(kind):
    data = ArrayDataset(*numbered(20))
    epochs = SeededEpochs(data, 8, seed=1, mix=Mix(kind, 1.0))
    first = {b.index: b for b in epochs.batches(0, order_seed=0)}
    again = {b.index: b for b in epochs.batches(0, order_seed=5)}
    other = {b.index: b for b in epochs.batches(1, order_seed=0)}
    for index, batch in first.items():
        assert torch.equal(batch.inputs, again[index].inputs)
        assert torch.equal(batch.mixed_targets, again[index].mixed_targets)
        assert batch.lam == again[index].lam
        assert batch.lam != other[index].lam


def test_mixing_leaves_shuffling_and_augmentation_as_they_are():
    def noise(inputs, generator):
        return inputs + torch.rand(inputs.shape, generator=generator)

    data = ArrayDataset(*numbered(20))
    plain = list(SeededEpochs(data, 8, 1, noise).batches(0))
    mixed = list(SeededEpochs(data, 8, 1, noise, mix=Mix("mixup", 1.0)).batches(0))
    for one, other in zip(plain, mixed, strict=True):
        assert torch.equal(one.labels, other.labels)
        partner = torch.cat([one.inputs[one.labels == label] for label in other.mixed_targets])
        expected = other.lam * one.inputs + (1 - other.lam) * partner
        assert torch.allclose(other.inputs, expected, atol=1e-5)


def test_dictionaries_cannot_be_mixed():
    data = [{"a": torch.ones(2)}] * 4
    with pytest.raises(DataError, match="mix needs inputs that are one tensor"):
        list(SeededEpochs(data, 2, 0, mix=Mix("mixup", 1.0)).batches(0))
