"""What a shipped folder holds, where it may be written, and what is not shipped."""

import errno
import hashlib
import json
import os
import re
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

import compress.ship.write
from compress import Candidate, ImagePreprocessing, QuantizeStage, Recipe, Record, ReplayTarget
from compress.cli import main
from compress.errors import DataError, LoweringError, RecipeError, RecordError, StorageError
from compress.report import write_report
from compress.ship import ShipRequest, ship_advised, write_ship
from compress.ship.card import card
from compress.ship.request import choose
from compress.ship_folder import FACTS, check_ship_folder, shipped_in

RECIPE = """\
name: small
task: digits
model: {arch: mlp, in_features: 64, width: 8}
stages: [{kind: quantize, activations: float32}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two rows, which shipped the advised one."""
    root = tmp_path_factory.mktemp("finished")
    recipe = Recipe.loads(RECIPE)
    task = recipe.make_task()
    candidate = recipe.make_candidate(task)
    recipe.run(
        candidate,
        task,
        workdir=root,
        targets=[ReplayTarget()],
        mode="quick",
        cache="none",
        ship=True,
    )
    return root


@pytest.fixture
def made(finished, tmp_path):
    """A copy of it, its record, and what it was of."""
    shutil.copytree(finished, tmp_path / "run")
    run = tmp_path / "run"
    recipe = Recipe.loads(RECIPE)

    def job():
        task = recipe.make_task()
        candidate = recipe.make_candidate(task)
        return recipe.job(candidate, task, workdir=run, targets=[ReplayTarget()])

    return run, Record.load(run), job


def facts_in(folder):
    return json.loads((folder / FACTS).read_text())


def never():
    raise AssertionError("nothing had to be written")


def test_the_measured_file_is_there_byte_for_byte_and_says_what_it_is(finished):
    facts, record = facts_in(finished / "ship"), Record.load(finished)
    row = record.rows[facts["provenance"]["row"]]
    measured = (finished / row.on("replay").artifact.path).read_bytes()
    shipped = (finished / "ship" / "model.onnx").read_bytes()
    assert shipped.startswith(measured)
    assert facts["model"]["measured"]["sha256"] == row.on("replay").artifact.sha256
    assert facts["model"]["sha256"] == hashlib.sha256(shipped).hexdigest()
    assert facts["model"]["was_measured"]
    graphs = [onnx.load_model_from_string(one).graph for one in (measured, shipped)]
    assert graphs[0] == graphs[1]
    session = onnxruntime.InferenceSession(finished / "ship" / "model.onnx")
    says = session.get_modelmeta().custom_metadata_map
    assert says["compresskit.recipe"] == "small"
    assert json.loads(says["compresskit.classes"]) == list("0123456789")
    assert json.loads(says["compresskit.preprocessing"]) == facts["preprocessing"]
    assert json.loads(says["compresskit.outputs"])[0]["kind"] == "class-scores"
    assert float(says["compresskit.value"]) == row.on("replay").accuracy.value
    onnx.checker.check_model(finished / "ship" / "model.onnx")


def test_the_facts_and_the_card_name_row_numbers_and_origin(finished):
    facts, record = facts_in(finished / "ship"), Record.load(finished)
    row = record.rows[facts["provenance"]["row"]]
    assert facts["schema"] == 1
    assert [one["fingerprint"] for one in facts["provenance"]["lineage"]] == [
        one.fingerprint for one in record.rows[: row.index + 1]
    ]
    assert facts["measured"]["metric"]["ci95"] == list(row.on("replay").accuracy.ci95)
    assert facts["outputs"][0]["kind"] == "class-scores"
    text = (finished / "ship" / "README.md").read_text()
    assert text.startswith(f"# small, row {row.index} ({row.stage})")
    assert "python run.py photo.png" in text
    assert row.fingerprint in text
    assert "95 % interval" in text
    assert "arrays (`.npy`, `.npz`) are fed as they are" in text


def test_a_card_of_several_inputs_runs_a_file_that_has_them_all(finished):
    record, facts = Record.load(finished), facts_in(finished / "ship")
    facts["inputs"] = [{**facts["inputs"][0], "name": name} for name in ("load", "temperature")]
    text = card(choose(record, finished, ShipRequest()), facts)
    assert "python run.py inputs.npz" in text
    assert "an array for each input by its name: load, temperature." in text


def test_what_is_unchanged_is_left_as_it_is_and_another_row_replaces_it(made):
    run, record, job = made
    before = {path.name: path.stat().st_mtime_ns for path in (run / "ship").iterdir()}
    environment = {**record.environment, "date": "2001-01-01"}  # of a run that was repeated
    again = record.model_copy(update={"environment": environment})
    shipped = write_ship(again, run, never)
    assert {path.name: path.stat().st_mtime_ns for path in (run / "ship").iterdir()} == before
    other = write_ship(record, run, job, ShipRequest(row=1 - shipped.row))
    assert other.row == 1 - shipped.row
    assert other.is_of(record)
    assert "chosen by hand" in (run / "ship" / "README.md").read_text()
    assert write_ship(record, run, job).row == shipped.row


@pytest.mark.parametrize(("samples", "count"), [(7, 7), ("all", 450), (1000, 450)])
def test_as_many_samples_as_were_asked_for(samples, count, made):
    run, record, job = made
    write_ship(record, run, job, ShipRequest(out=run / "out", samples=samples))
    with np.load(run / "out" / "samples.npz") as arrays:
        assert {len(arrays[name]) for name in arrays.files} == {count}
    assert facts_in(run / "out")["samples"]["count"] == count


@pytest.mark.parametrize("batch", [8, "any"])
def test_another_batch_is_lowered_again_and_says_that_it_was_not_timed(batch, made):
    run, record, job = made
    shipped = write_ship(record, run, job, ShipRequest(row=1, out=run / "out", batch=batch))
    facts = facts_in(run / "out")
    assert shipped.batch == batch
    assert not shipped.was_measured
    assert facts["inputs"][0]["shape"][0] == (8 if batch == 8 else "batch")
    assert "These numbers are not of this file" in (run / "out" / "README.md").read_text()
    # Against what the measured file gives for the same samples.
    with np.load(run / "out" / "samples.npz") as other:
        write_ship(record, run, job, ShipRequest(row=1, out=run / "own"))
        with np.load(run / "own" / "samples.npz") as own:
            assert np.allclose(own["output/output"], other["output/output"], atol=1e-4)


def test_the_batch_that_was_measured_is_the_measured_file(made):
    run, record, job = made
    request = ShipRequest(out=run / "out", batch=ReplayTarget().lowering().batch)
    assert write_ship(record, run, job, request).was_measured


def test_a_file_of_somebodys_stays_and_other_names_do_not_matter(made):
    run, record, job = made
    (run / "ship" / "photo.png").write_bytes(b"mine")
    (run / "ship" / "__pycache__").mkdir()
    first = write_ship(record, run, job)
    write_ship(record, run, job, ShipRequest(row=1 - first.row))
    assert (run / "ship" / "photo.png").read_bytes() == b"mine"
    program = run / "ship" / "run.py"
    program.write_text(program.read_text() + "# my change\n")
    with pytest.raises(RecipeError, match=r"ship: run\.py in it is not as compresskit wrote it"):
        write_ship(record, run, job)
    assert program.read_text().endswith("# my change\n")


@pytest.mark.parametrize("what", ["a file", "a link", "somebody's"])
def test_what_is_in_the_way_is_a_sentence(what, tmp_path):
    place = tmp_path / "ship"
    if what == "a file":
        place.write_text("x")
    elif what == "a link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir()
        (place / FACTS).write_text('{"kind": "mine"}')
    said = {"somebody's": "was not written by compresskit"}.get(what, f"this is {what}")
    with pytest.raises(RecipeError, match=said):
        check_ship_folder(place)


def test_a_run_does_not_begin_where_its_folder_has_something_of_somebodys(made, capsys):
    run, _, _ = made
    (run / "ship" / "run.py").write_text("mine")
    (run / "small.yaml").write_text(RECIPE)
    assert main(["run", str(run / "small.yaml"), "--out", str(run)]) == 2
    assert "run.py in it is not as compresskit wrote it" in capsys.readouterr().err


@pytest.mark.parametrize("after", range(1, 5))
def test_a_kill_at_any_moment_leaves_a_folder_to_ship_to(after, made, monkeypatch):
    run, record, job = made
    replace, calls = os.replace, []

    def killed(*places):
        calls.append(places)
        if len(calls) > after:
            raise KeyboardInterrupt
        replace(*places)

    first = write_ship(record, run, job)
    with monkeypatch.context() as patch:
        patch.setattr("compress.ship_folder.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_ship(record, run, job, ShipRequest(row=1 - first.row))
    assert shipped_in(run / "ship") is None
    assert write_ship(record, run, job).is_of(record)
    assert not [path for path in (run / "ship").iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_an_error_and_anything_else_a_notice(made, monkeypatch):
    run, record, job = made

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compress.ship.write, "write_model", full)
    shutil.rmtree(run / "ship")
    with pytest.raises(StorageError, match=r"ship: .* \(No space left on device\); free space"):
        ship_advised(record, job())
    told = []
    (run / "stages" / "00-input" / "model.onnx").unlink()
    (run / "stages" / "01-quantize" / "model.onnx").unlink()
    of = job()
    object.__setattr__(of, "callback", told.append)
    assert ship_advised(record, of) is None
    assert told[0]["event"] == "notice"
    assert "nothing is shipped: row" in told[0]["text"]


def with_rows(record, rows, **changes):
    return record.model_copy(update={"rows": rows, **changes})


def test_what_cannot_be_shipped_is_a_sentence(made):
    run, record, _ = made
    bare = [row.model_copy(update={"measurements": []}) for row in record.rows]
    with pytest.raises(RecordError, match="has no measured row yet"):
        write_ship(with_rows(record, bare), run, never)
    with pytest.raises(RecordError, match=r"row 1 \(quantize\): it was not measured on replay"):
        write_ship(with_rows(record, [record.rows[0], bare[1]]), run, never, ShipRequest(row=1))
    with pytest.raises(RecordError, match="--row 9: the run small has rows 0 to 1"):
        write_ship(record, run, never, ShipRequest(row=9))
    with pytest.raises(RecipeError, match=r"--target phone: nothing was measured on it.*replay"):
        write_ship(record, run, never, ShipRequest(target="phone"))
    found = record.rows[0].measurements[0]

    def at(path):
        facts = found.artifact.model_copy(update={"path": path})
        other = found.model_copy(update={"artifact": facts})
        row = record.rows[0].model_copy(update={"measurements": [other]})
        return with_rows(record, [row])

    with pytest.raises(RecordError, match="lies outside of the run's folder"):
        write_ship(at("../../model.onnx"), run, never)
    with pytest.raises(
        RecipeError, match=r"its file on replay is net\.bin, and what is shipped is"
    ):
        write_ship(at("net.bin"), run, never)
    with pytest.raises(RecordError, match=r"is not the one that the record describes"):
        write_ship(at(record.rows[1].measurements[0].artifact.path), run, never)


def test_a_batch_needs_the_candidate_and_a_target_of_the_recipe(made):
    run, record, job = made
    request = ShipRequest(row=1, out=run / "out", batch=4)
    other = job()
    object.__setattr__(other, "targets", [])
    with pytest.raises(LoweringError, match="the target 'replay' is none of the recipe's"):
        write_ship(record, run, lambda: other, request)
    shutil.rmtree(run / "stages" / "01-quantize" / "candidate")
    with pytest.raises(RecordError, match=r"row 1 \(quantize\): its candidate .* is gone"):
        write_ship(record, run, job, request)


def test_a_failed_run_ships_what_it_measured_and_the_card_says_so(made):
    run, record, job = made
    failed = with_rows(record, record.rows[:1], status="failed", error="prune: no room.")
    write_ship(failed, run, job, ShipRequest(out=run / "out"))
    card = (run / "out" / "README.md").read_text()
    assert "The run failed: prune: no room." in card


def test_a_task_without_test_samples_is_a_sentence(made):
    run, record, job = made
    empty = job()
    object.__setattr__(empty.task, "test", [])
    with pytest.raises(DataError, match="task 'digits': its test split has no sample to ship"):
        write_ship(record, run, lambda: empty, ShipRequest(out=run / "out"))


def test_fresh_removes_what_was_shipped_and_nothing_else(made):
    run, _, job = made
    (run / "ship" / "notes.txt").write_text("mine")
    job().folder.clear()
    assert [path.name for path in (run / "ship").iterdir()] == ["notes.txt"]


def test_the_page_names_what_lies_beside_it_unless_it_is_of_another_run(made, monkeypatch):
    run, record, _ = made
    monkeypatch.setattr("compress.report._drawn", lambda *_: {})  # pictures take seconds
    write_report(record, run)
    page = (run / "report.html").read_text()
    row = shipped_in(run / "ship").row
    assert f"Row {row} ({record.rows[row].stage}) is in <code>ship/</code> beside this page" in page
    changed = [one.model_copy(update={"fingerprint": "0" * 32}) for one in record.rows]
    write_report(with_rows(record, changed), run)
    assert "ship/</code>" not in (run / "report.html").read_text()


def test_the_command_ships_another_row_and_refuses_what_it_does_not_know(made, capsys):
    run, _, _ = made
    assert main(["ship", str(run), "--row", "0", "-o", str(run / "zero"), "--samples", "3"]) == 0
    assert (
        f"ship: {run / 'zero'} (row 0, input: the model as it came in)" in capsys.readouterr().out
    )
    for given, said in {
        ("--batch", "0"): "--batch 0: give a number from 1 to",
        ("--batch", "many"): "--batch many: give a number from 1 to .*, or any",
        ("--samples", "²"): "--samples ²: give a number from 1 to .*, or all",
        ("--row", "5"): "--row 5: the run small has rows 0 to 1",
    }.items():
        assert main(["ship", str(run), *given, "-o", str(run / "other")]) == 2
        err = capsys.readouterr().err
        assert re.search(said, err), err


def test_a_run_that_was_given_its_task_in_python_says_where_to_ship_it(tmp_path, capsys):
    recipe = Recipe.loads(RECIPE)
    task = recipe.make_task()
    bare = Recipe(name="bare", stages=[QuantizeStage(activations="float32")])
    start = Candidate.of(recipe.make_candidate(task).module, task.validation.inputs[:2])
    bare.run(start, task, workdir=tmp_path, targets=[ReplayTarget()], mode="quick", ship=True)
    shipped = shipped_in(tmp_path / "ship")
    assert main(["ship", str(tmp_path), "--row", str(1 - shipped.row)]) == 2
    assert "the run was given its task and model in Python" in capsys.readouterr().err
    assert main(["ship", str(tmp_path)]) == 0  # which is there already


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"height": 0}, "height and width are pixels"),
        ({"channels": 2}, "channels is 1"),
        ({"fit": "crop"}, "fit is cover, contain or stretch; got 'crop'"),
        ({"mean": (0.5, 0.5)}, "mean and std are one number, or one for each of 3 channels"),
        ({"std": 0.0}, "std and highest are above 0"),
        ({"fill": 300}, "fill is a byte"),
        ({"resize": 4}, "resize is the shorter side before a crop"),
        ({"fit": "stretch", "resize": 40}, "resize is the shorter side before a crop"),
        ({"layout": "bhwc"}, "layout is chw or hwc"),
    ],
)
def test_a_preprocessing_that_cannot_be_meant_is_a_sentence(given, said):
    with pytest.raises(DataError, match=said):
        ImagePreprocessing(**{"height": 8, "width": 8, **given})
