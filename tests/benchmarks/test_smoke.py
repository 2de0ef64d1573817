"""Every benchmark script runs, leaves a result of the agreed form; kept ones are such."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
# Ten seconds and more each, and all parts of them run in tests of their own.
LONG = {
    *(
        "bad_input",
        "bit_choice",
        "by_hand_distill",
        "cache_memory",
        "cascade",
        "cut_scopes",
        "cuts",
        "defaults",
        "distill_gain",
    ),
    *(
        "distill_overhead",
        "equal_time",
        "faults",
        "goals",
        "layer_order",
        "length_batches",
        "lm_eval",
    ),
    *(
        "effects",
        "frame_score",
        "lowering_checks",
        "max_drop",
        "measure_aa",
        "memory_check",
        "minilm_eval",
    ),
    *("prune_criteria", "quantize_baselines", "record_time", "reuse", "serving"),
}
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if "= script_parser(" in path.read_text())
KEPT = sorted((FOLDER / "results").glob("*.json"))
KEYS = {"id", "statement", "value", "ci95", "bound", "holds"}


def check(result):
    assert result["command"].startswith("python ")
    assert result["environment"]["packages"]
    assert result["raw"]
    assert result["claims"]
    for claim in result["claims"]:
        assert set(claim) == KEYS
    assert len({claim["id"] for claim in result["claims"]}) == len(result["claims"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_the_script_finds_all_that_it_names(script, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    assert callable(runpy.run_path(str(script), run_name="imported")["main"])


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, marks=[pytest.mark.exhaustive] if path.stem in LONG else [])
        for path in SCRIPTS
    ],
    ids=lambda p: p.stem,
)
def test_the_script_runs_and_writes_its_claims(script, tmp_path):
    command = [sys.executable, str(script), "--smoke", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=FOLDER)
    assert done.returncode == 0, done.stderr
    check(json.loads((tmp_path / f"{script.stem}.json").read_text()))


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_a_kept_result_is_of_a_script_and_has_the_agreed_form(path):
    kept = json.loads(path.read_text())
    check(kept)
    _, *words = kept["command"].split()
    if "--workers" in words:  # how many trainings run at once, which changes no result
        place = words.index("--workers")
        del words[place : place + 2]
    assert [Path(word).name for word in words] == [f"{path.stem}.py"]  # and no --smoke
    assert (FOLDER / f"{path.stem}.py").is_file()
