"""Labels for several outputs: by name, by place, and with some of them missing."""

import pytest
import torch
from torch.utils.data import DataLoader

from compress.data.fields import Fields
from compress.errors import DataError
from compress.task import Task
from compress.training.data import head, read

BOXES = torch.arange(32.0).reshape(8, 4)
SCORES = torch.arange(8)
INPUTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def labels_of(samples, fields=None, count=8):
    return head(Task("named", samples, samples, samples, fields=fields).train, count).labels


def named(i, **changes):
    return {"boxes": BOXES[i], "scores": SCORES[i]} | changes


FORMS = {
    "a dictionary": (lambda i: (INPUTS[i], named(i)), None, ("boxes", "scores")),
    "in a dictionary": (lambda i: {"x": INPUTS[i], "labels": named(i)}, None, ("boxes", "scores")),
    "a tuple": (lambda i: (INPUTS[i], (BOXES[i], SCORES[i])), None, ("0", "1")),
    "a list": (lambda i: (INPUTS[i], [BOXES[i], SCORES[i].numpy()]), None, ("0", "1")),
    "parts of a tuple": (
        lambda i: (INPUTS[i], BOXES[i], SCORES[i]),
        Fields(inputs={"x": 0}, label={"boxes": 1, "scores": 2}),
        ("boxes", "scores"),
    ),
    "keys": (
        lambda i: {"x": INPUTS[i], "b": BOXES[i], "s": {"id": SCORES[i]}},
        Fields(inputs=["x"], label={"boxes": "b", "scores": "s.id"}),
        ("boxes", "scores"),
    ),
    "keys beside inputs": (
        lambda i: {"x": INPUTS[i], "b": BOXES[i], "s": SCORES[i]},
        Fields(label={"boxes": "b", "scores": "s"}),
        ("boxes", "scores"),
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize("form", FORMS)
def test_labels_of_several_outputs_have_names(form):
    sample, fields, (first, second) = FORMS[form]
    labels = labels_of([sample(i) for i in range(8)], fields)
    assert list(labels) == [first, second]
    assert torch.equal(labels[first], BOXES)
    assert torch.equal(labels[second], SCORES)


@pytest.mark.fast
def test_batches_of_a_loader_have_the_names_of_samples():
    rows = [(INPUTS[i], (BOXES[i], SCORES[i])) for i in range(8)]

    def collate(samples):
        inputs = torch.stack([one for one, _ in samples])
        labels = [torch.stack(parts) for parts in zip(*(two for _, two in samples), strict=True)]
        return inputs, tuple(labels)

    split = DataLoader(rows, batch_size=4, collate_fn=collate)
    labels = labels_of(split)
    assert torch.equal(labels["0"], BOXES)
    assert torch.equal(labels["1"], SCORES)


@pytest.mark.fast
def test_parts_of_one_shape_are_one_label_by_sample_and_by_batch():
    rows = [(INPUTS[i], (BOXES[i], BOXES[i] + 1)) for i in range(8)]
    whole = DataLoader(rows, batch_size=4, collate_fn=torch.utils.data.default_collate)

    class Batches(list):
        def __getitems__(self, indices):
            return tuple(torch.utils.data.default_collate([self[i] for i in indices]))

    expected = torch.stack([BOXES, BOXES + 1], dim=1)
    for split in (rows, whole, Batches(rows)):
        assert torch.equal(labels_of(split), expected)


@pytest.mark.fast
def test_missing_labels_are_none_within():
    rows = [(INPUTS[i], named(i)) for i in range(8)]
    rows[1] = (INPUTS[1], None)
    rows[2] = (INPUTS[2], named(2, scores=None))
    rows[3] = (INPUTS[3], {"scores": SCORES[3]})
    labels = labels_of(rows)
    assert labels["boxes"].isnan().all(1).tolist() == [False, True, False, True, *[False] * 4]
    assert labels["scores"].tolist() == [0, -1, -1, 3, 4, 5, 6, 7]


@pytest.mark.fast
def test_a_batch_without_any_has_names_all_the_same():
    rows = [(INPUTS[i], {"boxes": None, "scores": SCORES[i]}) for i in range(8)]
    for batch in read(rows, 4):
        assert batch.labels["boxes"].isnan().all()
        assert batch.labels["scores"].shape == (4,)


@pytest.mark.fast
def test_labels_along_padded_sequences_are_padded_by_name():
    rows = [(torch.arange(i + 1), {"tags": torch.ones(i + 1).long(), "score": i}) for i in range(3)]
    labels = labels_of(rows, Fields(padding=0), 3)
    assert labels["tags"].tolist() == [[1, -1, -1], [1, 1, -1], [1, 1, 1]]
    assert labels["score"].tolist() == [0, 1, 2]


WRONG = {
    "no output": (
        lambda: Fields(label={}),
        ValueError,
        r"label names no output; give a part for each: label: \{OUTPUT: KEY\}",
    ),
    "no path": (
        lambda: Fields(label={"boxes": 1.5}),
        ValueError,
        r"1.5 is read as a number; a path is written in quotes: '1.5'",
    ),
    "none is there": (
        lambda: labels_of(
            [{"x": INPUTS[0], "b": BOXES[0]}], Fields(inputs=["x"], label={"boxes": "box"}), 1
        ),
        DataError,
        r"sample 0 of the list has no field 'box'; it has x, b\.",
    ),
    "one and several": (
        lambda: labels_of([(INPUTS[0], {"boxes": BOXES[0]}), (INPUTS[1], 1)], None, 2),
        DataError,
        r"sample 1 of the list has one label and others have them by name; a sample is",
    ),
    "a text": (
        lambda: labels_of([(INPUTS[0], {"scores": "cat"})], None, 1),
        DataError,
        r"has the label 'cat' for 'scores'; .* number the classes",
    ),
    "tuples without inputs": (
        lambda: labels_of([(INPUTS[0], 1)], Fields(label={"boxes": 1}), 1),
        DataError,
        r"its fields say no inputs; .* label: \{boxes: 1\}\}",
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize("case", WRONG)
def test_wrong_labels_by_name_are_one_sentence(case):
    work, error, said = WRONG[case]
    with pytest.raises(error, match=said):
        work()
