"""Digests of data of every shape: the same for the same content, another after an edit."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from compress import Fields, Task
from compress.fingerprints import Unstable, data_fingerprint
from compress.tasks.columns import Columns
from compress.training.lengths import lengths_of

pytestmark = pytest.mark.fast


def digest(dataset):
    return data_fingerprint(dataset, "the training data")


def train_of(split, **said):
    return Task("mine", split(), split(), split(), **said).train


def double(samples):
    x, y = zip(*samples, strict=True)
    return torch.stack(x) * 2, torch.stack(y)


def half(samples):
    x, y = zip(*samples, strict=True)
    return torch.stack(x) / 2, torch.stack(y)


def noisy(samples):
    x, y = zip(*samples, strict=True)
    return torch.stack(x) + torch.rand(1), torch.stack(y)


class Rows:
    def __init__(self, x, y):
        self.rows = list(zip(x, y, strict=True))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self._made(i)

    def _made(self, i):
        x, y = self.rows[i]
        return {"x": x, "label": int(y), "more": [1]}


class Random(Rows):
    def _made(self, i):
        return {"x": torch.rand(2), "label": 0}


class Stream(IterableDataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return zip(self.x, self.y, strict=True)


def ragged(x, y):
    return Rows([row[: 1 + i % 2] for i, row in enumerate(x)], y)


FORM = Fields(inputs=("x",))
SHAPES = {
    "stream": (Stream, None),
    "generator": (lambda x, y: ((a, b) for a, b in zip(x, y, strict=True)), None),
    "loader": (lambda x, y: DataLoader(TensorDataset(x, y), 4), None),
    "collate_fn": (lambda x, y: DataLoader(TensorDataset(x, y), 4, collate_fn=double), None),
    "loader of a stream": (lambda x, y: DataLoader(Stream(x, y), 4), None),
    "dictionaries": (Rows, None),
    "fields": (Rows, FORM),
    "padded": (ragged, Fields(inputs=("x",), padding=0, mask="m")),
    "columns": (lambda x, y: Columns({"x": x, "label": y, "t": ["a"] * 10}), FORM),
    "columns of numbers": (lambda x, y: Columns({"x": x, "label": y}), None),
}


def held():
    return torch.arange(20.0).view(10, 2), torch.arange(10) % 3


@pytest.mark.parametrize("name", SHAPES)
def test_same_content_same_digest_and_an_edit_another(name):
    make, fields = SHAPES[name]
    before = digest(train_of(lambda: make(*held()), fields=fields))
    assert digest(train_of(lambda: make(*held()), fields=fields)) == before

    def edited():
        x, y = held()
        x[8, 0] += 1
        return make(x, y)

    assert digest(train_of(edited, fields=fields)) != before


def test_fields_and_functions_count():
    def fielded(fields):
        return digest(train_of(lambda: Rows(*held()), fields=fields))

    def collated(function):
        data = TensorDataset(*held())
        return digest(train_of(lambda: DataLoader(data, 4, collate_fn=function)))

    assert fielded(FORM) == fielded(Fields(inputs=("x",)))
    assert fielded(FORM) != fielded(Fields(inputs={"y": "x"}))
    assert collated(double) != collated(half)


def test_lengths_that_were_asked_for_change_nothing():
    def made():
        return train_of(lambda: ragged(*held()), fields=Fields(inputs=("x",), padding=0, length=3))

    asked = made()
    assert lengths_of(asked) is not None
    assert digest(asked) == digest(made())


def test_an_edit_elsewhere_is_none_of_a_part_with_fields():
    def made(place=None):
        x, y = held()
        if place is not None:
            x[place] += 1
        whole = [{"x": one, "label": label} for one, label in zip(x, y, strict=True)]
        return digest(train_of(lambda: Subset(whole, range(6)), fields=FORM))

    assert made() == made(8)
    assert made() != made(3)


def test_random_data_have_no_digest_whatever_form_they_are_given():
    data = train_of(lambda: Random(*held()), fields=FORM)
    with pytest.raises(Unstable, match=r"two reads of sample 0 of the training data differ"):
        digest(data)
    collated = train_of(lambda: DataLoader(TensorDataset(*held()), 4, collate_fn=noisy))
    with pytest.raises(Unstable, match=r"two reads of sample 0 of the training data differ"):
        digest(collated)
