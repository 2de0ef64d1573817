"""What is edited between two runs is noticed, with the reason; what is not is not done again."""

import importlib
import itertools
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from compress import Candidate, DistillStage, QuantizeStage, Recipe, Task
from compress.environment import package_versions
from compress.stages import TrainStage

TRAIN = TrainStage(epochs=2, batch_size=32, learning_rate=0.02)


class Data:
    """Eight numbers, and whether their sum is positive."""

    def __init__(self, count, seed=0):
        generator = torch.Generator().manual_seed(count + seed)
        self.inputs = torch.randn(count, 8, generator=generator)
        self.labels = (self.inputs.sum(1) > 0).long()

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.labels[index]


def right(outputs, labels):
    return (outputs.argmax(1) == labels).astype(float)


def wrong(outputs, labels):
    return (outputs.argmax(1) != labels).astype(float)


wrong.__name__ = "right"


def scaled(factor):
    return lambda batch, generator: batch * factor


def make_task(**fields):
    parts = {
        "name": "sums",
        "train": Data(200),
        "validation": Data(60),
        "test": Data(100),
        "metric": right,
        "higher_is_better": True,
        "outputs": "class-scores",
        "loss": F.cross_entropy,
        "augment": scaled(1.0),
        "calibration": Data(50),
        "classes": ("no", "yes"),
    }
    return Task(**{**parts, **fields})


def a_candidate():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    return Candidate.of(module, torch.zeros(4, 8))


class Runner:
    """Runs a recipe in one folder, again and again."""

    def __init__(self, folder, target):
        self.folder, self.target = folder, target

    def __call__(self, task=None, stages=(TRAIN,), seed=0, candidate=None, **options):
        events = []
        recipe = Recipe(name="edits", stages=stages, seed=seed)
        record = recipe.run(
            candidate or a_candidate(),
            task or make_task(),
            targets=[self.target],
            workdir=self.folder,
            mode="quick",
            observer=events.append,
            **options,
            report=False,
        )
        return record, events


@pytest.fixture
def run(tmp_path, target):
    return Runner(tmp_path / "run", target)


def again(events):
    return {
        ("measured" if "what" in event else "trained", event["why"])
        for event in events
        if event["event"] == "again" and event["index"] == 1
    }


def with_one(count, edit, seed=0):
    data = Data(count, seed)
    edit(data)
    return data


def one_input(data):
    data.inputs[57] += 0.25


def one_label(data):
    data.labels[57] = 1 - data.labels[57]


EDITS = {
    "loss": (
        {"loss": lambda ours, own: 0.5 * F.cross_entropy(ours, own)},
        "trained",
        "the loss changed",
    ),
    "metric": ({"metric": wrong}, "measured", "the metric changed"),
    "augmentation, by what it closes over": (
        {"augment": scaled(1.5)},
        "trained",
        "the augmentation changed",
    ),
    "augmentation, by its code": (
        {"augment": lambda batch, generator: batch + 0.0},
        "trained",
        "the augmentation changed",
    ),
    "one training sample": (
        {"train": with_one(200, one_input)},
        "trained",
        "the training data changed",
    ),
    "one training label": (
        {"train": with_one(200, one_label)},
        "trained",
        "the training data changed",
    ),
    "one test label": ({"test": with_one(100, one_label)}, "measured", "the test data changed"),
    "calibration data": (
        {"calibration": Data(50, 3)},
        "trained",
        "the calibration data changed",
    ),
    "classes": ({"classes": ("nay", "yea")}, "trained", "the classes changed"),
    "validation data": ({"validation": Data(60, 9)}, "trained", "the validation data changed"),
}


def test_an_equal_run_does_nothing_again(run):
    run()
    record, events = run()
    assert not again(events)
    assert {e["event"] for e in events} <= {"start", "stage", "reuse", "reading", "row", "end"}
    assert [row.cached for row in record.rows] == [False, True]
    assert not record.rows[1].reason


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_task_is_noticed(edit, run):
    fields, what, why = EDITS[edit]
    first, _ = run()
    second, events = run(make_task(**fields))
    assert (what, why) in again(events)
    assert second.rows[1].cached == (what == "measured")
    assert second.rows[1].reason == ("" if what == "measured" else why)
    if edit == "metric":
        own, other = (r.rows[1].measurements[0].accuracy.value for r in (first, second))
        assert other == pytest.approx(1 - own)


def test_another_seed_is_noticed(run):
    run()
    _, events = run(seed=1)
    assert ("trained", "the seed changed") in again(events)


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_another_version_of_a_library_is_noticed(name, run, monkeypatch):
    run()
    versions = {**package_versions(), name: "0.1"}
    monkeypatch.setattr("compress.running.digests.package_versions", lambda *_: versions)
    _, events = run()
    assert any(f"{name} is 0.1 and was " in why for _, why in again(events))


def test_another_model_is_noticed_by_its_weights_and_by_its_code(run):
    run()
    changed = a_candidate()
    with torch.no_grad():
        changed.module[0].weight[3, 3] += 1
    _, events = run(candidate=changed)
    why = "what comes in, the teacher and the model that ratios count from changed"
    assert ("trained", why) in again(events)
    sloped = Candidate.of(
        nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.1), nn.Linear(16, 2)), torch.zeros(4, 8)
    )
    run(candidate=sloped)
    sloped.module[1].negative_slope = 0.3
    _, events = run(candidate=sloped)
    assert ("trained", "the code of the model changed") in again(events)


STAGE = """
from typing import ClassVar, Literal
import torch
from compress import Candidate, Context, Effect, Stage

FACTOR = {factor}

def shrink(tensor):
    return tensor.mul_(FACTOR)

class Shrink(Stage):
    effects: ClassVar = frozenset({{Effect.WEIGHTS}})
    kind: Literal["shrink"] = "shrink"

    def run(self, candidate, context):
        after = candidate.fork()
        with torch.no_grad():
            shrink(next(after.module.parameters()))
        return after
"""


def own_stage(folder, factor, monkeypatch):
    (folder / "mine.py").write_text(STAGE.format(factor=factor))
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("mine", None)
    importlib.invalidate_caches()
    return importlib.import_module("mine").Shrink()


def test_the_code_of_a_stage_of_ones_own_is_noticed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    run(stages=(own_stage(tmp_path, 0.9, monkeypatch),))
    _, events = run(stages=(own_stage(tmp_path, 0.9, monkeypatch),))
    assert not again(events)
    record, events = run(stages=(own_stage(tmp_path, 0.8, monkeypatch),))
    assert ("trained", "the stage's code changed") in again(events)
    assert not record.rows[1].cached


def test_the_file_of_a_teacher_is_noticed(run, tmp_path):
    weights = tmp_path / "teacher.safetensors"

    def write(value):
        torch.manual_seed(value)
        module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, weights)

    text = textwrap.dedent(
        f"""
        schema: 1
        name: edits
        stages:
          - kind: distill
            epochs: 1
            teacher: {{arch: "test_edits:net", weights: {weights}}}
        """
    )
    sys.modules["test_edits"] = sys.modules[__name__]

    def run_it():
        events = []
        Recipe.loads(text, imports=["test_edits"]).run(
            a_candidate(),
            make_task(),
            targets=[run.target],
            workdir=run.folder,
            mode="quick",
            observer=events.append,
            report=False,
        )
        return events

    write(1)
    run_it()
    assert not again(run_it())
    write(2)
    assert ("trained", "a file that the recipe names changed") in again(run_it())


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


class Fickle(Data):
    """Of which no two looks are the same."""

    def __getitem__(self, index):
        return self.inputs[index] + torch.rand(8), self.labels[index]


class Named(Fickle):
    fingerprint = "version 1"


def test_what_has_no_stable_content_is_never_used_again(run):
    run(make_task(train=Fickle(200)))
    record, events = run(make_task(train=Fickle(200)))
    (why,) = {why for what, why in again(events) if what == "trained"}
    assert "two reads of sample" in why
    assert "of the training data differ" in why
    assert not record.rows[1].cached
    assert record.rows[1].reason == why


def test_a_data_set_may_say_what_it_is(run):
    run(make_task(train=Named(200)))
    record, _ = run(make_task(train=Named(200)))
    assert record.rows[1].cached
    other = Named(200)
    other.fingerprint = "version 2"
    _, events = run(make_task(train=other))
    assert ("trained", "the training data changed") in again(events)


def test_two_recipes_that_begin_alike_share_the_work(tmp_path, target):
    first = Runner(tmp_path / "one", target)
    first(stages=(TRAIN, QuantizeStage()))
    record, events = Runner(tmp_path / "two", target)(stages=(TRAIN, DistillStage(epochs=1)))
    assert [row.cached for row in record.rows] == [False, True, False]
    assert not [e for e in events if e["event"] == "epoch" and e["stage"] == "train"]
    assert not [e for e in events if e["event"] == "measure" and e["index"] < 2]


def test_another_folder_trains_and_measures_nothing_again(tmp_path, target):
    first, _ = Runner(tmp_path / "one", target)(stages=(TRAIN, QuantizeStage()))
    record, events = Runner(tmp_path / "two", target)(stages=(TRAIN, QuantizeStage()))
    assert not [e for e in events if e["event"] in ("epoch", "measure", "again")]
    for old, new in zip(first.rows, record.rows, strict=True):
        assert new.measurements == old.measurements
        path = new.measurements[0].artifact.path
        assert (tmp_path / "two" / path).read_bytes() == (tmp_path / "one" / path).read_bytes()
        raw = f"measurements/{new.index:02d}-{target.name}.jsonl"
        if (tmp_path / "one" / raw).exists():
            assert (tmp_path / "two" / raw).read_bytes() == (tmp_path / "one" / raw).read_bytes()


def test_fresh_uses_nothing_that_is_there(run):
    run()
    record, events = run(fresh=True)
    assert [e for e in events if e["event"] == "epoch"]
    assert not record.rows[1].cached


@pytest.mark.exhaustive  # what is shared, and what is not, others above tell one by one
def test_six_orders_of_three_stages_share_what_they_begin_with(tmp_path, target):
    stages = (TRAIN, QuantizeStage(), TrainStage(label="more", epochs=1))
    executions = 0
    for number, order in enumerate(itertools.permutations(stages)):
        record, _ = Runner(tmp_path / str(number), target)(stages=order)
        executions += sum(not row.cached for row in record.rows[1:])
    assert executions == 15


def test_data_of_arrays_are_known_by_their_content(run):
    def data(edit):
        inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
        inputs[9, 1] += edit
        return torch.utils.data.TensorDataset(inputs, (inputs.sum(1) > 0).long())

    run(make_task(train=data(0)))
    assert not again(run(make_task(train=data(0)))[1])
    assert ("trained", "the training data changed") in again(run(make_task(train=data(0.5)))[1])
