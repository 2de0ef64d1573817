"""What will be served: scored row by row beside the test split, and used for nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress import Candidate, Recipe, ReplayTarget
from compress.errors import DataError
from compress.record import Accuracy, Record
from compress.report import render_table
from compress.report.csv import csv_text
from compress.report.page.page import page
from compress.running.serving import _change
from compress.tasks.arrays import ArrayDataset, inputs_of
from compress.testing.nets import NETS

TRAIN = "name: r\nstages: [{kind: train, epochs: 6, batch_size: 32, learning_rate: 0.01}"
CASE = NETS["mlp"]


def shifted(dataset, by):
    return ArrayDataset(dataset.inputs + by, dataset.labels)


@pytest.fixture(scope="module")
def task():
    return CASE.make_task()


@pytest.fixture
def start():
    return Candidate.of(CASE.build(), CASE.example())


def ran(start, task, folder, *, text=f"{TRAIN}, {{kind: quantize}}]", fresh=False):
    target = ReplayTarget()
    record = Recipe.loads(f"{text}\n").run(
        start, task, targets=[target], workdir=folder, report=False, cache="none", fresh=fresh
    )
    return record, [row.on(target.name) for row in record.rows]


def test_each_row_has_its_score_beside_the_test_split_with_labels(start, task, tmp_path):
    given = replace(
        task, serving=shifted(task.test, 4.0), slices={"same": task.test, "far": task.validation}
    )
    record, rows = ran(start, given, tmp_path)
    assert record.task.serving.samples == len(task.test)
    assert (record.task.serving.metric, record.task.serving.reference) == ("accuracy", None)
    assert list(record.task.slices) == ["same", "far"]
    trained = rows[1]
    same = trained.slices["same"]
    assert same.accuracy.value == trained.accuracy.value
    assert same.change.value == 0
    assert same.change.ci95[0] < 0 < same.change.ci95[1]
    served = trained.serving
    assert served.accuracy.value < trained.accuracy.value
    assert served.change.ci95[1] < 0
    assert served.on_test is served.estimate is None
    assert rows[2].serving.accuracy.versus_baseline is not None
    assert [row.serving.told_apart is not None for row in rows] == [False, True, False]
    told = served.told_apart
    assert told.is_shown
    assert told.level == 0.01
    assert told.ci95[0] > 0.5
    text = render_table(record, width=140, encoding="utf-8")
    assert "the serving sample differs from validation data: by the outputs of row 1" in text
    assert "on 128 serving samples" in text
    assert " far " in text
    assert "on_serving,on_serving_low,on_serving_high,on_same" in csv_text([("r", record)])
    assert "On the serving sample" in page(record)
    assert Record.model_validate_json(record.dumps()).rows[1].measurements[0] == trained


def test_samples_of_the_same_kind_raise_no_sentence(start, task, tmp_path):
    record, rows = ran(start, replace(task, serving=task.test), tmp_path, text=f"{TRAIN}]")
    assert not rows[1].serving.told_apart.is_shown
    assert "differs from validation data" not in render_table(record)


def test_without_labels_it_is_agreement_with_the_baseline_and_an_estimate(start, task, tmp_path):
    given = replace(task, serving=inputs_of(task.test))
    record, rows = ran(start, given, tmp_path)
    facts = record.task.serving
    assert (facts.metric, facts.reference) == ("agreement", "the baseline row")
    assert rows[1].serving.accuracy.value == rows[1].serving.on_test.value == 1
    quantized = rows[2]
    assert quantized.serving.accuracy.value == quantized.serving.on_test.value > 0.8
    assert quantized.serving.change.value == 0
    estimate = quantized.serving.estimate
    assert estimate.ci95[0] <= quantized.accuracy.value <= estimate.ci95[1]
    assert estimate.change.ci95[0] <= 0 <= estimate.change.ci95[1]
    assert "is estimated as" in render_table(record)


def test_what_cannot_be_known_is_said(start, task, tmp_path):
    given = replace(task, serving=inputs_of(shifted(task.test, 4.0)))
    record, rows = ran(start, given, tmp_path, text=f"{TRAIN}]")
    assert rows[1].serving.estimate is None
    assert "its confidence to tell" in rows[1].serving.no_estimate
    assert "cannot be known without labels" in render_table(record)


def test_a_named_teacher_stands_for_missing_labels(start, task, tmp_path, monkeypatch):
    (tmp_path / "other.py").write_text(
        "import torch\ndef teacher(x):\n    return x.flatten(1)[:, :3] * 0 + 4 * torch.eye(3)[1]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        "name: r\nstages: [{kind: distill, teacher: {callable: 'other:teacher'}, epochs: 1, "
        "batch_size: 64, losses: [{kind: response}]}]\n"
    )
    given = replace(task, slices={"new": inputs_of(task.validation)})
    classes = len(task.classes)
    (tmp_path / "other.py").write_text(
        (tmp_path / "other.py").read_text().replace("3", str(classes))
    )
    recipe = Recipe.loads(text, imports=["other"])
    record = recipe.run(
        start, given, targets=[ReplayTarget()], workdir=tmp_path / "run", report=False,
        cache="none", imports=["other"],
    )  # fmt: skip
    assert record.task.slices["new"].reference == "the teacher other:teacher"
    found = record.rows[0].measurements[0].slices["new"]
    outputs = CASE.build()(torch.as_tensor(task.validation.inputs)).argmax(1)
    assert found.accuracy.value == pytest.approx(float((outputs == 1).float().mean()))
    assert found.on_test is not None


def test_an_edited_sample_is_scored_again_and_no_stage_is_run_again(start, task, tmp_path):
    alone = f"{TRAIN}]"
    first, _ = ran(start, replace(task, serving=task.test), tmp_path, text=alone)
    again, _ = ran(start, replace(task, serving=task.test), tmp_path, text=alone)
    other, rows = ran(start, replace(task, serving=shifted(task.test, 1.0)), tmp_path, text=alone)
    assert first.rows[1].measurements == again.rows[1].measurements
    assert [row.cached for row in other.rows] == [row.cached for row in again.rows]
    assert rows[1].serving != first.rows[1].measurements[0].serving
    plain, rows = ran(start, task, tmp_path, text=alone)
    assert plain.task.serving is rows[1].serving is None
    assert "serving" not in json.loads(plain.dumps())["rows"][1]["measurements"][0]


def test_samples_never_reach_a_stage(start, task, tmp_path):
    fingerprints = {
        ran(start, one, tmp_path / str(place), text=f"{TRAIN}]")[0].rows[-1].fingerprint
        for place, one in enumerate([task, replace(task, serving=shifted(task.test, 3.0))])
    }
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda t: ArrayDataset(t.inputs[:, :5]), r"slice odd sample: its inputs are \("),
        (lambda t: ArrayDataset(t.inputs.long()), "of whole numbers, and those of the test split"),
        (lambda t: ArrayDataset(t.inputs, t.labels + 90), "slice odd sample: the label 9"),
        (lambda t: ArrayDataset(t.inputs * np.inf), "slice odd sample: the input of sample 0 hold"),
    ],
)
def test_samples_of_another_form_are_told_before_anything_runs(start, task, tmp_path, made, said):
    given = replace(task, slices={"odd": made(task.test)})
    with pytest.raises(DataError, match=said):
        ran(start, given, tmp_path)


def test_few_samples_are_not_tested_and_that_is_said(start, task, tmp_path):
    few = ArrayDataset(task.test.inputs[:5], task.test.labels[:5])
    _, rows = ran(start, replace(task, serving=few), tmp_path, text=f"{TRAIN}]")
    assert rows[1].serving.told_apart is None
    assert any("fewer than 20 serving or validation samples" in each for each in rows[1].warnings)


def test_samples_that_are_trained_on_are_noted(start, task, tmp_path):
    record, _ = ran(start, replace(task, serving=task.train), tmp_path, text=f"{TRAIN}]")
    assert any("256 of 256 serving samples are in the train split too" in note
               for note in record.rows[0].notes)  # fmt: skip


def test_the_interval_of_a_change_is_newcombes():
    # Newcombe 1998, table II, (a): 56/70 less 48/80, method 10.
    a = Accuracy(value=56 / 70, ci95=(0.6923, 0.8767), n=70)
    b = Accuracy(value=48 / 80, ci95=(0.4904, 0.7003), n=80)
    found = _change(a, b)
    assert found.value == pytest.approx(0.2)
    assert found.ci95 == pytest.approx((0.0524, 0.3339), abs=5e-4)
