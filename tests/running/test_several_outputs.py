"""A net with two outputs through a run: trained, quantized, scored by output, and used again."""

from __future__ import annotations

import json
import zipfile
from typing import ClassVar, Literal

import numpy as np
import pytest
from sklearn.metrics import f1_score, r2_score

from compress import MetricOn, PruneStage, Recipe, ReplayTarget
from compress.cli import main
from compress.errors import DataError
from compress.record import Record
from compress.report import write_report
from compress.stage import Stage

PARTS = """
import torch
from torch import nn
from compress import Task

INPUTS = torch.rand(240, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.side = nn.Linear(6, 32), nn.Linear(32, 3)
        self.boxes, self.scores = nn.Linear(32, 3), nn.Linear(32, 2)

    def forward(self, x):
        x = torch.relu(self.body(x))
        found = {"boxes": self.boxes(x), "scores": self.scores(x)}
        return {**found, "side": self.side(x)} if self.training else found


def sample(x, labeled):
    label = {"boxes": 2 * x[:3], "scores": (x[3:5] > 0.5).float()}
    return (x, label) if labeled else x


class Narrow(Net):
    def forward(self, x):
        found = super().forward(x)
        return {"boxes": found["boxes"], "logits": found["scores"]}


def make_task(labeled: bool = True):
    rows = [sample(x, labeled) for x in INPUTS]
    return Task("two", rows[:120], rows[120:180], rows[180:])
"""
TASK = """
  name: two_parts:make_task
  outputs: {boxes: values, scores: independent-logits}
  metric: [{name: f1, on: scores}, {name: r2, on: boxes}]
"""
STAGES = "[{kind: train, epochs: 12, batch_size: 16, learning_rate: 0.02}, {kind: quantize}]"


@pytest.fixture(autouse=True)
def parts(tmp_path, monkeypatch):
    (tmp_path / "two_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)


def recipe(task=TASK, stages=STAGES):
    text = f"name: two\ntask: {task}\nmodel: {{arch: two_parts:Net}}\nstages: {stages}\n"
    return Recipe.loads(text, imports=["two_parts"])


def run(recipe, folder, task=None, **settings):
    task = task or recipe.make_task()
    settings = {"targets": [ReplayTarget()], "mode": "quick", **settings}
    return recipe.run(recipe.make_candidate(task), task, workdir=folder, **settings, report=False)


def test_every_row_is_scored_by_output_from_its_file(tmp_path):
    made, folder, target = recipe(), tmp_path / "run", ReplayTarget()
    record = run(made, folder, cache="none")
    task = made.make_task()
    assert (record.task.metric, record.task.metrics) == ("f1(scores)", {"r2(boxes)": True})
    inputs = np.stack([x.numpy() for x, _ in task.test])
    wanted = {n: np.stack([y[n].numpy() for _, y in task.test]) for n in ("boxes", "scores")}
    for row in record.rows:
        found = row.measurements[0]
        boxes, scores = target.predict(folder / found.artifact.path, {"": inputs})
        f1 = f1_score(wanted["scores"], scores > 0, average="macro", zero_division=0)
        assert found.accuracy.value == pytest.approx(f1)
        r2 = r2_score(wanted["boxes"], boxes, multioutput="variance_weighted")
        assert found.metrics["r2(boxes)"].value == pytest.approx(r2, rel=1e-4)
        assert found.artifact.outputs == ["boxes", "scores"]
        assert set(found.parity.outputs) == {"boxes", "scores"}
    values = [row.measurements[0].accuracy.value for row in record.rows]
    assert values[0] < 0.8 < values[1]
    assert record.rows[2].measurements[0].accuracy.versus_baseline is not None
    write_report(Record.load(folder), folder)
    assert "F1(scores)" in (folder / "report.html").read_text()


def test_a_run_is_resumed_and_measured_again_only_for_another_output(tmp_path):
    cache, stages = str(tmp_path / "cache"), STAGES.replace("12", "1")
    first = run(recipe(stages=stages), tmp_path / "run", cache=cache)
    again = run(recipe(stages=stages), tmp_path / "run", cache=cache)
    assert [row.cached for row in again.rows[1:]] == [True, True]
    assert again.rows[2].measurements == first.rows[2].measurements
    elsewhere = run(recipe(stages=stages), tmp_path / "other", cache=cache)
    assert [row.cached for row in elsewhere.rows[1:]] == [True, True]
    other = TASK.replace("{name: f1, on: scores}", "{name: spearman, on: boxes}")
    changed = run(recipe(other, stages), tmp_path / "run", cache=cache)
    assert [row.cached for row in changed.rows[1:]] == [True, True]  # the stages
    assert changed.task.metric == "spearman(boxes)"
    assert changed.rows[2].fingerprint == first.rows[2].fingerprint
    assert changed.rows[2].measured_with != first.rows[2].measured_with


def test_without_labels_rows_are_compared_by_output_with_row_0(tmp_path):
    task = """{name: 'two_parts:make_task', labeled: false,
      outputs: {boxes: values, scores: independent-logits},
      metric: [{name: accuracy, on: scores}, {name: r2, on: boxes}]}"""
    record = run(recipe(task, "[{kind: quantize}]"), tmp_path / "run", cache="none")
    facts = record.task
    assert (facts.metric, facts.reference) == ("binary-agreement(scores)", "row 0")
    own, quantized = (row.measurements[0] for row in record.rows)
    assert own.accuracy.value == own.metrics["r2(boxes)"].value == 1
    assert 0.8 < quantized.accuracy.value <= 1
    assert 0.9 < quantized.metrics["r2(boxes)"].value < 1


def test_only_the_outputs_that_the_task_names_ship(tmp_path):
    task = "{name: 'two_parts:make_task', outputs: {scores: independent-logits}, metric: f1}"
    record = run(recipe(task, "[{kind: quantize}]"), tmp_path / "run", cache="none")
    assert record.task.metric == "f1"
    found = record.rows[1].measurements[0]
    inputs = np.zeros((3, 6), np.float32)
    [scores] = ReplayTarget().predict(tmp_path / "run" / found.artifact.path, {"": inputs})
    assert scores.shape == (3, 2)
    assert "outputs" not in found.artifact.model_dump()


def test_a_function_of_ones_own_gets_all_outputs_in_a_run(tmp_path):
    def both(outputs, labels):
        assert outputs.keys() == labels.keys() == {"boxes", "scores"}
        return ((outputs["scores"] > 0) == labels["scores"]).mean(1)

    both.higher_is_better = True
    made = recipe(stages="[{kind: quantize}]")
    task = made.make_task()
    task = type(task)(
        **{**vars(task), "metric": both, "further_metrics": (MetricOn("r2", "boxes"),)}
    )
    record = run(made, tmp_path / "run", task, cache="none")
    assert record.task.metric == "both"
    assert 0 < record.rows[1].measurements[0].accuracy.value < 1


class Tries(Stage):
    """Measures what it made, on the validation split."""

    effects: ClassVar = PruneStage.effects
    measures: ClassVar = True
    kind: Literal["tries"] = "tries"

    def run(self, candidate, context):
        """The candidate, with its score beside that which came in."""
        made = PruneStage(ratio=0.25, round_to=4).run(candidate, context)
        found = context.evaluator.measure(made)
        return type(made)(**{**vars(made), "notes": (f"{found.score:.4f}",)})


def test_a_stage_measures_by_the_leading_metric_on_its_output(tmp_path):
    made = recipe(stages="[{kind: quantize}]")
    tries = Recipe(name="tries", stages=(Tries(),))
    task = made.make_task()
    record = tries.run(
        made.make_candidate(task),
        task,
        workdir=tmp_path / "run",
        targets=[ReplayTarget()],
        mode="quick",
        cache="none",
        report=False,
    )
    [note] = record.rows[1].notes
    path = tmp_path / "run" / record.rows[1].measurements[0].artifact.path
    inputs = np.stack([x.numpy() for x, _ in task.validation])
    _, scores = ReplayTarget().predict(path, {"": inputs})
    wanted = np.stack([y["scores"].numpy() for _, y in task.validation])
    f1 = f1_score(wanted, scores > 0, average="macro", zero_division=0)
    assert float(note) == pytest.approx(f1, abs=1e-3)


def test_a_student_without_an_output_is_refused_before_anything_is_trained(tmp_path):
    losses = "losses: [{kind: logits-mse, on: boxes}]"
    student = f"{{kind: distill, student: {{arch: 'two_parts:Narrow'}}, {losses}, epochs: 1}}"
    task = """{name: 'two_parts:make_task', labeled: false,
      metric: [{name: r2, on: boxes}, {name: binary-accuracy, on: scores}]}"""
    made = recipe(task, f"[{student}]")
    message = (
        r"the new model has the outputs boxes, logits, and the one before it has boxes, scores: "
        r"'scores' is missing, and rows are scored by their names; return the same ones\.$"
    )
    with pytest.raises(DataError, match=message):
        made.plan(workdir=tmp_path / "run")


def test_its_bundle_scores_the_output_on_a_device(tmp_path):
    text = f"name: two\ntask: {TASK}\nmodel: {{arch: two_parts:Net}}\nstages: [{{kind: quantize}}]"
    loaded = Recipe.loads(text, imports=["two_parts"])
    run(loaded, tmp_path / "run", cache="none")
    out = tmp_path / "b.zip"
    assert main(["bundle", str(tmp_path / "run"), "-o", str(out), "--import", "two_parts"]) == 0
    with zipfile.ZipFile(out) as archive:
        session = json.loads(archive.read("MANIFEST.json"))["session"]
        labels = np.load(archive.open("labels.npy"))
    assert session["metric"] == "f1"
    assert [model["output"] for model in session["models"]] == [1, 1]
    assert labels.shape == (60, 2)
