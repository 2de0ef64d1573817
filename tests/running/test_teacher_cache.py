"""The teacher's cached outputs in a run: forecast, kept between runs, noted where damaged."""

import json
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from compress import DistillStage, PruneStage, Recipe, Record, TrainStage

SETTINGS = {"epochs": 3, "batch_size": 64, "views": 2}


def recipe(**settings):
    return Recipe(name="answers", stages=(DistillStage(**{**SETTINGS, **settings}),))


def of_damage(row):
    """What a row says beside which losses were taken, and that the steps are few."""
    others = ("losses by default", "steps of training are too few")
    return [note for note in row.notes if not any(other in note for other in others)]


def asked(folder):
    """How many views the teacher was asked about, by the log."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return sum(json.loads(line).get("event") == "progress" for line in lines)


@pytest.fixture
def run(candidate, task, target, tmp_path):
    def call(recipe, **options):
        return recipe.run(
            candidate, task, targets=[target], workdir=tmp_path, **options, report=False
        )

    return call


def test_a_changed_student_asks_the_teacher_nothing(run, tmp_path):
    run(recipe())
    record = run(recipe(learning_rate=1e-2))
    assert not record.rows[1].cached
    assert asked(tmp_path) == 2


def test_fresh_removes_them(run, tmp_path):
    run(recipe())
    run(recipe(), fresh=True)
    assert asked(tmp_path) == 2  # of a log that was removed too


def test_answers_that_were_damaged_are_noted_in_the_row(run, tmp_path):
    run(recipe())
    (first, _) = sorted(tmp_path.rglob("outputs.npy"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    record = run(recipe(learning_rate=1e-2))
    assert asked(tmp_path) == 3
    (note,) = of_damage(record.rows[1])
    assert note.endswith("its checksum is another; the teacher's outputs are computed again.")
    assert [entry["epoch"] for entry in record.rows[1].history] == [1, 2, 3]
    again = run(recipe(learning_rate=1e-2))
    assert again.rows[1].cached
    assert of_damage(again.rows[1]) == [note]


def test_another_teacher_under_the_same_name_is_noticed(run, case, tmp_path):
    path = tmp_path / "t.safetensors"
    teacher = {"arch": "mlp", "weights": path, **case.options, "classes": case.classes}
    prints = []
    for seed in (1, 1, 2):
        save_file(case.build(seed=seed).state_dict(), path)
        record = run(recipe(teacher=[{"weight": 2, **teacher}]))
        prints.append(record.rows[1].fingerprint)
    assert prints[0] == prints[1] != prints[2]


class Partly:
    """The samples of a data set, of which every third has a label."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        inputs, label = self._dataset[index]
        return inputs, None if index % 3 else int(label)


def test_partly_labeled_data_go_through_a_whole_run(candidate, task, target, tmp_path):
    partly = replace(task, train=Partly(task.train))
    losses = [{"kind": "response"}, {"kind": "label"}]
    stages = (TrainStage(epochs=1), *recipe(losses=losses, mix={"kind": "mixup"}).stages)
    made = Recipe(name="answers", stages=stages)
    record = made.run(candidate, partly, targets=[target], workdir=tmp_path, report=False)
    assert record.status == "done"
    assert record.rows[2].history[-1]["losses"].keys() == {"response", "label"}


@pytest.mark.parametrize("kind", ["distill", "prune"])
def test_plan_forecasts_what_they_take(kind, tmp_path):
    settings = {**SETTINGS, "losses": [{"kind": "response"}]}
    stage = DistillStage(**settings) if kind == "distill" else PruneStage(finetune=settings)
    made = Recipe(
        name="answers",
        task="digits",
        model={"arch": "mlp", "in_features": 64, "width": 16},
        stages=(stage,),
    )
    plan = made.plan(workdir=tmp_path)
    assert [line.teacher_cache_bytes for line in plan.stages] == [0, 2 * 1077 * 10 * 4]
    assert plan.disk_bytes >= 2 * 1077 * 10 * 4
    assert not list(tmp_path.iterdir())


SLOW = """\
schema: 1
name: slow
task: digits
model: {arch: mlp, in_features: 64, width: 16}
stages:
  - kind: distill
    teacher: {callable: "slow_parts:teach"}
    epochs: 200
    batch_size: 1000
"""
ASKED_S = 0.05


def test_plan_forecasts_the_time_that_they_take(tmp_path, monkeypatch):
    module = types.ModuleType("slow_parts")
    module.teach = lambda inputs: time.sleep(ASKED_S) or torch.zeros(len(inputs), 10)
    monkeypatch.setitem(sys.modules, "slow_parts", module)

    def seconds(more):
        made = Recipe.loads(SLOW + more, imports=("slow_parts",))
        return made.plan(workdir=tmp_path).stages[1].seconds

    every_epoch = 200 * 2 * ASKED_S
    assert seconds("") >= every_epoch
    assert 2 * ASKED_S <= seconds("    views: 1\n") < every_epoch


RECIPE = """\
schema: 1
name: r
task: digits
model: {arch: mlp, in_features: 64}
stages:
  - {kind: distill, epochs: %d, views: 2, batch_size: 64, losses: [{kind: response}]}
"""


@pytest.mark.exhaustive  # as test_kill.py does; an edit that keeps the answers is above
def test_a_run_that_is_killed_goes_on_with_the_answers_that_it_had(tmp_path):
    command = [sys.executable, "-m", "compress", "run", "r.yaml", "--quick", "--out", "run"]
    (tmp_path / "r.yaml").write_text(RECIPE % 10_000)
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    log, end = tmp_path / "run" / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and '"epoch": 4,' in log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert asked(tmp_path / "run") == 2

    (tmp_path / "r.yaml").write_text(RECIPE % 3)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert asked(tmp_path / "run") == 2
    assert of_damage(Record.load(tmp_path / "run").rows[1]) == []
