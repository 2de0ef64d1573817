"""What the command says by itself, to shells, and to scripts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compress.cli import main
from compress.cli.plan import _line
from compress.cli.results import run_result
from compress.recipe import Recipe
from compress.record import Record
from compress.report.table import columns
from compress.running.forecast import StageForecast

pytestmark = pytest.mark.fast

RECIPE = """\
schema: 1
name: sweep
task: digits
model: {arch: mlp, in_features: 64}
stages:
  - {kind: train, epochs: 1}
  - {kind: prune, ratio: 0.2}
  - {kind: prune, ratio: 0.3}
"""


def say(capsys, *arguments):
    code = main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def runs(make, tmp_path, monkeypatch):
    """Two run folders that differ in a ratio."""
    monkeypatch.chdir(tmp_path)
    for ratio in (0.2, 0.4):
        record = make.build(make.four_rows(), baseline=1, budget={"artifact_kib": 64})
        record.recipe["stages"][-1]["ratio"] = ratio
        record.save(tmp_path / f"run-{ratio}")
    return ["run-0.2", "run-0.4"]


def test_alone_it_says_what_one_can_do_with_commands_that_exist(capsys):
    code, out, _ = say(capsys)
    assert code == 0
    for line in re.findall(r"^  compresskit (\S+)", out, re.M):
        with pytest.raises(SystemExit) as left:
            main([line, "--help"])
        assert left.value.code == 0


@pytest.mark.parametrize(
    "command", ["run", "report", "bench", "bundle", "export", "ship", "compare", "new", "schema"]
)
def test_every_command_that_writes_takes_out_in_both_forms(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "-o" in (out := capsys.readouterr().out)
    assert "--out" in out


def test_new_and_schema_write_where_out_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert say(capsys, "new", "-o", "mine.yaml")[0] == 0
    assert "stages:" in Path("mine.yaml").read_text()
    assert say(capsys, "schema", "--out", "schema.json")[0] == 0
    assert say(capsys, "schema", "-o", "schema.json")[0] == 0  # its own
    assert "$defs" in json.loads(Path("schema.json").read_text())
    Path("other.json").write_text("{}")
    code, _, err = say(capsys, "schema", "-o", "other.json")
    assert (code, "not a schema of recipes" in err) == (2, True)
    code, _, err = say(capsys, "new", "a.yaml", "-o", "b.yaml")
    assert (code, "both say where" in err) == (2, True)


# -- report -----------------------------------------------------------------------------------


def test_a_comparison_is_printed_with_its_winners(runs, capsys):
    code, out, _ = say(capsys, "report", *runs, "./run-0.4/", "-o", "both", "--budget",
                       "accuracy_drop=2pt,artifact_kib=99")  # fmt: skip
    assert code == 0
    assert "run-0.4: given twice, and shown once." in out
    assert re.search(r"stages\.prune\.ratio +0\.2 +0\.4", out)
    flat = " ".join(out.split())
    assert "Under the budget that was asked for (artifact size at most 99.0 KiB" in flat
    assert "Under the budget of all runs (artifact size at most 64.0 KiB)" in flat
    assert Path("both/report.html").is_file()


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("a=1", "--budget a=1: there is no limit 'a'; known are latency_p50_ms, artifact_kib"),
        ("artifact=1", "did you mean 'artifact_kib'"),
        ("accuracy_drop", "give limits with commas between"),
        ("", "give limits with commas between"),
        ("artifact_kib=", "give limits with commas between"),
        ("accuracy_drop=2", "--budget accuracy_drop=2: accuracy_drop: 2 would be more than all"),
        ("artifact_kib=x", "should be a valid number; got 'x'"),
        ("artifact_kib=-1", "should be greater than 0; got -1"),
        ("artifact_kib=1,artifact_kib=2", "artifact_kib is given twice"),
        ("artifact_kib=[1", "not valid YAML"),
    ],
)
def test_a_budget_that_is_none_is_one_sentence(runs, budget, message, capsys):
    code, out, err = say(capsys, "report", *runs, "--budget", budget)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not Path("overlay").exists()


# -- for scripts ------------------------------------------------------------------------------


def test_a_report_is_one_object(runs, capsys):
    code, out, _ = say(capsys, "report", *runs, "--json")
    found = json.loads(out)
    assert (code, found["exit_code"], found["meaning"]) == (0, 0, "done")
    assert found["differences"] == {"stages.prune.ratio": ["0.2", "0.4"]}
    assert [run["name"] for run in found["runs"]] == ["ratio 0.2", "ratio 0.4"]
    [winner] = found["groups"][0]["winners"]
    assert winner["budget"] == {"artifact_kib": 64.0}
    assert winner["artifact_bytes"] <= 64 * 1024
    code, out, _ = say(capsys, "report", runs[0], "--json")
    found = json.loads(out)
    assert (found["name"], found["ship"]) == (Record.load(Path(runs[0])).name, None)
    [target] = found["targets"]
    assert target["rows"][target["advised_row"]]["bytes"] <= 64 * 1024
    assert target["meets_budget"]


SPOKEN = """
import argparse, ctypes, subprocess, sys
from compress.cli.json_output import others_to_stderr, print_json

with others_to_stderr(argparse.Namespace(as_json={as_json})):
    print("by Python")
    ctypes.CDLL(None).puts(b"by a compiled library")
    subprocess.run([sys.executable, "-c", "print('by a process')"], check=True)
print_json({{"command": "x"}})
"""


@pytest.mark.skipif(os.name != "posix", reason="reads what the C library prints")
@pytest.mark.parametrize("closed", ["", "1>&-", "2>&-"])
def test_whoever_prints_while_a_command_works_does_not_reach_standard_output(closed, tmp_path):
    (tmp_path / "spoken.py").write_text(SPOKEN.format(as_json=True))
    line = f"{sys.executable} spoken.py {closed}"
    found = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True)
    if closed != "1>&-":
        assert json.loads(found.stdout)["command"] == "x"
    if not closed:
        spoken = {line for line in found.stderr.splitlines() if line.startswith("by ")}
        assert spoken == {"by Python", "by a compiled library", "by a process"}


@pytest.mark.parametrize(
    "arguments", [("report", "nope"), ("plan", "nope.yaml"), ("run", "nope.yaml")]
)
def test_what_went_wrong_is_one_object_too(arguments, capsys):
    code, out, err = say(capsys, *arguments, "--json")
    found = json.loads(out)
    assert (code, found["exit_code"], found["status"]) == (2, 2, "failed")
    assert found["error"] in err
    assert found["meaning"] == "the command line or the recipe is wrong"


def test_latencies_are_those_of_the_tables(capsys):
    """Beside the baseline's, which rows of one run are compared by, and as they were timed."""
    kept = Path(__file__).parents[2] / "benchmarks" / "results" / "quickstart"
    record, found = Record.load(kept), run_result(Record.load(kept), kept, kept)
    [target] = found["targets"]
    shown = next(c for c in columns(record, target["name"]) if c.heading == "p50")
    assert shown.unit == "µs"
    for row, cell in zip(target["rows"], shown.cells, strict=True):
        assert row["p50_s"] * 1e6 == pytest.approx(float(cell.replace(",", "")), rel=0.01)
        assert row["p50_timed_s"] == record.rows[row["row"]].on(target["name"]).latency.p50_s


def test_a_command_that_is_interrupted_says_so(tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)

    def interrupted(*_, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "plan", interrupted)
    code, out, _ = say(capsys, "plan", recipe, "--json")
    found = json.loads(out)
    assert (code, found["status"]) == (1, "interrupted")
    assert found["meaning"] == "interrupted; what was done is kept"


@pytest.mark.parametrize(("option", "mode"), [("--quick", "quick"), ("--strict", "strict")])
def test_a_plan_is_of_the_run_that_is_meant(option, mode, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    _, out, _ = say(capsys, "plan", recipe, option, "--repeat", "3", "--json")
    plan = json.loads(out)
    assert (plan["mode"], plan["seeds"]) == (mode, 3)
    _, text, _ = say(capsys, "plan", recipe, option)
    assert f"in {mode} mode" in text
    _, out, _ = say(capsys, "plan", recipe, "--json")
    usual = json.loads(out)
    assert (plan["measuring_s"] < usual["measuring_s"]) == (mode == "quick")
    assert plan["disk_bytes"] == 3 * usual["disk_bytes"]


# -- shells -----------------------------------------------------------------------------------


def completions(line, cwd):
    """What a shell would be told at the end of ``line``."""
    environment = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(cwd / "answer"),
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "IFS": "\n", "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "fish", "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    command = [sys.executable, "-m", "compress"]
    subprocess.run(command, env=environment, cwd=cwd, check=True, timeout=60)
    return {each.partition("\t")[0].rstrip() for each in (cwd / "answer").read_text().splitlines()}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("compresskit re", {"report"}),
        ("compresskit run --str", {"--strict"}),
        ("compresskit run re", {"recipe.yaml"}),
        ("compresskit report run-", {"run-0.2", "run-0.4"}),
        ("compresskit export run-0.2 --row ", {"0", "1", "2", "3", "4"}),
        (
            "compresskit run recipe.yaml --set stages.prune",
            {"stages.prune.ratio=", "stages.prune-2.ratio="},
        ),
    ],
)
def test_a_shell_is_told_what_could_come_next(line, expected, runs, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert completions(line, tmp_path) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell, capsys):
    code, out, _ = say(capsys, "completion", shell)
    assert (code, "compresskit" in out) == (0, True)


def test_a_terminal_gets_lines_that_it_can_hold():
    stage = StageForecast(2, "prune", "remove " + "some of the channels, " * 20, 1000, 0.0)
    lines = _line(stage, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(" " * 18) for line in lines[1:])
    assert " ".join(" ".join(lines[:-1]).split()) == " ".join(f"2 prune {stage.sentence}".split())
    assert len(_line(stage, None).splitlines()) == 2
