"""``compresskit compare`` as a person uses it."""

import json
import shutil

import pytest

from compress import Recipe, ReplayTarget
from compress.cli import main
from compress.cli.compare import _timed
from compress.record import Record
from compress.releases import Deployed, changes_between
from compress.releases.words import changes_json, changes_text

RECIPE = """\
name: tiny
task: digits
model: {arch: mlp, in_features: 64, width: 8}
stages: [{kind: train, epochs: 1, batch_size: 64, learning_rate: 0.01}]
"""


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.loads(RECIPE)
    task = recipe.make_task()
    model = recipe.make_candidate(task)
    recipe.run(model, task, targets=[ReplayTarget()], workdir=folder, report=False, cache="none")
    return folder


def said(capsys, *arguments):
    code = main(["compare", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_two_rows_of_a_run_as_text_markdown_and_json(digits_run, tmp_path, capsys):
    rows = ("--row", 0, "--row", 1)
    code, out, _ = said(capsys, digits_run, digits_run, *rows, "-o", tmp_path / "changes.md")
    assert code == 0
    assert "wrong -> right" in out
    assert "Accuracy changed by +" in out
    assert (tmp_path / "changes.md").read_text().startswith("# ")
    code, out, _ = said(capsys, digits_run, digits_run, *rows, "--json")
    plain = json.loads(out)
    assert (code, plain["command"], plain["exit_code"]) == (0, "compare", 0)
    assert plain["test"]["samples"] == 450
    assert plain["test"]["change"]["gained"] > plain["test"]["change"]["lost"]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ((), 2, "row 1 is compared with itself; give two runs"),
        (("--row", 0, "--row", 9), 2, "--row 9: the run tiny has rows 0 to 1"),
        (("--row", 0, "--row", 1, "--row", 1), 2, "give one for both runs, or one for each; got 3"),
        (("--row", 0, "--row", 1, "--time"), 2, "the target replay is none of the new run's"),
        (("--target", "moon"), 2, "nothing was measured on it"),
    ],
)
def test_what_cannot_be_is_one_sentence(digits_run, capsys, more, code, words):
    found, out, err = said(capsys, digits_run, digits_run, *more)
    assert (found, out) == (code, "")
    assert words in err


def test_a_run_that_was_given_its_task_in_python_names_none(digits_run, tmp_path, capsys):
    shutil.copytree(digits_run, tmp_path / "python")
    record = Record.load(digits_run)
    del record.recipe["task"]
    record.save(tmp_path / "python")
    code, _, err = said(capsys, digits_run, tmp_path / "python", "--row", 1)
    assert code == 2
    assert "the run was given its task and model in Python" in err


def test_somebodys_file_stays_as_it_is(digits_run, tmp_path, capsys):
    (tmp_path / "mine.md").write_text("mine")
    rows = ("--row", 0, "--row", 1)
    code, _, err = said(capsys, digits_run, digits_run, *rows, "-o", tmp_path / "mine.md")
    assert code == 2
    assert "a file that is not a comparison" in err


def test_both_files_are_timed_in_turns(digits_run):
    recipe, record = Recipe.loads(RECIPE), Record.load(digits_run)
    task = recipe.make_task()
    rows = [Deployed.of(record, digits_run, row) for row in (0, 1)]
    target = ReplayTarget(latency_s={"00-input/model.onnx": 2e-3, "01-train/model.onnx": 1e-3})
    found = changes_between(*rows, task, recipe.scoring(task))
    timed = _timed(found, task, target, "quick")
    assert changes_json(timed)["timed"]["speedup"] == pytest.approx(2.0)
    text = " ".join(changes_text(timed).split())
    assert "Time: the new file is 2.00x [2.00, 2.00] as fast as the old one" in text
    assert "--time times both in turns here" in " ".join(changes_text(found).split())
