"""What changed for a deployed model between two runs, on the same samples."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress import Candidate, Recipe, ReplayTarget, Task
from compress.errors import RecipeError, RecordError
from compress.measure import stats
from compress.record import Record
from compress.releases import Deployed, changes_between
from compress.releases.words import changes_json, changes_markdown, changes_text
from compress.running.scoring import scoring_of, supervision_of_job
from compress.tasks.arrays import ArrayDataset, inputs_of
from compress.testing.nets import NETS

CASE = NETS["mlp"]


def ran(folder, task, epochs, module=None):
    recipe = Recipe.loads(
        f"name: r\nstages: [{{kind: train, epochs: {epochs}, batch_size: 32, "
        "learning_rate: 0.004}]\n"
    )
    start = Candidate.of(module or CASE.build(), task_example(task))
    recipe.run(start, task, targets=[ReplayTarget()], workdir=folder, report=False, cache="none")
    return recipe, start


def task_example(task):
    return torch.stack([task.test[place][0] for place in range(2)])


def scoring(recipe, start, task, folder):
    job = recipe.job(start, task, targets=[ReplayTarget()], workdir=folder)
    return scoring_of(job, supervision_of_job(job))


def deployed(folder, row=None):
    return Deployed.of(Record.load(folder), folder, row)


@pytest.fixture(scope="module")
def task():
    made = CASE.make_task()
    # Harder than it is, so that models differ.
    noise = torch.randn(made.test.inputs.shape, generator=torch.Generator().manual_seed(1))
    noisy = ArrayDataset(made.test.inputs + 1.5 * noise, made.test.labels)
    return replace(made, test=noisy, slices={"easy": made.validation})


@pytest.fixture(scope="module")
def runs(task, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    ran(root / "old", task, 1)
    recipe, start = ran(root / "new", task, 3)
    return root, scoring(recipe, start, task, root / "new")


@pytest.fixture(scope="module")
def found(runs, task):
    root, scored = runs
    return changes_between(deployed(root / "old", 1), deployed(root / "new", 1), task, scored)


def test_both_are_scored_on_the_same_samples_in_pairs(found, runs):
    root, _ = runs
    for change, name in ((found.test.old, "old"), (found.test.new, "new")):
        recorded = Record.load(root / name).rows[1].measurements[0].accuracy
        assert change.value == pytest.approx(recorded.value)
        assert change.ci95 == pytest.approx(recorded.ci95)
    versus = found.test.new.versus_baseline
    gained, lost, count = found.test.gained, found.test.lost, found.test.new.n
    assert (gained - lost) / count == pytest.approx(found.test.new.value - found.test.old.value)
    assert versus["p_value"] == pytest.approx(stats.mcnemar(lost, gained))
    ends = (versus["delta_ci_lo"], versus["delta_ci_hi"])
    assert ends == pytest.approx(stats.paired_difference(lost, gained, count))
    assert found.test.differing >= gained + lost > 0


def test_flips_of_classes_add_up_and_slices_are_compared_too(found):
    assert sum(each.lost for each in found.classes) == found.test.lost
    assert sum(each.gained for each in found.classes) == found.test.gained
    for each in found.classes:
        assert each.new_right - each.old_right == each.gained - each.lost
        assert max(each.old_right, each.new_right) <= each.samples
    assert list(found.slices) == ["easy"]
    assert found.slices["easy"].new.n == 64


def test_it_says_what_else_changed_and_that_the_data_did_not(found):
    assert [(each.key, each.values) for each in found.differences if each.is_setting] == [
        ("stages.train.epochs", ("1", "3"))
    ]
    assert found.data == ()
    assert found.notes == ()


def test_text_markdown_and_json_say_the_same(found):
    text = changes_text(found)
    assert "exact McNemar test, p = " in text
    assert "stages.train.epochs" in text
    assert "Training, validation and test data are the same, sample by sample." in text
    assert "easy" in text
    page = changes_markdown(found)
    assert page.startswith("# ")
    assert "<!-- compresskit: changes" in page
    plain = json.loads(json.dumps(changes_json(found)))
    assert plain["test"]["change"]["gained"] == found.test.gained
    assert plain["old"]["row"] == 1
    assert plain["differences"]["stages.train.epochs"] == ["1", "3"]


def test_a_changed_test_split_is_said(runs, task):
    root, scored = runs
    other = replace(task, test=ArrayDataset(task.test.inputs[:100], task.test.labels[:100]))
    found = changes_between(deployed(root / "old"), deployed(root / "new"), other, scored)
    assert found.test.new.n == 100
    assert any("the test split has changed since the new run" in note for note in found.notes)


def test_runs_with_other_test_splits_are_compared_on_that_of_the_new_one(runs, task, tmp_path):
    other = replace(task, test=task.validation, slices={})
    recipe, start = ran(tmp_path / "new", other, 1)
    scored = scoring(recipe, start, other, tmp_path / "new")
    old, new = deployed(runs[0] / "old", 1), deployed(tmp_path / "new", 1)
    found = changes_between(old, new, other, scored)
    assert found.data == ("test",)
    assert any("the runs had different test splits" in note for note in found.notes)
    assert any("the same file, bit for bit" in note for note in found.notes)
    assert (found.test.lost, found.test.gained, found.test.differing) == (0, 0, 0)


def test_what_cannot_be_compared_is_one_sentence(runs, task, tmp_path):
    root, scored = runs
    old, new = deployed(root / "old"), deployed(root / "new")
    with pytest.raises(RecordError, match=r"row \d is compared with itself; give two runs"):
        changes_between(new, deployed(root / "new" / ".." / "new"), task, scored)
    facts = new.record.task.model_copy(update={"name": "other"})
    odd = replace(new, record=new.record.model_copy(update={"task": facts}))
    with pytest.raises(RecipeError, match="the runs are of different tasks, synthetic-mlp"):
        changes_between(old, odd, task, scored)
    narrow = replace(task, test=ArrayDataset(task.test.inputs[:, :5], task.test.labels))
    with pytest.raises(RecordError, match=r"its file takes x \(n, 24\), and the task gives"):
        changes_between(old, new, narrow, scored)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text((root / "old" / "record.json").read_text())
    with pytest.raises(RecordError, match="is gone; run the recipe again"):
        deployed(tmp_path / "run")


def test_rows_of_one_run_may_be_compared(runs, task):
    root, scored = runs
    found = changes_between(deployed(root / "new", 0), deployed(root / "new", 1), task, scored)
    assert found.differences == ()
    assert "The recipes are equal" in changes_text(found)


def test_without_labels_it_is_how_often_both_agree(runs, task):
    root, _ = runs
    plain = replace(task, test=inputs_of(task.test), slices={})
    _, scored = runs
    found = changes_between(
        deployed(root / "old", 1), deployed(root / "new", 1), plain, scored.without_labels(None)
    )
    assert (found.metric, found.against) == ("agreement", "the old model")
    assert found.test.old.value == 1
    assert found.test.new.value == 1 - found.test.differing / found.test.new.n
    assert found.test.against == "the old model"
    assert "scored against the old model" in " ".join(changes_text(found).split())


def test_of_numbers_the_samples_that_changed_most_are_listed(tmp_path):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(160, 3, generator=rng)
    values = ArrayDataset(inputs, inputs @ torch.tensor([[1.0], [2.0], [-1.0]]))
    parts = [values.subset(range(start, start + 40)) for start in (0, 40, 80)]
    task = Task("lines", *parts, metric="mse", outputs="values")
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()
    ran(tmp_path / "old", task, 1, net)
    recipe, start = ran(tmp_path / "new", task, 8, net)
    scored = scoring(recipe, start, task, tmp_path / "new")
    before, after = deployed(tmp_path / "old", 1), deployed(tmp_path / "new", 1)
    found = changes_between(before, after, task, scored)
    changes = [each.new - each.old for each in found.moved]
    assert len(changes) == 10
    assert changes == sorted(changes, reverse=True)  # of mse less is better: the worst first
    assert min(changes) < 0
    old = before.outputs({"": parts[2].inputs.numpy()})[0]
    place = found.moved[-1].place
    assert found.moved[-1].old == pytest.approx(
        float(np.square(old[place] - parts[2].labels.numpy()[place]).mean()), rel=1e-5
    )
    assert found.classes == ()
    assert "Test samples that changed most" in changes_text(found)
