"""First mistakes with one's own data, metric or net: a sentence each, by plan, with the remedy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from compress import Candidate, Recipe, Task
from compress.errors import CompressError
from compress.running.preflight import preflight
from compress.tasks.arrays import ArrayDataset

pytestmark = pytest.mark.fast


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = drawn(96, 6), torch.arange(96) % 3
IMAGES = drawn(48, 3, 12, 12)
BIG_ENDIAN, UNWRITABLE = Y.numpy().astype(">i8"), X.numpy().copy()
UNWRITABLE.setflags(write=False)


class Net(nn.Module):
    def __init__(self, features=6, outputs=3):
        super().__init__()
        self.inner, self.outer = nn.Linear(features, 8), nn.Linear(8, outputs)

    def forward(self, x):
        return self.outer(torch.relu(self.inner(x)))


class Samples:
    """A data set of whatever ``sample`` gives."""

    def __init__(self, sample):
        self.sample = sample

    def __len__(self):
        return 24

    def __getitem__(self, index):
        if index >= 24:
            raise IndexError(index)
        return self.sample(index)


class Together(Samples):
    """The same, several at once."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def gone(index):
    if index == 17:
        raise OSError(5, "the disk\nis gone")
    return X[index], Y[index]


def task(train, test=None, **said):
    return Task("mine", train, train, train if test is None else test, **said)


def plan(given, module=None, example=None, stage=None, tmp_path=Path()):
    module = Net() if module is None else module
    block = {"kind": "train", "epochs": 1} if stage is None else stage
    recipe = Recipe.loads(f"name: r\nstages: [{block}]\n")
    inputs = X[:4] if example is None else example
    job = recipe.job(Candidate.of(module.eval(), inputs), given, workdir=tmp_path, mode="quick")
    return preflight(job)


def labeled(labels, **said):
    return task(ArrayDataset(X, labels), **said)


def error(outputs, labels):
    return np.abs(outputs - labels).mean(1)


def two_numbers(outputs, labels):
    return np.abs(outputs - labels).mean(1)[:2]


def with_nan():
    inputs = X.clone()
    inputs[7, 2] = float("nan")
    return inputs


MISTAKES = {
    "three parts": (lambda: plan(task(TensorDataset(X, Y, Y))), r"has 3 parts, and a sample is"),
    "text labels": (
        lambda: plan(task(Samples(lambda i: (X[i], "cat")))),
        r"has the label 'cat'; .* number the classes",
    ),
    "boxes for labels": (
        lambda: plan(task(Samples(lambda i: (X[i], {"boxes": object()})))),
        r"has an object for its label for 'boxes', and a sample is",
    ),
    "an object for an input": (
        lambda: plan(task(Samples(lambda i: (object(), Y[i])))),
        r"has an object for its input, and a sample is",
    ),
    "sizes differ": (
        lambda: plan(task(Samples(lambda i: (drawn(6 + i % 2), Y[i])))),
        r"samples that do not make a batch .* resize, cut or pad",
    ),
    "a sample that cannot be read": (
        lambda: plan(task(Samples(gone))),
        r"^sample 17 of the Samples cannot be read \(OSError at .*py:\d+: .*the disk is gone\)\.",
    ),
    "samples that cannot be read": (
        lambda: plan(task(Together(gone))),
        r"^samples 0 to 23 of the Together cannot be read \(OSError at .*: .*the disk is gone\)\.",
    ),
    "counted from 1": (
        lambda: plan(labeled(Y + 1)),
        r"train split: the label 3 is no class: .* outputs for 3 classes, 0 to 2",
    ),
    "255 for none": (
        lambda: plan(labeled(torch.where(Y == 0, 255, Y).to(torch.uint8))),
        r"the label 255 is no class: .* say ignore_index: 255",
    ),
    "classes as numbers with a point": (
        lambda: plan(labeled(Y.double(), metric="accuracy")),
        r"index of a class, in whole numbers, .*labels\.long\(\)",
    ),
    "nobody says what outputs are": (
        lambda: plan(task(ArrayDataset(X))),
        r"outputs \(n, 3\) are is not known, and there are no labels.* outputs: class-scores, ",
    ),
    "no direction": (
        lambda: labeled(X[:, :3], metric=error),
        r"more of the metric error is better is not said; add higher_is_better=",
    ),
    "two numbers for all": (
        lambda: plan(labeled(X[:, :3], metric=two_numbers, higher_is_better=False)),
        r"two_numbers must return one finite number, or 64 of them, .*; got shape \(2,\)",
    ),
    "no such metric": (lambda: labeled(Y, metric="acuracy"), r"no metric 'acuracy'; built in are"),
    "a metric for other outputs": (
        lambda: labeled(Y, metric="mse", outputs="class-scores"),
        r"the metric mse is for outputs that are image or values, and they are said to be class-",
    ),
    "other kinds of outputs": (lambda: labeled(Y, outputs="logits"), r"outputs is one of class-"),
    "not a number": (
        lambda: plan(task(ArrayDataset(with_nan(), Y))),
        r"train split: the input of sample 7 holds values that are not finite",
    ),
    "a net for other inputs": (
        lambda: plan(labeled(Y), Net(features=5)),
        r"the model that comes in cannot take its inputs, \(4, 6\) of torch.float32 .*RuntimeError",
    ),
    "images with their channels last": (
        lambda: plan(labeled(Y), nn.Conv2d(3, 3, 2), torch.zeros(4, 8, 8, 3, dtype=torch.uint8)),
        r"such a model: images have their channels first .*: image\.permute\(2, 0, 1\) / 255\.$",
    ),
    "images of bytes": (
        lambda: plan(labeled(Y), nn.Conv2d(3, 3, 2), torch.zeros(4, 3, 8, 8, dtype=torch.uint8)),
        r"images of bytes become numbers that nets take by image / 255\.$",
    ),
    "samples that are batches": (
        lambda: plan(labeled(Y), nn.Conv2d(3, 3, 2), torch.zeros(4, 1, 3, 8, 8)),
        r"a sample has no axis for the batch: give sample\[0\]\.$",
    ),
    "other classes than named": (
        lambda: plan(labeled(Y % 2, classes=("cat", "dog"))),
        r"has outputs for 3 classes and the task has 2 \(cat, dog\); build it with classes: 2",
    ),
    "labels of other places": (
        lambda: plan(labeled(X[:, :2], outputs="values")),
        r"values need a label for each of them; the outputs are \(96, 3\) and the labels \(96, 2\)",
    ),
    "bytes for images": (
        lambda: plan(
            task(ArrayDataset(IMAGES, (IMAGES * 9).to(torch.uint8)), outputs="image"),
            nn.Identity(),
            IMAGES[:4],
        ),
        r"labels that are images of bytes have another range",
    ),
    "yes, no and two": (
        lambda: plan(labeled(X[:, :3], outputs="independent-logits")),
        r"independent-logits need labels from 0 to 1, and these reach",
    ),
    "empty": (lambda: task(ArrayDataset(X[:0])), r"split is empty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_first_mistake_is_one_sentence_with_the_remedy(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work, said = MISTAKES[mistake]
    with pytest.raises(CompressError, match=said) as caught:
        work()
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("given", "kind", "metric"),
    [
        (lambda: labeled(Y.to(torch.uint8)), "class-scores", "accuracy"),
        (lambda: labeled(Y.to(torch.int32)[:, None]), "class-scores", "accuracy"),
        (lambda: task(ArrayDataset(X.double(), Y)), "class-scores", "accuracy"),
        (lambda: task(ArrayDataset(X.numpy(), Y.numpy())), "class-scores", "accuracy"),
        (lambda: task(TensorDataset(X, Y)), "class-scores", "accuracy"),
        (lambda: task(Samples(lambda i: (X[i].numpy(), int(Y[i])))), "class-scores", "accuracy"),
        (
            lambda: task(Samples(lambda i: (X[i].numpy().astype(">f4"), BIG_ENDIAN[i]))),
            "class-scores",
            "accuracy",
        ),
        (lambda: task(Samples(lambda i: (X.numpy()[i, ::-1], Y[i]))), "class-scores", "accuracy"),
        (lambda: task(Samples(lambda i: (UNWRITABLE[i], Y[i]))), "class-scores", "accuracy"),
        (lambda: labeled(torch.where(Y == 0, 255, Y), ignore_index=255), "class-scores", None),
        (lambda: labeled(nn.functional.one_hot(Y, 3)), "independent-logits", "binary-accuracy"),
        (lambda: labeled(X[:, :3] * 2), "values", "r2"),
        (lambda: labeled(X[:, :3] * 2, metric="mse"), "values", "mse"),
    ],
)
def test_odd_but_sound_data_are_taken(given, kind, metric, tmp_path):
    task = given()
    if metric is None:  # a test split needs a label for every sample
        task = Task("mine", task.train, task.train, ArrayDataset(X, Y), ignore_index=255)
        metric = "accuracy"
    scoring = plan(task, tmp_path=tmp_path).scoring
    assert (scoring.kind, scoring.name) == (kind, metric)


class Sigmoid(Net):
    def forward(self, x):
        return super().forward(x).sigmoid()


class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


def test_a_sigmoid_at_the_end_is_refused_where_logits_are_asked_for(tmp_path):
    with pytest.raises(CompressError, match=r"ends in a sigmoid, .* leave it out of the model"):
        plan(labeled(nn.functional.one_hot(Y, 3)), Sigmoid())
    scoring = plan(labeled(X[:, :3] * 2, outputs="values"), Sigmoid()).scoring
    assert scoring.kind == "values"


def test_a_softmax_at_the_end_is_said():
    *_, note = plan(labeled(Y), Softmax()).notes
    assert note.startswith("the model that comes in gives probabilities, and losses take logits")


def test_samples_in_two_splits_are_counted(tmp_path):
    train, test = ArrayDataset(X[:64], Y[:64]), ArrayDataset(X[56:], Y[56:])
    given = Task("mine", train, ArrayDataset(drawn(8, 6, seed=5), Y[:8]), test)
    (note,) = plan(given, tmp_path=tmp_path).notes
    assert note.startswith("8 of 40 test samples are in the train split too")


def test_outputs_that_no_label_uses_are_said(tmp_path):
    parts = [ArrayDataset(drawn(24, 6, seed=seed), Y[:24] % 2) for seed in (1, 2, 3)]
    (note,) = plan(Task("mine", *parts), tmp_path=tmp_path).notes
    assert note == "the model has outputs for 3 classes, and labels are 0 to 1 only"
