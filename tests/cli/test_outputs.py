"""No output takes the place of anything that this tool did not write."""

import json
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

from compress.cli import main
from compress.errors import RecipeError, RecordError
from compress.measure.program import PROGRAM, write_program
from compress.overwriting import (
    BUNDLE,
    COMPARISON_MARK,
    RAW,
    RESULT,
    check_models,
    check_output,
    check_report,
    check_run_folder,
    is_run_folder,
)
from compress.overwriting import PROGRAM as PROGRAM_FILE

pytestmark = pytest.mark.fast

RECIPE = """\
schema: 1
name: r
task: digits
model: {arch: mlp, in_features: 64}
stages: [{kind: quantize}]
"""
RECORD = {"schema": 1, "name": "r", "recipe": {}, "task": {}, "rows": []}
PAGE = '<html><header><p class="eyebrow">compresskit report</p></header></html>'


def lay_out(folder):
    """Somebody's folder: models, a recipe, data, notes, and files of a report's names."""
    files = {
        "a.onnx": b"a model",
        "b.onnx": b"another model",
        "recipe.yaml": RECIPE.encode(),
        "package.json": b'{"name": "mine", "schema": 1}',
        "broken.json": b'{"schema": 1, "models": [',
        "list.json": b"[1, 2]",
        "text.json": b"\xff\xfe",
        "deep.json": b"[" * 100_000,
        "photos.jsonl": b'{"kind": "photo"}\n',
        "photos.zip": b"PK not really",
        "data/0.png": b"a picture",
        "data/labels.csv": b"0,cat\n",
        "site/report.html": b"<html>my quarter</html>",
        "site/table.csv": b"a,b\n",
        "figures/pareto.png": b"a picture",
        "runs/r/notes.txt": b"notes",
        "seeds/repeat.md": b"# Encore",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "holiday.zip", "w") as archive:
        archive.writestr("MANIFEST.json", '{"kind": "holiday"}')
    (folder / "link.json").symlink_to("package.json")
    return folder


def contents(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    monkeypatch.chdir(lay_out(tmp_path))
    return tmp_path


LONG = "n" * 300


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("bench --json a.onnx b.onnx", r"--json a\.onnx: a result of bench is no"),
        ("bench --json new.onnx b.onnx", r"\.json \(was the file name after --json left out\?\)"),
        ("bench --raw a.onnx b.onnx", r"--raw a\.onnx: raw samples of bench is no \.onnx file"),
        ("bench --raw new.onnx b.onnx", r"give a name that ends in \.jsonl"),
        ("bench --json recipe.yaml b.onnx", r"is no \.yaml file"),
        ("bench --json package.json a.onnx", r"package\.json: there is a file that is not a"),
        ("bench --json broken.json a.onnx", r"a result of bench, and it stays as it is"),
        ("bench --json list.json a.onnx", r"not a result of bench"),
        ("bench --json text.json a.onnx", r"not a result of bench"),
        ("bench --json deep.json a.onnx", r"not a result of bench"),
        ("bench --json link.json a.onnx", r"not a result of bench"),
        ("bench --json data a.onnx", r"--json data: this is a folder; give a file for a result of"),
        ("bench --json a.onnx/r.json b.onnx", r"r\.json: cannot be written there"),
        (f"bench --json {LONG}.json b.onnx", r"cannot be written there \(File name too long\)"),
        ("bench --raw photos.jsonl a.onnx", r"not raw samples of bench"),
        ("bench --raw photos.zip a.onnx", r"is no \.zip file"),
        ("bench --profile --json a.onnx b.onnx", r"is no \.onnx file"),
        ("bench --sustained 9 --json a.onnx b.onnx", r"is no \.onnx file"),
        ("bundle runs/r -o a.onnx", r"--out a\.onnx: a bundle is no \.onnx file"),
        ("bundle runs/r -o photos.zip", r"not a bundle"),
        ("bundle runs/r -o holiday.zip", r"not a bundle"),
        ("report one two --out site", r"site/(report\.html|table\.csv): this is no part"),
        ("report one two --out figures", r"pareto\.png: .*compresskit wrote, and it stays"),
        ("report seeds --out seeds", r"seeds/repeat\.md: this is no part of a report"),
        ("report one two --out a.onnx", r"--out a\.onnx: this is a file; give a folder"),
        (f"report one two --out {LONG}", r"cannot be used \(File name too long\); give another"),
        ("run recipe.yaml --out data", r"data: this folder holds something that is no run"),
        ("run recipe.yaml --out data --fresh", r"written into it; give a new or an empty folder"),
        ("run recipe.yaml --out . --fresh", r"this folder holds something that is no run"),
        ("run recipe.yaml --out site", r"this folder holds something that is no run"),
        ("run recipe.yaml --repeat 2 --out data", r"this folder holds something that is no run"),
        ("run recipe.yaml --out a.onnx", r": a\.onnx: this is a file; give a folder"),
        ("run recipe.yaml --out recipe.yaml", r"this is a file; give a folder"),
        ("run recipe.yaml --out a.onnx/below", r"a part of this path is a file; give a folder"),
        (f"run recipe.yaml --out {LONG}", r"cannot be used \(File name too long\)"),
        ("run recipe.yaml", r": runs/r: this folder holds .* no run \(such as notes\.txt\)"),
        ("new a.onnx", r"a\.onnx: a recipe is no \.onnx file; give a name that ends in \.yaml"),
        ("new new.onnx", r"a recipe is no \.onnx file"),
        ("new recipe.yaml", r"recipe\.yaml: there is a file already"),
    ],
)  # fmt: skip
def test_nothing_of_theirs_is_lost_and_one_sentence_says_why(command, said, theirs, capsys):
    before = contents(theirs)
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (sentence,) = err.strip().splitlines()
    assert re.search(said, sentence), sentence
    assert contents(theirs) == before


def test_a_program_that_is_not_ours_stays_beside_a_bundle(tmp_path, capsys):
    (tmp_path / PROGRAM).write_text("theirs")
    assert main(["bundle", "run", "-o", str(tmp_path / "b.zip")]) == 2
    assert "there is a file that is not the program that measures" in capsys.readouterr().err
    write_program(tmp_path / PROGRAM)
    assert check_output(tmp_path / PROGRAM, PROGRAM_FILE, "--out") == tmp_path / PROGRAM


@pytest.mark.parametrize("stream", ["/dev/stdout", "/dev/fd/1"])
def test_a_bundle_goes_into_a_file(stream, capsys):
    assert main(["bundle", "run", "-o", stream]) == 2
    assert "a bundle and its program are two files; give a name that" in capsys.readouterr().err


def test_the_files_of_a_suite_do_not_replace_theirs(tmp_path, capsys):
    from compress.suite import suite_of

    net = suite_of("tiny").nets[0].name
    (tmp_path / f"{net}-int8.onnx").write_bytes(b"a model")
    assert main(["bench", "--suite", "tiny", "--keep", str(tmp_path)]) == 2
    assert re.search(
        rf"--keep .*: there is a {net}-int8\.onnx that compresskit did not write, and it stays as",
        capsys.readouterr().err,
    )
    (tmp_path / f"{net}-int8.onnx.modules.json").write_text('{"sha256": "0", "modules": {}}')
    check_models(tmp_path, [f"{net}-int8.onnx"], "--keep")


# -- what was written before may be replaced --------------------------------------------------


def bundle(path, kind="compresskit-bundle"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MANIFEST.json", json.dumps({"kind": kind}))


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        (RESULT, "r.json", '{"schema": 1, "models": [{"name": "a"}]}'),
        (RESULT, "r.JSON", '{"schema": 1, "suite": "tiny", "models": [{}]}'),
        (RAW, "r.jsonl", '{"schema": 1, "kind": "session", "target": {}}\n'),
        (RAW, "r.jsonl", '{"kind": "session", "schema": 1}\n{"torn'),
        (RESULT, "r.json", ""),
        (RESULT, "no-suffix", ""),
        (BUNDLE, "r.zip", None),
    ],
)
def test_an_earlier_output_is_recognized(kind, name, content, tmp_path):
    path = tmp_path / name
    bundle(path) if content is None else path.write_text(content)
    assert check_output(path, kind, "--json") == path
    link = tmp_path / f"link{path.suffix}"
    link.symlink_to(path.name)
    assert check_output(link, kind, "--json") == path
    with pytest.raises(RecipeError, match="this file is read by the same command; give another"):
        check_output(link, kind, "--json", [path])


def test_what_is_not_there_yet_may_be_written(tmp_path):
    assert check_output(tmp_path / "a" / "r.json", RESULT, "--json") == tmp_path / "a" / "r.json"
    check_report(tmp_path / "none")
    check_run_folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    check_run_folder(tmp_path / "empty")
    (tmp_path / "empty" / ".DS_Store").touch()
    check_run_folder(tmp_path / "empty")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such devices")
@pytest.mark.parametrize("device", ["/dev/stdout", "/dev/null", "/dev/full", "/dev/fd/1"])
def test_a_stream_is_no_file_that_could_be_lost(device):
    assert check_output(Path(device), RESULT, "--json") == Path(device)


def write_run(folder):
    for name in (
        "measurements/00-local.jsonl",
        "log.jsonl",
        "stages/00-input/candidate/candidate.json",
        "stages/00-input/candidate/weights.safetensors",
        "stages/00-input/model.onnx",
        "stages/00-input/model.onnx.data",
        "stages/00-input/model.onnx.modules.json",
        "stages/01-train/stage.json",
        "stages/01-train/checkpoint/checkpoint.safetensors",
        "stages/01-train/answers/part-1-of-2/0001/values.npy",
        "stages/01-train/.stage.json.1234.part",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "record.json").write_text(json.dumps(RECORD))


@pytest.mark.parametrize(
    "missing", [[], ["record.json"], ["record.json", "log.jsonl"]], ids=["whole", "killed", "early"]
)
def test_a_run_that_was_begun_is_recognized(missing, tmp_path):
    write_run(tmp_path)
    for name in missing:
        (tmp_path / name).unlink()
    check_run_folder(tmp_path)
    assert is_run_folder(tmp_path)


def test_other_beginnings_of_runs_are_recognized(tmp_path):
    for name in ("a/measurements", "b/seed-0", "b/seed-1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / ".lock").touch()
    check_run_folder(tmp_path / "a")
    check_run_folder(tmp_path / "b")
    (tmp_path / "a" / "measurements" / "of-my-garden.txt").touch()
    with pytest.raises(RecordError, match=r"no run \(such as measurements\)"):
        check_run_folder(tmp_path / "a")


def test_a_damaged_record_in_a_run_is_still_a_run(tmp_path):
    write_run(tmp_path)
    (tmp_path / "record.json").write_text("{")
    check_run_folder(tmp_path)


@pytest.mark.parametrize(
    ("own", "also"),
    [
        ({"report.html": PAGE}, {}),
        ({"record.json": json.dumps(RECORD)}, {"report.html": PAGE}),
        ({"repeat.json": json.dumps(RECORD)}, {"repeat.html": PAGE}),
        ({"comparison.md": f"- one\n{COMPARISON_MARK}\n"}, {}),
        ({"seed-3/record.json": json.dumps(RECORD)}, {"repeat.html": PAGE, "repeat.md": "x"}),
    ],
)
def test_a_report_may_be_written_again(own, also, tmp_path):
    pictures = {"pareto.png": "x", "stages-phone.svg": "x", "table.md": "| row |"}
    for name, content in {**own, **also, **pictures}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    check_report(tmp_path)
    (tmp_path / "table.csv").write_text("month,rent\n")
    with pytest.raises(RecipeError, match=r"table\.csv: this is no part of a report"):
        check_report(tmp_path)
    (tmp_path / "table.csv").write_text("run,target,row,stage,kind\n")
    check_report(tmp_path)


@pytest.mark.parametrize("name", ["record.json", "repeat.json"])
def test_a_report_of_several_runs_does_not_replace_that_of_one(name, tmp_path):
    (tmp_path / name).write_text(json.dumps(RECORD))
    with pytest.raises(RecipeError, match="this is the folder of a run, whose own report would be"):
        check_report(tmp_path, of_several=True)


def test_a_comparison_of_theirs_stays(tmp_path):
    (tmp_path / "comparison.md").write_text("- apples\n- pears\n")
    with pytest.raises(RecipeError, match=r"comparison\.md: this is no part of a report"):
        check_report(tmp_path)


def test_a_folder_that_cannot_be_looked_at(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(RecordError, match=r"cannot be used \(Permission denied\); give another"):
        check_run_folder(tmp_path)
