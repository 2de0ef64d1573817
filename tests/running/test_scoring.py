"""What a row is scored against where there are no labels: the named teacher, in a metric that "
"fits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress import Candidate, Recipe, Task
from compress.errors import CompressError
from compress.pareto import recommend
from compress.running.scoring import scoring_of, supervision_of_job
from compress.running.split_arrays import SplitArrays
from compress.tasks.arrays import ArrayDataset

IMAGES = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
NEGATIVE = """
import torch
from torch import nn

def teacher(x):
    x.neg_()  # in place, as it may
    return x

def yes(x):
    return x[:, :2, 0, 0] - 0.5

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(192, 2)

    def forward(self, x):
        return self.map(x.flatten(1))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "negative.py").write_text(NEGATIVE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import negative

    return negative


def images(**said):
    parts = [ArrayDataset(IMAGES[start : start + 32].clone()) for start in (0, 16, 32)]
    return Task("photos", *parts, **said)


def recipe(teacher="negative:teacher", losses="[{kind: l1}]", epochs=100):
    named = f"teacher: {{callable: {teacher!r}}}, " if teacher else ""
    given = f"losses: {losses}, " if losses else ""
    block = (
        f"{{kind: distill, {named}{given}epochs: {epochs}, batch_size: 16, learning_rate: 0.02}}"
    )
    return Recipe.loads(f"name: r\nstages: [{block}]\n", imports=["negative"])


def scoring(recipe, task, module):
    torch.manual_seed(0)
    start = Candidate.of(module.eval(), IMAGES[:2].clone())
    job = recipe.job(start, task, workdir=Path(), mode="quick", imports=["negative"])
    return scoring_of(job, supervision_of_job(job))


def test_images_are_scored_by_how_near_they_are_to_the_named_teachers(own, target, tmp_path):
    torch.manual_seed(0)
    start = Candidate.of(own.Net().eval(), IMAGES[:2].clone())
    before = IMAGES.clone()
    record = recipe().run(start, images(), targets=[target], workdir=tmp_path / "run", report=False)
    assert (record.task.metric, record.task.higher_is_better) == ("r2", True)
    assert record.task.reference == "the teacher negative:teacher"
    untrained, student = (row.on(target.name).accuracy.value for row in record.rows)
    assert untrained < 0.3 < 0.8 < student <= 1
    assert recommend(record, target.name).index == 1
    assert torch.equal(IMAGES, before)


def test_the_score_is_r_squared_of_the_files_outputs(own, target, tmp_path):
    torch.manual_seed(0)
    start = Candidate.of(own.Net().eval(), IMAGES[:2].clone())
    record = recipe(epochs=2).run(
        start, images(), targets=[target], workdir=tmp_path / "run", report=False
    )
    measured = record.rows[1].on(target.name)
    inputs = IMAGES[32:64]
    outputs = target.predict(tmp_path / "run" / measured.artifact.path, {"": inputs.numpy()})[0]
    wanted = -inputs.numpy()
    errors, spread = ((outputs - wanted) ** 2).sum(), ((wanted - wanted.mean(0)) ** 2).sum()
    print("VALUE", measured.accuracy.value, record.rows[1].fingerprint, record.rows[0].fingerprint)
    assert measured.accuracy.value == pytest.approx(1 - errors / spread, rel=1e-5)


@pytest.mark.parametrize(
    ("teacher", "losses", "said", "net", "metric", "reference"),
    [
        ("negative:teacher", "[{kind: l1}]", {}, "Net", "r2", "the teacher negative:teacher"),
        ("negative:teacher", "[{kind: ssim}]", {}, "Net", "r2", "the teacher negative:teacher"),
        (
            "negative:teacher",
            None,
            {"outputs": "image"},
            "Net",
            "r2",
            "the teacher negative:teacher",
        ),
        ("negative:teacher", None, {"metric": "mse"}, "Net", "mse", "the teacher negative:teacher"),
        (None, None, {"outputs": "values"}, "Net", "r2", "row 0"),
        ("negative:yes", "[{kind: binary-kl}]", {}, "Head", "binary-agreement", None),
        ("negative:yes", "[{kind: response}]", {}, "Head", "agreement", None),
        (None, "[{kind: dist}]", {}, "Head", "agreement", "row 0"),
    ],
)
def test_metric_and_reference_follow_from_outputs_and_teacher(
    own, teacher, losses, said, net, metric, reference
):
    found = scoring(recipe(teacher, losses), images(**said), getattr(own, net)())
    facts = found.task_facts(images(**said))
    assert (facts.metric, facts.higher_is_better) == (metric, metric != "mse")
    assert facts.reference == (reference or f"the teacher {teacher}")
    assert found.sentence.startswith("outputs are")


def test_losses_that_disagree_say_nothing(own):
    both = "[{kind: response}, {kind: ssim}]"
    with pytest.raises(CompressError, match=r"outputs \(n, 3, 8, 8\) are is not known.*outputs: "):
        scoring(recipe(losses=both), images(), own.Net())


def test_labels_are_what_counts_where_there_are_any(own):
    labels = torch.arange(64) % 2
    parts = [ArrayDataset(IMAGES[s : s + 32], labels[s : s + 32]) for s in (0, 16, 32)]
    found = scoring(recipe("negative:yes", None), Task("labeled", *parts), own.Head())
    assert (found.name, found.reference) == ("accuracy", None)
    assert found.labels(SplitArrays([], {}, np.array([0, 1]))).tolist() == [0, 1]


def test_a_metric_of_ones_own_compares_with_the_reference(own):
    def nearness(outputs, wanted):
        return -np.abs(outputs - wanted).mean((1, 2, 3))

    task = replace(images(), metric=nearness, higher_is_better=True)
    found = scoring(recipe(), task, own.Net())
    assert (found.name, found.rule) == ("nearness", None)
    answers = found.reference.outputs_for(task.test)
    assert found.of(answers, answers).tolist() == [0.0] * 32


class InPlace(nn.Module):
    """A net whose first layer works in place."""

    def __init__(self):
        super().__init__()
        self.first, self.map = nn.ReLU(inplace=True), nn.Linear(192, 2)

    def forward(self, x):
        return self.map(self.first(x.flatten(1)))


def test_a_net_that_works_in_place_changes_no_batch_and_passes(target, tmp_path):
    labels = torch.arange(64) % 2
    inputs = IMAGES - 0.5
    parts = [ArrayDataset(inputs[s : s + 32].clone(), labels[s : s + 32]) for s in (0, 16, 32)]
    before = [part.inputs.clone() for part in parts]
    start = Candidate.of(InPlace().eval(), parts[0].inputs[:4])
    stages = "[{kind: distill, epochs: 1}, {kind: quantize}]"
    record = Recipe.loads(f"name: r\nstages: {stages}\n").run(
        start, Task("in place", *parts), targets=[target], workdir=tmp_path, report=False
    )
    assert record.status == "done"
    assert all(torch.equal(part.inputs, old) for part, old in zip(parts, before, strict=True))
