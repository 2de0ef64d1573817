"""What a device measured becomes a target of the run, and nothing else does."""

import copy
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.candidate import Candidate
from compress.cli import main
from compress.device.bundle import write_bundle
from compress.device.merge import merge
from compress.device.result import load_result
from compress.errors import CompressError, RecordError
from compress.measure.program import PROGRAM
from compress.measure.replay import ReplayTarget
from compress.measure.session import read_session
from compress.recipe import Recipe
from compress.record import Record
from compress.report import write_report

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def measured(tmp_path_factory, make_run, tiny_plan):
    """A run, its bundle, and the result of measuring that for real, once for all tests."""
    root = tmp_path_factory.mktemp("measured")
    run = make_run(root / "run")
    bundle, out = root / "tiny.zip", root / "result.json"
    with pytest.MonkeyPatch.context() as patch:
        plans = dict.fromkeys(("quick", "default", "strict"), tiny_plan)
        patch.setattr("compress.device.bundle.PLANS", plans)
        patch.setenv("TMPDIR", str(root))
        write_bundle(run.record, run.root, bundle, run.test)
        command = [sys.executable, BENCHMARKS / "run.py", bundle, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(record=run.record, bundle=bundle, result=json.loads(out.read_text()))


@pytest.fixture
def place(measured, tmp_path):
    """A fresh copy of the record and the result, and a way to change the latter."""
    root = tmp_path / "run"
    record = Record.model_validate(copy.deepcopy(measured.record.model_dump(by_alias=True)))
    record.save(root)
    path = tmp_path / "result.json"

    def give(change=lambda result: None):
        result = copy.deepcopy(measured.result)
        change(result)
        path.write_text(json.dumps(result))
        return path

    give()
    return SimpleNamespace(root=root, record=record, path=path, give=give)


def test_a_result_becomes_a_target_of_every_row(place, measured):
    name = merge(place.record, place.root, place.path, name="pi")
    assert name == "pi"
    record = Record.load(place.root)
    assert record.targets == ["laptop", "pi"]
    base, pruned = (row.on("pi") for row in record.rows)
    assert (base.speedup.value, base.speedup.verdict) == (1.0, "baseline")
    assert pruned.speedup.ci95[0] <= pruned.speedup.value <= pruned.speedup.ci95[1]
    assert pruned.latency.p50_s > 0
    assert pruned.artifact == record.rows[1].on("laptop").artifact
    assert (base.accuracy.value, base.accuracy.n) == (1.0, 50)
    assert pruned.accuracy.versus_baseline["lost"] == round(50 * (1 - pruned.accuracy.value))
    assert base.model_dump()["versus_host"]["agreement"] == 1.0
    assert record.pareto["pi"].front
    told = record.environment["targets"]["pi"]
    with zipfile.ZipFile(measured.bundle) as archive:
        manifest = archive.read("MANIFEST.json")
    assert told["bundle_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert (told["mode"], told["test_samples"]) == ("default", 50)
    assert told["device_id"]
    write_report(record, place.root)
    assert "pi" in (place.root / "report.html").read_text()


def test_the_numbers_are_those_of_the_raw_samples(place, measured):
    merge(place.record, place.root, place.path, name="pi")
    timings = read_session(measured.result["lines"]).timings
    for row, timing in zip(place.record.rows, timings, strict=True):
        assert row.on("pi").latency == timing.latency
        assert row.on("pi").memory == timing.memory
    kept = (place.root / "measurements/pi.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == measured.result["lines"]


def test_a_target_is_named_after_its_board_or_processor(place):
    def board(result):
        result["lines"][1]["board"] = "Raspberry Pi 4 Model B Rev 1.4"

    assert merge(place.record, place.root, place.give(board)) == "raspberry-pi-4-model-b-rev-1-4"

    def neither(result):
        result["lines"][1].update(board="", cpu="")

    assert merge(place.record, place.root, place.give(neither)) == "device"


def test_a_target_is_not_overwritten_unless_told_to(place):
    merge(place.record, place.root, place.path, name="pi")
    with pytest.raises(RecordError, match=r"has a target 'pi' already; .* --name"):
        merge(place.record, place.root, place.path, name="pi")

    def slower(result):
        for line in result["lines"]:
            if line["kind"] == "time" and line["index"] == 1:
                line["samples_ns"] = [100 * ns for ns in line["samples_ns"]]

    merge(place.record, place.root, place.give(slower), name="pi", replace=True)
    assert place.record.rows[1].on("pi").speedup.verdict == "slower"
    assert [m.target for m in place.record.rows[1].measurements] == ["laptop", "pi"]
    with pytest.raises(RecordError, match="'laptop' is the target whose models were measured"):
        merge(place.record, place.root, place.path, name="laptop", replace=True)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 65, "a b"])
def test_a_name_that_is_none_is_refused(place, name):
    with pytest.raises(RecordError, match="must begin with a letter or digit"):
        merge(place.record, place.root, place.path, name=name)


def other_bytes(result):
    for model in (result["rows"][1], result["lines"][0]["session"]["models"][1]):
        model["sha256"] = "0" * 64


def another_baseline(result):
    models = result["lines"][0]["session"]["models"]
    models[0]["sha256"], models[1]["sha256"] = models[1]["sha256"], models[0]["sha256"]
    result["rows"].reverse()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            other_bytes,
            (
                r"row 1 \(prune\) was measured from other bytes \(sha256 0{12}\.\.\.\) than "
                r"this run's stages/01-prune/model\.onnx \([0-9a-f]{12}\.\.\.\); bundle this run"
            ),
        ),
        (lambda r: r["rows"][1].update(sha256="0" * 64), "it names other models than it measured"),
        (
            lambda r: r["rows"][1].update(index=9),
            r"it has a row 9 \(prune\), and this run has 2",
        ),
        (
            lambda r: r.update(target="phone"),
            "of the models for 'phone', on which this run",
        ),
        (another_baseline, "it is compared with row 1, and this run with row 0"),
        (lambda r: r.update(schema=2), "not a result of schema 1: schema"),
        (lambda r: r.update(kind="other"), "not a result of schema 1: kind"),
        (lambda r: r.update(rows=[]), "not a result of schema 1: rows"),
        (lambda r: r.update(lines="many"), "not a result of schema 1: lines"),
        (lambda r: r["rows"][0].update(index="0"), r"not a result of schema 1: rows\.0\.index"),
        (lambda r: r["lines"].pop(), "its lines end before the one with kind 'end'"),
        (lambda r: r["lines"].pop(3), "not the lines of a whole session"),
        (lambda r: r["lines"][-2].update(scores=[1.0]), "it has 1 scores for 50 samples"),
        (lambda r: r["lines"][-2].update(scores=["x"] * 50), "not the lines of a whole session"),
        (lambda r: r["lines"][-2].update(error=["x"]), "an error in it is no sentence"),
        (lambda r: r["lines"][-2].update(files=[{"path": "../x"}]), "leads out of the folder"),
        (
            lambda r: r["lines"][1].update(cpu="x" * 200_000),
            "it says more of its device than",
        ),
        (lambda r: r["lines"][0]["session"].update(plan=None), "not the lines of a whole session"),
    ],
)
def test_a_result_that_is_not_this_runs_is_refused(place, change, said):
    before = (place.root / "record.json").read_text()
    with pytest.raises(RecordError, match=said) as refusal:
        merge(place.record, place.root, place.give(change), name="pi")
    assert str(refusal.value).startswith(str(place.path))
    assert (place.root / "record.json").read_text() == before
    assert place.record.targets == ["laptop"]
    assert not (place.root / "measurements").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"lines": NaN}', "NaN is no finite number"),
        ('{"lines": 1e999}', "1e999 is no finite number"),
        ("[]", "not a result of schema 1: the file"),
        ("{}", "not a result of schema 1: schema"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, text, said):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=said):
        load_result(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(RecordError, match="there is no such file"):
        load_result(tmp_path / "gone.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match=r"not readable as JSON .the byte at 0 is not UTF-8"):
        load_result(tmp_path / "b.json")
    with pytest.raises(RecordError, match=r"and at most .* are taken"):
        load_result(tmp_path / "b.json", most_bytes=2)


def test_what_a_device_could_not_do_is_said_with_its_numbers(place):
    def unscored(result):
        result["samples"]["of"] = 900
        first, second = result["lines"][-3], result["lines"][-2]
        second.pop("scores")
        second["host"] = {"samples": 50, "agreement": 0.9, "max_error": 2.0}
        assert (first["kind"], second["kind"]) == ("outputs", "outputs")

    merge(place.record, place.root, place.give(unscored), name="pi")
    base, pruned = (row.on("pi") for row in place.record.rows)
    assert "its score is from 50 of 900 test samples" in base.warnings
    assert pruned.accuracy is None
    assert "it was not scored there: the metric is code of the recipe's own" in pruned.warnings
    assert any("of the machine that bundled it for only 90.0% of 50" in w for w in pruned.warnings)


def test_a_row_that_could_not_be_timed_keeps_its_reason(place):
    def broken(result):
        last = [line for line in result["lines"] if line["kind"] == "time" and line["index"] == 1][
            -1
        ]
        for key in set(last) - {"kind", "index", "model", "round", "label"}:
            del last[key]
        last["error"] = "01-prune: no."

    merge(place.record, place.root, place.give(broken), name="pi")
    base, pruned = (row.on("pi") for row in place.record.rows)
    assert base.latency is not None
    assert (pruned.latency, pruned.speedup) == (None, None)
    assert "01-prune: no." in pruned.warnings
    assert pruned.accuracy is not None


RECIPE = """\
schema: 1
name: small
task: digits
model: {arch: mlp, in_features: 64, width: 8}
stages:
  - {kind: quantize}
"""


def test_the_commands_take_a_run_there_and_back(tmp_path, capsys, monkeypatch, tiny_plan):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "compress.device.bundle.PLANS", dict.fromkeys(("quick", "default", "strict"), tiny_plan)
    )
    recipe = Recipe.loads(RECIPE)
    task = recipe.make_task()
    candidate = recipe.make_candidate(task)
    assert isinstance(candidate, Candidate)
    recipe.run(candidate, task, workdir="run", targets=[ReplayTarget()], mode="quick", report=False)

    assert main(["bundle", "run", "-o", "there.zip", "--samples", "40"]) == 0
    said = capsys.readouterr().out
    assert f"wrote there.zip: 2 models, 40 of {len(task.test)} test samples" in said
    assert f"on the device: python3 {PROGRAM} there.zip" in said
    done = subprocess.run(
        [sys.executable, PROGRAM, "there.zip"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr

    assert main(["merge", "run", "there-result.json", "--name", "device"]) == 0
    said = capsys.readouterr().out
    assert "there-result.json: merged as the target 'device'" in said
    record = Record.load(Path("run"))
    assert record.targets == ["replay", "device"]
    assert record.rows[1].on("device").accuracy.n == 40
    assert Path("run/pareto-device.png").exists()

    # A repetition of the run keeps what was merged, with what the device told of itself.
    recipe.run(candidate, task, workdir="run", targets=[ReplayTarget()], mode="quick", report=False)
    again = Record.load(Path("run"))
    assert again.rows[1].on("device") == record.rows[1].on("device")
    assert again.environment["targets"] == record.environment["targets"]

    assert main(["merge", "run", "there-result.json", "--name", "device"]) == 2
    assert "has a target 'device' already" in capsys.readouterr().err
    assert main(["merge", "run", "a.json", "b.json", "--name", "x"]) == 2
    assert "--name is for one result, and 2 were given" in capsys.readouterr().err
    assert main(["bundle", "run", "--target", "pi"]) == 2
    assert "no row was measured on 'pi'; known are replay, device" in capsys.readouterr().err


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from([0, -1, 1e300, -1e300, 10**400, "9", [], {}, [[]], {"a": 1}, [0] * 5, "x\n"]),
)


def with_one_changed(facts, number, value, rest):
    """A copy with one of its values replaced; a value of a list by itself, several times, too."""
    places = []

    def walk(inner, path):
        for key in inner if isinstance(inner, dict) else range(len(inner)):
            places.append((*path, key))
            if isinstance(inner[key], (dict, list)):
                walk(inner[key], (*path, key))

    walk(facts, ())
    made = copy.deepcopy(facts)
    *path, last = places[number % len(places)]
    inner = made
    for key in path:
        inner = inner[key]
    if rest == "removed":
        del inner[last]
    elif rest == "repeated" and isinstance(inner, list):
        inner += [inner[last]] * 3
    else:
        inner[last] = value
    return made


def refusal(work):
    """The sentence in which it is refused; empty if it is not."""
    try:
        work()
    except CompressError as error:
        return str(error)
    return ""


def test_a_forged_result_is_refused_in_one_sentence_or_changes_nothing_but_its_target(place):
    before = place.record.model_dump()

    @settings(
        max_examples=60,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.integers(0, 2**20), VALUES, st.sampled_from(["set", "set", "removed", "repeated"]))
    def check(number, value, rest):
        path = place.give()
        forged = with_one_changed(json.loads(path.read_text()), number, value, rest)
        path.write_text(json.dumps(forged))
        record = Record.model_validate(copy.deepcopy(before))
        if said := refusal(lambda: merge(record, place.root, path, name="pi")):
            assert said.isprintable(), said
            assert record.model_dump() == before
        else:
            assert record.targets == ["laptop", "pi"]
            Record.model_validate_json(record.dumps())

    check()
