"""What is no data, no sample or no field: one sentence each, with what would do."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
)

from compress import Fields, Task
from compress.data.splits import MemoryBounds, as_dataset
from compress.errors import DataError, SettingsError
from compress.running.split_arrays import SplitArrays
from compress.training.data import head

from .shapes import COUNT, Rows, Stream, X, Y, task

pytestmark = pytest.mark.fast


class Endless(IterableDataset):
    def __iter__(self):
        return ((X[i % COUNT], Y[i % COUNT]) for i in itertools.count())


class Frame:
    """As a table of pandas: ``d[i]`` is a column."""

    iloc = None

    def __len__(self):
        return 2

    def __getitem__(self, name):
        raise KeyError(name)


class NoLength(Dataset):
    def __getitem__(self, index):
        return X[index], Y[index]


def read(split, **said):
    return head(task(lambda: split, **said).train, 8)


def ragged(index):
    return {"input_ids": torch.arange(2 + index % 5), "label": 0}


WRONG = {
    "an endless stream": (
        lambda: as_dataset(Endless(), "the train split", MemoryBounds(100, 1 << 30)),
        (
            r"the train split can only be gone through, .* more than 100 samples or 1\.0 GiB: "
            r"give a data set with len\(d\) and d\[i\], where a sample is an input"
        ),
    ),
    "a stream of large samples": (
        lambda: as_dataset(Endless(), "the train split", MemoryBounds(100, 512)),
        r"more than 100 samples or 512 bytes",
    ),
    "a path": (
        lambda: task(lambda: "photos/train"),
        r"train split is a path, 'photos/train'; .* or name a task that reads files: npz, parquet",
    ),
    "a path as such": (lambda: task(lambda: Path("photos")), r"train split is a path, 'photos'"),
    "a number": (
        lambda: task(lambda: 3),
        r"is a int, which can be read neither by index nor from beginning to end; give a data set",
    ),
    "all splits in one": (
        lambda: task(lambda: {"train": [1], "test": [2]}),
        r"is a dictionary of train, test, not of samples; give one of its parts, such as d\['train",
    ),
    "a table": (lambda: task(Frame), r"is a Frame, whose d\[i\] is a column; give its rows"),
    "no length": (lambda: task(NoLength), r"is a NoLength, which has no length; give a data set"),
    "an empty stream": (lambda: task(lambda: iter(())), r"the train split is empty\."),
    "three parts": (
        lambda: read(TensorDataset(X, X, Y)),
        (
            r"sample 0 of the TensorDataset has 3 parts, and a sample is .* fields: \{inputs: "
            r"\{NAME: 0, NAME: 1\}, label: 2\}\."
        ),
    ),
    "no parts": (lambda: read([()]), r"has 0 parts, and a sample is an input, .* targets\."),
    "a nested tuple": (
        lambda: read(Rows(lambda i: ((X[i], X[i]), Y[i]))),
        (
            r"has a tuple of 2 for its input, and a sample is .* fields: \{inputs: \{NAME: '0\.0', "
            r"NAME: '0\.1'\}, label: 1\}\."
        ),
    ),
    "two labels": (
        lambda: read(Rows(lambda i: {"x": X[i], "label": Y[i], "target": Y[i]})),
        r"with both 'label' and 'target', each of which may be its label; say which: fields",
    ),
    "two labels with fields": (
        lambda: read(
            Rows(lambda i: {"x": X[i], "label": Y[i], "target": Y[i]}), fields=Fields(inputs="x")
        ),
        r"has both 'label' and 'target', each of which may be its label; say which: fields",
    ),
    "a label alone": (
        lambda: read(Rows(lambda i: {"label": Y[i]})),
        r"is a dictionary of a label alone, and a sample is",
    ),
    "a text for an input": (
        lambda: read(Rows(lambda i: {"x": X[i], "note": "fine", "label": Y[i]})),
        r"has a str for its input 'note', and a sample is .* fields leaves out what is no input",
    ),
    "a label twice": (
        lambda: read(Rows(lambda i: ({"x": X[i], "labels": Y[i]}, Y[i]))),
        r"has a label, and an input 'labels' that may be one; take it out of the inputs, or say",
    ),
    "an image of Pillow": (
        lambda: read(Rows(lambda i: (Image.new("RGB", (4, 4)), 0))),
        r"has an Image for its input, .* such as torch\.tensor\(numpy\.asarray\(image\)\)\.permute",
    ),
    "a list of images": (
        lambda: read(Rows(lambda i: {"x": [Image.new("L", (4, 4))], "label": 0})),
        r"has a list for its input 'x', .* make a tensor of it",
    ),
    "an array of objects": (
        lambda: read(Rows(lambda i: (np.array([1, None]), 0))),
        r"an array of the type object for its input, .* such as array\.astype\('float32'\)\.$",
    ),
    "an array of texts": (
        lambda: read(Rows(lambda i: (np.array(["1.5", "2"]), 0))),
        r"an array of the type <U3 for its input, .* make numbers of it",
    ),
    "a path for an input": (
        lambda: read(Rows(lambda i: (Path("a.jpg"), 0))),
        r"for its input, .* open files in the data set itself, or name a task that does",
    ),
    "rows of different lengths": (
        lambda: read(Rows(lambda i: ([[1.0, 2.0], [3.0]], 0))),
        r"has a list for its input, .* where they hold numbers, in rows of one length",
    ),
    "a text for a label": (
        lambda: read(Rows(lambda i: (X[i], np.str_("cat")))),
        r"has the label 'cat'; a sample is .*: number the classes, and name them in the task's",
    ),
    "texts for labels": (
        lambda: read(Rows(lambda i: (X[i], ["cat", "dog"]))),
        r"has a list for its label, .* number the classes",
    ),
    "inputs and labels as two arrays": (
        lambda: task(lambda: (X, Y)),
        r"is a tuple of 2 arrays of \d+ samples each; join them: .*TensorDataset\(\*d\) of tensors",
    ),
    "inputs and labels by name": (
        lambda: task(lambda: {"x": X.numpy(), "y": Y.numpy()}),
        r"is a dict of 2 arrays .*TensorDataset\(d\['x'\], d\['y'\]\) of tensors\.",
    ),
    "labels now and then": (
        lambda: read(Rows(lambda i: (X[i], Y[i]) if i else X[i])),
        r"sample 0 of the Rows has no place for a label, and sample 1 has; .* is None",
    ),
    "lengths that differ": (
        lambda: read(Rows(ragged)),
        r"samples that do not make a batch .* pad them \(fields: \{padding: 0\} pads sequences",
    ),
    "a field that is not there": (
        lambda: read(Rows(ragged), fields=Fields(inputs=("ids",), label="label")),
        r"sample 0 of the Rows has no field 'ids'; it has input_ids, label\.",
    ),
    "a label of a tuple without inputs": (
        lambda: read(TensorDataset(X, X, Y), fields=Fields(label=2)),
        r"is no dictionary, and its fields say no inputs; .* \{inputs: \{NAME: 0\}, label: 2\}",
    ),
    "lengths of several inputs": (
        lambda: task(
            lambda: Rows(lambda i: {"ids": torch.arange(3), "image": torch.zeros(4, 2)}),
            fields=Fields(padding=0),
        ),
        r"has inputs of different lengths \(ids 3, image 4\); say which are padded: .*\{ids: 0\}",
    ),
    "nothing to pad": (
        lambda: task(lambda: Rows(lambda i: (i, 0)), fields=Fields(padding=0)),
        r"has no sequence among the inputs to pad; padding is for",
    ),
    "no padding value": (
        lambda: task(lambda: Rows(ragged), fields=Fields(mask="attention_mask")),
        r"nothing says what samples are padded with; add padding: 0",
    ),
    "a batch of nothing": (
        lambda: task(lambda: DataLoader(Stream(), 8, collate_fn=lambda samples: None)),
        r"a batch of task 'mine': the train split holds a NoneType, which cannot be divided",
    ),
    "a batch of unequal parts": (
        lambda: task(lambda: DataLoader(Stream(), 8, collate_fn=lambda s: (X[:8], Y[:3]))),
        r"has parts of 8, 3 samples; give a collate_fn whose tensors all have samples on their",
    ),
    "batches of their own lengths": (
        lambda: SplitArrays.of(
            task(lambda: DataLoader(Rows(lambda i: i), 8, collate_fn=of_own_length)).train
        ),
        r"the inputs of some batches have the shape \(n, 64\), and .* \(fields: \{padding: 0\}\)",
    ),
}


def of_own_length(numbers):
    return torch.zeros(len(numbers), min(numbers) + 64)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_sentence(name, monkeypatch):
    monkeypatch.setattr("compress.running.split_arrays._READ_BATCH", 32)
    work, said = WRONG[name]
    with pytest.raises(DataError, match=said) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"inputs": [0, 1]}, r"the part 0 has no name; write inputs: \{NAME: 0\}"),
        ({"inputs": {"a": 0.1}}, r"0\.1 is read as a number; a path is written in quotes: '0\.1'"),
        ({"inputs": []}, r"inputs are one part of a sample, a list of keys, or a part for each"),
        ({"inputs": True}, r"inputs are one part of a sample"),
        ({"inputs": {"a": None}}, r"a part of a sample is a key such as pixel_values, a place"),
        ({"label": [1]}, r"a part of a sample is a key"),
        ({"inputs": ["a.x", "b.x"]}, r"two inputs would be called 'x'; give each a name"),
        ({"inputs": ["x", "labels"]}, r"an input called 'labels' would be taken for the label"),
        ({"inputs": ["x"], "mask": "x"}, r"the mask 'x' is to be made, and is an input already"),
        ({"inputs": "x", "mask": "m"}, r"a mask is an input beside others, which then need names"),
        ({"input": "x"}, r"unknown key"),
    ],
)
def test_fields_that_say_nothing_are_refused(said, text):
    with pytest.raises(SettingsError, match=text):
        Fields(**said)


def test_fields_that_are_not_used_are_named_before_the_run(plan):
    def rows():
        return Rows(
            lambda i: {"pixel_values": X[i], "label": int(Y[i]), "meta": {"age": i % 3, "who": "a"}}
        )

    given = task(rows, fields=Fields(inputs=("pixel_values",)))
    notes = plan(given, "named").notes
    assert notes[0] == (
        "fields of the train and validation and test data that are not used: meta.age, meta.who"
    )
    used = task(rows, fields=Fields(inputs=("pixel_values",), label="meta.age"))
    assert "not used: label, meta.who" in plan(used, "named").notes[0]


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64"])
def test_labels_of_wide_unsigned_numbers_are_numbers(kind):
    for label in (np.dtype(kind).type(1), torch.tensor(1, dtype=getattr(torch, kind))):
        labels = read(Rows(lambda i, label=label: (X[i], label))).labels
        assert labels.dtype == torch.int64
        assert labels.tolist() == [1] * 8


def test_samples_of_a_stream_are_copies():
    def same_array():
        array = np.zeros(6, "f4")
        for i in range(4):
            array[:] = i
            yield array, i

    inputs = head(task(same_array).train, 4).inputs
    assert inputs[:, 0].tolist() == [0, 1, 2, 3]


def test_a_sampler_of_ones_own_decides_which_samples_there_are():
    weights = torch.tensor([1.0, *[0.0] * (COUNT - 1)])
    sampler = WeightedRandomSampler(weights, 5)
    train = task(lambda: DataLoader(TensorDataset(X, Y), 2, sampler=sampler)).train
    assert len(train) == 5
    assert all(torch.equal(x, X[0]) for x, _ in train)


def test_a_loader_is_its_data_set():
    whole = TensorDataset(X, Y)
    assert task(lambda: DataLoader(whole, 8, shuffle=True)).train is whole


def test_a_task_of_data_sets_keeps_them_when_it_is_changed():
    from dataclasses import replace

    given = task(lambda: Rows(ragged), fields=Fields(padding=0, mask="attention_mask"))
    changed = replace(given, name="other")
    assert changed.train is given.train
    assert isinstance(changed, Task)
