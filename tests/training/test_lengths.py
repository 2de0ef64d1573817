"""Batches of similar lengths: all samples, once, less their padding."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.tasks.tokens import TokenDataset
from compress.training.data import SeededEpochs
from compress.training.lengths import cut, padded_length, similar_lengths

pytestmark = pytest.mark.fast

PADDED = 24


def texts(count=700, labels=None):
    lengths = torch.randint(1, PADDED + 1, (count,), generator=torch.Generator().manual_seed(0))
    places = torch.arange(PADDED)
    # The first token is the text's number, by which it is found again.
    ids = torch.where(places < lengths[:, None], 5 + places, -1).int()
    ids[:, 0] = torch.arange(count) + 100
    return TokenDataset(ids, 0, labels)


def epochs(dataset, **given):
    return SeededEpochs(dataset, **{"batch_size": 16, "seed": 3, "by_length": True, **given})


def numbers(batch):
    return (batch.inputs["input_ids"][:, 0] - 100).tolist()


def test_every_text_is_there_once_and_whole():
    dataset, seen = texts(), []
    for batch in epochs(dataset).batches(0):
        for row, mask, number in zip(*batch.inputs.values(), numbers(batch), strict=True):
            assert int(mask.sum()) == dataset.lengths[number]
            whole = dataset[number]["input_ids"]
            assert torch.equal(row, whole[: len(row)])
            assert not whole[len(row) :].any()
            seen.append(number)
    assert sorted(seen) == list(range(len(dataset)))


def test_batches_are_as_long_as_their_longest_text():
    dataset = texts()
    for batch in epochs(dataset).batches(0):
        assert padded_length(batch.inputs) == int(dataset.lengths[numbers(batch)].max())


def test_nearly_all_padding_is_gone():
    dataset = texts()
    by_length = epochs(dataset)
    assert by_length.positions(0) < 1.05 * int(dataset.lengths.sum())
    assert replace(by_length, by_length=False).positions(0) == len(dataset) * PADDED


def test_lengths_come_in_no_order():
    sizes = torch.tensor([padded_length(b.inputs) for b in epochs(texts()).batches(0)]).float()
    place = torch.arange(len(sizes)).float()
    assert abs(float(torch.corrcoef(torch.stack([sizes, place]))[0, 1])) < 0.4


def test_one_seed_gives_one_epoch_and_another_another():
    batches = [list(epochs(texts()).batches(seed)) for seed in (0, 0, 1)]
    first, same, other = ([numbers(batch) for batch in part] for part in batches)
    assert first == same != other


def test_batches_have_the_sizes_that_were_announced():
    by_length = epochs(texts(701))
    batches = list(by_length.batches(0, order_seed=5))
    sizes = {batch.index: len(numbers(batch)) for batch in batches}
    assert [sizes[k] for k in range(len(by_length))] == by_length.batch_sizes()


def test_ranks_cut_their_parts_to_the_same_length():
    parts = [list(epochs(texts(), rank=rank, world_size=3).batches(0)) for rank in range(3)]
    whole = list(epochs(texts()).batches(0))
    for *ranks, batch in zip(*parts, whole, strict=True):
        assert {padded_length(part.inputs) for part in ranks} == {padded_length(batch.inputs)}
        assert [n for part in ranks for n in numbers(part)] == numbers(batch)


def test_labels_of_places_are_cut_too():
    labels = torch.arange(700 * PADDED).reshape(700, PADDED)
    for batch in epochs(texts(labels=labels)).batches(0):
        assert torch.equal(batch.labels[:, 0], torch.tensor(numbers(batch)) * PADDED)
        assert batch.labels.shape == batch.inputs["input_ids"].shape
    classes = texts(labels=torch.zeros(700))
    assert all(batch.labels.dim() == 1 for batch in epochs(classes).batches(0))


@given(st.integers(1, 200), st.integers(1, 30))
def test_chunks_keep_their_sizes_and_samples(count, batches):
    chunks = torch.tensor_split(torch.randperm(count), batches)
    lengths = torch.randint(0, 9, (count,))
    found = list(similar_lengths(chunks, lengths, torch.Generator().manual_seed))
    assert [len(chunk) for chunk in found] == [len(chunk) for chunk in chunks]
    assert torch.cat(found).sort().values.tolist() == list(range(count))


def test_only_what_is_as_long_as_the_padding_is_cut():
    assert cut(torch.zeros(2, 8, 3), 8, 5).shape == (2, 5, 3)
    assert cut(torch.zeros(2, 7), 8, 5).shape == (2, 7)
    assert cut(torch.zeros(8), 8, 5).shape == (8,)
    assert padded_length({"a": torch.zeros(2, 8), "b": torch.zeros(2, 7)}) is None
    assert padded_length(torch.zeros(3)) is None
