from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import DataError
from compress.tasks.arrays import ArrayDataset, first, split

pytestmark = pytest.mark.fast


def numbered(count: int, classes: int = 3) -> ArrayDataset:
    return ArrayDataset(torch.arange(count).float().unsqueeze(1), torch.arange(count) % classes)


def members(dataset: ArrayDataset) -> list[int]:
    return [int(value) for value in dataset.inputs[:, 0]]


def test_a_batch_equals_its_samples_stacked():
    data = numbered(10)
    inputs, labels = data.__getitems__([7, 2, 2])
    assert torch.equal(inputs, torch.stack([data[i][0] for i in (7, 2, 2)]))
    assert torch.equal(labels, torch.stack([data[i][1] for i in (7, 2, 2)]))


def test_unlabeled_data_give_inputs_alone():
    data = numbered(5).without_labels()
    assert torch.equal(data[3], torch.tensor([3.0]))
    assert torch.equal(data.__getitems__([1, 4]), torch.tensor([[1.0], [4.0]]))
    assert data.subset([1]).labels is None


def test_a_subset_has_its_own_memory():
    data = numbered(4)
    data.subset([0, 1]).inputs.zero_()
    assert members(data) == [0, 1, 2, 3]


def test_labels_that_differ_in_number_are_refused():
    with pytest.raises(DataError, match="got 3 inputs and 2 labels"):
        ArrayDataset(torch.zeros(3, 1), torch.zeros(2))


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_split_is_disjoint_complete_ordered_and_stratified(labels, share, seed):
    data = ArrayDataset(torch.arange(len(labels)).float().unsqueeze(1), torch.tensor(labels))
    size = min(max(1, round(share * len(labels))), len(labels) - 1)
    rest, apart = split(data, size, seed=seed)
    assert sorted(members(rest) + members(apart)) == list(range(len(labels)))
    assert members(rest) == sorted(members(rest))
    assert members(apart) == sorted(members(apart))
    assert len(apart) == size
    for kind in set(labels):
        quota = labels.count(kind) * size / len(labels)
        assert abs(int((apart.labels == kind).sum()) - quota) < 1


def test_a_split_depends_on_its_seed_alone():
    data = numbered(50)
    again = [members(split(data, 10, seed=3)[1]) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != members(split(data, 10, seed=4)[1])


def test_a_split_is_the_same_in_every_version():
    """Published accuracies rest on it: a changed digest means a changed validation split."""
    chosen = np.array(members(split(numbered(1000, classes=10), 100, seed=0)[1]), dtype="<i8")
    assert hashlib.sha256(chosen.tobytes()).hexdigest()[:16] == "55479a2a2d999980"


def test_a_split_leaves_the_global_generators_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    split(numbered(20), 5, seed=1)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.mark.parametrize("labels", [None, torch.rand(12), torch.zeros(12, 2, 2, dtype=torch.int64)])
def test_a_split_by_share_needs_no_class_labels(labels):
    data = ArrayDataset(torch.arange(12).float().unsqueeze(1), labels)
    rest, apart = split(data, 0.25, seed=0)
    assert (len(rest), len(apart)) == (9, 3)
    assert not set(members(rest)) & set(members(apart))


@pytest.mark.parametrize("size", [0, 10, 11, 0.0, 1.0, -1])
def test_a_split_with_an_empty_side_is_refused(size):
    with pytest.raises(DataError, match=r"samples on both sides; got a size of .* of 10 samples"):
        split(numbered(10), size, seed=0)


def test_first_takes_the_first_samples_of_any_data_set():
    assert members(first(numbered(10), 4)) == [0, 1, 2, 3]
    plain = first([(torch.tensor(i), i) for i in range(10)], 4)
    assert [plain[i][1] for i in range(len(plain))] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        plain[4]


def test_first_of_more_than_there_are_is_all_of_them():
    data = numbered(3)
    assert first(data, 5) is data
