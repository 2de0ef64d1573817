"""Sequences of different lengths: padded, cut, masked, and put into batches by length."""

import pytest
import torch
from torch.utils.data import DataLoader

from compress import Fields, Task
from compress.tasks import TaskConfig, adjusted
from compress.tasks.arrays import first, inputs_of
from compress.training.data import SeededEpochs, head, read
from compress.training.lengths import lengths_of

from .shapes import COUNT, Rows, task

pytestmark = pytest.mark.fast

LENGTHS = [2 + index % 5 for index in range(COUNT)]


def ids(index):
    return torch.arange(1, 1 + LENGTHS[index])


def texts(**more):
    return Rows(
        lambda i: {"input_ids": ids(i), "label": i % 3, **{k: v(i) for k, v in more.items()}}
    )


MASKED = Fields(padding=0, mask="attention_mask")


def test_inputs_are_padded_at_their_end_and_masked():
    batch = head(task(texts, fields=MASKED).train, 3)
    assert batch.inputs["input_ids"].tolist() == [
        [1, 2, 0, 0, 0, 0],
        [1, 2, 3, 0, 0, 0],
        [1, 2, 3, 4, 0, 0],
    ]
    assert batch.inputs["attention_mask"].sum(1).tolist() == [2, 3, 4]
    assert batch.labels.tolist() == [0, 1, 2]


def test_all_splits_have_the_longest_of_all():
    short = Rows(lambda i: (torch.ones(3), 0))
    long = Rows(lambda i: (torch.ones(9), 0))
    given = Task("mine", short, short, long, fields=Fields(padding=0))
    assert head(given.train, 2).inputs.shape == (2, 9)


def test_a_length_cuts_and_pads():
    given = task(texts, fields=Fields(padding=7, length=4)).train
    assert head(given, 4).inputs["input_ids"].tolist()[0] == [1, 2, 7, 7]
    assert head(given, 4).inputs["input_ids"].tolist()[3] == [1, 2, 3, 4]
    assert given.lengths.tolist()[:4] == [2, 3, 4, 4]


def test_a_number_pads_no_mask():
    def rows():
        return texts(attention_mask=lambda i: torch.ones(LENGTHS[i]).long())

    batch = head(task(rows, fields=Fields(padding=1)).train, 1)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 1, 1, 1, 1]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 0, 0, 0, 0]]


def test_only_the_named_inputs_are_padded():
    def rows():
        return texts(image=lambda i: torch.zeros(4, 2))

    batch = head(task(rows, fields=Fields(padding={"input_ids": 0})).train, 2)
    assert batch.inputs["input_ids"].shape == (2, 6)
    assert batch.inputs["image"].shape == (2, 4, 2)


def test_labels_of_each_token_are_padded_with_none():
    rows = Rows(lambda i: (ids(i), ids(i).to(torch.uint8)))
    assert head(task(lambda: rows, fields=Fields(padding=0)).train, 1).labels.tolist() == [
        [1, 2, -1, -1, -1, -1]
    ]
    floats = Rows(lambda i: (ids(i).float(), ids(i).float()))
    labels = head(task(lambda: floats, fields=Fields(padding=0)).train, 1).labels
    assert labels.isnan().tolist() == [[False, False, True, True, True, True]]


def test_the_pad_id_is_the_data_sets_own():
    rows = texts()
    rows.pad_id = 9
    given = task(lambda: rows, fields=Fields(mask="attention_mask")).train
    assert head(given, 1).inputs["input_ids"].tolist() == [[1, 2, 9, 9, 9, 9]]


def test_batches_go_by_length():
    train = task(texts, fields=MASKED).train
    assert lengths_of(train).tolist() == LENGTHS
    epochs = SeededEpochs(train, 16, seed=0, by_length=True)
    shapes = [batch.inputs["input_ids"].shape[1] for batch in epochs.batches(0)]
    assert min(shapes) < 6
    assert max(shapes) == 6


def test_parts_keep_their_lengths():
    train = task(texts, fields=MASKED).train
    for part in (first(train, 8), inputs_of(train), inputs_of(first(train, 8))):
        assert lengths_of(part).tolist() == LENGTHS[: len(part)]
        assert head(part, 2).inputs["input_ids"].shape == (2, 6)
    assert head(inputs_of(train), 2).labels is None


def test_a_recipe_says_the_same():
    given = TaskConfig(
        name="m:t",
        limit=5,
        inputs_only=True,
        fields={"inputs": ["input_ids"], "padding": 0, "mask": "attention_mask"},
    )
    changed = adjusted(task(texts), given)
    assert len(changed.train) == 5
    batch = next(read(changed.train, 5))
    assert batch.labels is None
    assert {name: tuple(one.shape) for name, one in batch.inputs.items()} == {
        "input_ids": (5, 6),
        "attention_mask": (5, 6),
    }


def test_a_collate_function_that_pads_is_brought_to_one_length():
    def pad(samples):
        rows = [one["input_ids"] for one in samples]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return {"input_ids": padded, "labels": torch.tensor([one["label"] for one in samples])}

    def loader():
        return DataLoader(texts(), 4, collate_fn=pad)

    assert head(task(loader).train, 2).inputs["input_ids"].shape == (2, 3)
    given = task(loader, fields=Fields(padding=0)).train
    assert head(given, 2).inputs["input_ids"].shape == (2, 6)
    assert len(first(task(loader).train, 3)) == 3
    assert set(head(inputs_of(task(loader).train), 2).inputs) == {"input_ids"}
