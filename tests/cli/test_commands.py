"""The commands as a person uses them."""

import json
import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from compress.cli import main
from compress.cli.doctor import CHECKS
from compress.measure.ondevice.runtimes import RUNTIMES
from compress.measure.recipe_targets import KINDS, spelled
from compress.record import Record
from compress.suite import SUITES
from compress.testing.stage_contract import CHECKS as CONTRACT
from compress.tracking import TRACKERS


def say(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def net(path, width=64, layers=3):
    """An ONNX file with ``layers`` square layers of ``width``."""
    nodes, weights = [], []
    for i in range(layers):
        values = [0.01] * width * width
        weights.append(helper.make_tensor(f"w{i}", TensorProto.FLOAT, [width, width], values))
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
        for name in ("x0", f"x{layers}")
    ]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_run_writes_the_record_the_report_and_the_pictures(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    code, table, progress = say(capsys, "run", tiny, "--out", out, "--quick")
    assert code == 0
    for name in ("record.json", "report.html", "pareto.png", "pareto.svg", "stages.png"):
        assert (out / name).stat().st_size > 0, name
    assert (out / "table.csv").read_text().count("\n") >= 5
    for word in ("train", "quantize", "prune", "report:"):
        assert word in table
    assert "epoch 2/2" in progress
    record = Record.load(out)
    assert [row.stage for row in record.rows] == ["input", "train", "quantize", "prune"]
    raw = (out / "measurements" / "02-local.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in raw)

    code, again, progress = say(capsys, "run", tiny, "--out", out, "--quick")
    assert code == 0
    assert "epoch" not in progress
    assert progress.count("measurements re-used") >= 4
    assert again.split("report:")[0] == table.split("report:")[0]

    (out / "report.html").unlink()
    code, rebuilt, _ = say(capsys, "report", out)
    assert code == 0
    assert (out / "report.html").exists()
    assert "Ship row" in rebuilt

    code, answer, progress = say(capsys, "run", tiny, "-o", out, "--quick", "--json")
    found = json.loads(answer)
    assert (code, found["status"], found["folder"]) == (0, "done", str(out))
    assert "measurements re-used" in progress
    rows = found["targets"][0]["rows"]
    assert [row["stage"] for row in rows] == ["input", "train", "quantize", "prune"]
    assert all(Path(row["file"]).stat().st_size == row["bytes"] for row in rows)

    code, _, _ = say(capsys, "report", out, out, "--out", tmp_path / "both")
    assert code == 0
    assert list((tmp_path / "both").glob("*.png"))


def test_a_missed_budget_is_exit_code_3(tiny, tmp_path, capsys):
    short = tiny.read_text().partition("  - {kind: train")[0] + "  - {kind: quantize}\n"
    tiny.write_text(short + "budget: {artifact_kib: 0.5}\n")
    code, table, _ = say(capsys, "run", tiny, "--out", tmp_path / "run", "--quick")
    assert code == 3
    assert "budget" in table.lower()
    code, answer, _ = say(capsys, "run", tiny, "--out", tmp_path / "run", "--quick", "--json")
    found = json.loads(answer)
    assert (code, found["exit_code"], found["meaning"]) == (3, 3, "done, but the budget is missed")
    assert not found["targets"][0]["meets_budget"]


def test_settings_change_the_recipe_that_is_recorded(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    tiny.write_text(tiny.read_text().partition("  - {kind: quantize}")[0])
    settings = ("--set", "stages.train.epochs=1", "--set", "seed=3")
    code, _, progress = say(capsys, "run", tiny, "--out", out, "--quick", *settings)
    assert code == 0
    assert "epoch 1/1" in progress
    record = Record.load(out)
    assert (record.seed, record.recipe["stages"][0]["epochs"]) == (3, 1)


OWN = """\
schema: 1
name: own
task: my_parts:make_task
model: {arch: my_parts:Net, width: 12}
stages:
  - {kind: train, epochs: 1}
  - kind: my_parts:ScaleStage
    factor: 0.7
  - kind: distill
    student: {arch: my_parts:Net, width: 8}
    teacher: {callable: "my_parts:my_teacher"}
    losses: [{kind: "my_parts:my_loss", weight: 0.5}, {kind: response}]
    epochs: 1
  - {kind: quantize}
"""


def test_parts_of_your_own_run_from_a_recipe_that_names_them(parts, capsys):
    (parts / "own.yaml").write_text(OWN)
    code, _, err = say(capsys, "run", "own.yaml", "--quick", "--import", "my_parts", "--out", "run")
    assert code == 0, err
    record = Record.load(parts / "run")
    assert [row.stage for row in record.rows] == [
        "input", "train", "scale", "distill", "quantize",
    ]  # fmt: skip
    assert record.rows[4].on("local").artifact.int8_mac_fraction > 0.9


@pytest.mark.parametrize("check", CONTRACT.values(), ids=CONTRACT)
def test_a_stage_of_your_own_passes_the_public_contract_suite(check, parts):
    from my_parts import ScaleStage

    check(ScaleStage(factor=0.7), parts / "work")


def test_code_that_was_not_named_is_not_imported(parts, capsys):
    (parts / "my_parts.py").write_text("open('ran', 'w').write('it')")
    (parts / "own.yaml").write_text(OWN)
    code, _, err = say(capsys, "run", "own.yaml")
    assert code == 2
    assert re.search(r"own\.yaml:3: task: .*add `--import my_parts`", err)
    assert not (parts / "ran").exists()


def test_plan_explains_every_stage_and_runs_nothing(tiny, tmp_path, capsys):
    code, plan, _ = say(capsys, "plan", tiny)
    assert code == 0
    for words in ("train on the labels for 2 epochs", "weights int8", "remove 30%", "parameters"):
        assert words in plan
    assert re.search(r"in all about \d+ (s|min), [\d.]+ GiB of memory, \d+ MiB of disk", plan)
    assert not (tmp_path / "runs").exists()


def test_bench_says_which_file_is_slower_and_goes_on_past_a_bad_one(tmp_path, capsys):
    small, large = net(tmp_path / "small.onnx"), net(tmp_path / "large.onnx", layers=100)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(small.read_bytes()[:100])
    raw = tmp_path / "raw.jsonl"
    code, table, _ = say(capsys, "bench", small, large, broken, "--quick", "--raw", raw)
    assert code == 1
    assert re.search(r"large.*slower", table)
    assert re.search(r"broken.*", table)
    assert raw.exists()


def test_schema_is_json_with_a_branch_for_every_stage(capsys):
    code, text, _ = say(capsys, "schema")
    assert code == 0
    schema = json.loads(text)
    assert {"TrainStage", "DistillStage", "QuantizeStage", "PruneStage"} <= set(schema["$defs"])


def test_new_writes_a_recipe_that_plans_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert say(capsys, "new", "mine.yaml")[0] == 0
    assert say(capsys, "plan", "mine.yaml")[0] == 0
    code, _, err = say(capsys, "new", "mine.yaml")
    assert code == 2
    assert "mine.yaml: there is a file already; give another path" in err


def test_new_in_a_folder_that_is_not_there(tmp_path, capsys):
    code, _, err = say(capsys, "new", tmp_path / "none" / "mine.yaml")
    assert code == 1
    assert "cannot be written (No such file or directory)" in err


def test_doctor_looks_at_everything_and_gives_a_fix_for_what_is_not_right(capsys):
    code, text, _ = say(capsys, "doctor")
    assert code == 0
    for words in ("Python", "torch", "onnxruntime", "cores", "disk", "Fashion-MNIST"):
        assert words in text
    findings = [finding for check in CHECKS for finding in check()]
    assert all(finding.fix for finding in findings if finding.state != "ok")


LISTED = {
    "target": ("bench", [spelled([kind.spelling() for kind in KINDS])]),
    "target of doctor": ("doctor", [spelled([kind.spelling() for kind in KINDS])]),
    "runtime": ("bench", RUNTIMES),
    "suite": ("bench", SUITES),
    "tracker": ("run", TRACKERS),
}


@pytest.mark.parametrize("listed", LISTED)
def test_help_lists_what_there_is(listed, capsys):
    # Written out there, since importing the lists would make every command slow to start.
    command, names = LISTED[listed]
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert [name for name in names if name not in shown] == []


@pytest.mark.parametrize(
    "command", ["run", "plan", "report", "bench", "cache", "schema", "new", "doctor"]
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert "usage: compresskit" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert re.match(r"compresskit \d+\.\d+\.\d+\n", capsys.readouterr().out)
