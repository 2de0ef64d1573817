"""The program that runs on devices: one file, beside a bundle of which it runs no code."""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from compress.device.bundle import Samples, write_bundle
from compress.device.merge import merge
from compress.device.result import load_result
from compress.measure import ondevice
from compress.measure.ondevice.bundle import BundleError
from compress.measure.ondevice.loop import SessionOutcome
from compress.measure.ondevice.program import measure_bundle
from compress.measure.ondevice.session_log import SessionError
from compress.measure.ondevice.table import table
from compress.measure.program import PROGRAM, program_bytes, write_program
from compress.measure.score import accuracy_facts
from compress.record import Record
from compress.task import METRICS
from tests.covering import kept_of

from .rebuilding import classes_of, rebuilt

ROOT = Path(__file__).parents[2]


def measured(command, cwd):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def hasten(members, manifest, plan):
    manifest["plans"] = dict.fromkeys(("quick", "default", "strict"), vars(plan))


@pytest.fixture
def quick(bundle, tiny_plan):
    """The bundle with plans that hardly time anything."""
    rebuilt(bundle, lambda members, manifest: hasten(members, manifest, tiny_plan))
    return bundle


# -- the file ---------------------------------------------------------------------------------


def test_the_same_source_gives_the_same_bytes(program, tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    write_program(tmp_path / "again.pyz")
    assert (tmp_path / "again.pyz").read_bytes() == program.read_bytes() == program_bytes()


def test_the_program_is_the_packages_own_source_and_nothing_else(program):
    folder = Path(ondevice.__file__).parent
    with zipfile.ZipFile(program) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    packed = {path.relative_to(folder.parents[2]).as_posix(): path for path in folder.rglob("*.py")}
    assert {name: held.get(name) for name in packed} == {
        name: path.read_bytes() for name, path in packed.items()
    }
    assert held.keys() - packed == {
        "__main__.py",
        "compress/__init__.py",
        "compress/measure/__init__.py",
    }
    assert sum(map(len, held.values())) < 200_000


def test_an_old_python_is_told_what_is_needed(program):
    with zipfile.ZipFile(program) as archive:
        main = archive.read("__main__.py").decode()
    old = main.replace("sys.version_info < (3, 9)", "sys.version_info < (99,)")
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "compresskit-device needs Python 3.9 or newer; this is 3." in done.stderr


# Runs the real worker, then writes down what its process has loaded.
NOTING = """
import atexit, os, sys
def note():
    names = sorted({name.split(".")[0] for name in sys.modules})
    with open(os.environ["TMPDIR"] + "/loaded", "a") as stream:
        stream.write(" ".join(names) + "\\n")
atexit.register(note)
"""


def test_a_kit_of_two_files_measures_a_bundle_which_merges(
    run, quick, program, tmp_path, monkeypatch
):
    """A folder with nothing but the two files, and no library of this project in any process."""
    kit = tmp_path / "kit"
    kit.mkdir()
    shutil.move(quick, kit / "tiny.zip")
    with zipfile.ZipFile(program) as archive:
        (place,) = (name for name in archive.namelist() if name.endswith("/start_worker.py"))
        members = {name: archive.read(name) for name in archive.namelist()}
    members[place] = members[place].replace(b"if __name__ ==", NOTING.encode() + b"if __name__ ==")
    with zipfile.ZipFile(kit / PROGRAM, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    status, _, complaint = measured(["-I", PROGRAM, "tiny.zip"], kit)
    assert (status, complaint) == (0, "")
    assert {path.name for path in kit.iterdir()} == {"tiny.zip", PROGRAM, "tiny-result.json"}
    here = Path(tempfile.gettempdir())
    loaded = {name for line in (here / "loaded").read_text().splitlines() for name in line.split()}
    assert {"numpy", "onnxruntime", "compress"} <= loaded
    assert not loaded & {"torch", "pydantic", "onnx", "yaml", "openvino"}
    name = merge(run.record, run.root, kit / "tiny-result.json", name="kit")
    rows = Record.load(run.root).rows
    assert all(row.on(name).latency.p50_s > 0 for row in rows)
    assert all(row.on(name).accuracy.n == 50 for row in rows)
    assert [path for path in here.iterdir() if path.name.startswith("compresskit-")] == [
        here / "compresskit-device.lock"
    ]


def test_a_checkout_measures_with_the_same_source_and_without_torch(quick, tmp_path):
    blocker = (
        "import runpy, sys\n"
        "for name in ('torch', 'pydantic', 'onnx', 'yaml'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, '')\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = ROOT / "benchmarks" / "run.py"
    status, shown, complaint = measured(["-I", "-c", blocker, script, quick], tmp_path)
    assert (status, complaint) == (0, "")
    assert "01-prune" in shown


# -- a bundle ---------------------------------------------------------------------------------


def test_no_code_of_a_bundle_is_run(bundle, program, tmp_path, tiny_plan):
    marker = tmp_path / "it-ran"
    evil = f"open({str(marker)!r}, 'w').close(); raise SystemExit(1)".encode()

    def poison(members, manifest):
        hasten(members, manifest, tiny_plan)
        members.update({name: evil for name in members if name.endswith(".py")})
        # Bundles of earlier versions hold the first two.
        members.update({"driver.py": evil, "worker.py": evil})
        members.update({"sitecustomize.py": evil, "numpy/__init__.py": evil, "json.py": evil})

    rebuilt(bundle, poison)
    status, out, complaint = measured([program, bundle, "--quick"], tmp_path)
    assert (status, complaint) == (0, "")
    assert "00-input" in out
    assert "01-prune" in out
    result = json.loads((tmp_path / "tiny-result.json").read_text())
    assert result["lines"][-1] == {"kind": "end"}
    assert not marker.exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_bundle_by_itself_says_what_to_run(bundle, tmp_path):
    status, out, complaint = measured([bundle], tmp_path)
    assert (status, out) == (2, "")
    assert complaint.startswith(f"this bundle holds no program: run `python3 {PROGRAM} BUNDLE`")
    assert complaint.count("\n") == 1


def test_a_session_resumes_where_it_was(quick, program, tmp_path):
    out = tmp_path / "r.json"
    status, shown, complaint = measured([program, quick, "--out", out], tmp_path)
    assert (status, complaint) == (0, "")
    assert "compresskit merge RUN r.json" in shown
    lines = json.loads(out.read_text())["lines"]
    scores = [line["scores"] for line in lines if line["kind"] == "outputs"]
    assert [len(s) for s in scores] == [50, 50]
    assert set(scores[0]) == {1.0}
    # As if it had been killed before its last line.
    part = tmp_path / "r.json.part"
    part.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    out.unlink()
    assert measured([program, quick, "--out", out], tmp_path)[0] == 0
    assert json.loads(out.read_text())["lines"] == lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--quick", "--strict"], "not allowed with"),
        (["--threads", "4096"], "4096 threads are asked for, and this process may use"),
        (["--threads", "0"], "threads must be at least 1, and 0 are asked for; give --threads."),
        (["--out", "gone/r.json"], "gone/r.json: the folder is not there; make it, or give"),
    ],
)
def test_a_wrong_command_is_refused(bundle, program, tmp_path, arguments, said):
    status, _, complaint = measured([program, bundle, *arguments], tmp_path)
    assert status == 2
    assert said in complaint


def test_the_program_says_what_is_wrong_with_a_bundle(bundle, program, tmp_path):
    bundle.write_bytes(bundle.read_bytes()[:-100])
    status, _, complaint = measured([program, bundle], tmp_path)
    assert status == 2
    assert complaint.startswith(f"{PROGRAM}: {bundle}: not a whole bundle")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: m["session"].update(job={"session": {}}),
            "it asks for settings of the runtime",
        ),
        (lambda m: m["plans"].pop("default"), "it has no plan for the mode default"),
        (lambda m: m["session"].update(models=3), "wrong or missing"),
    ],
)
def test_a_bundle_that_asks_for_too_much_is_refused(bundle, tmp_path, change, said):
    rebuilt(bundle, lambda _, manifest: change(manifest))
    with pytest.raises((BundleError, SessionError), match=said):
        measure_bundle(bundle, tmp_path / "r.json", "default", None)


@pytest.mark.parametrize("metric", kept_of(METRICS, ("accuracy", "r2")))
def test_every_metric_of_a_task_is_scored_on_the_device(
    run, tmp_path, tiny_plan, monkeypatch, metric
):
    plans = dict.fromkeys(("quick", "default", "strict"), tiny_plan)
    monkeypatch.setattr("compress.device.bundle.PLANS", plans)
    expected = run.test.inputs[""] @ run.weights[0]
    classes = dict.fromkeys(("accuracy", "f1", "mean-iou", "auroc"), expected.argmax(1))
    labels = {**classes, "binary-accuracy": (expected > 0).astype(float)}.get(metric, expected)
    test = Samples(run.test.inputs, labels, metric, classes_of)
    write_bundle(run.record, run.root, tmp_path / "b.zip", test)
    result, _ = measure_bundle(tmp_path / "b.zip", tmp_path / "r.json", "quick", None)
    first, _ = (line for line in result["lines"] if line["kind"] == "outputs")
    value = np.mean(first["scores"]) if "scores" in first else first["dataset_score"]["value"]
    # A softmax ranks each class by what the others are too.
    exact = {"mse": pytest.approx(0, abs=1e-3), "auroc": pytest.approx(1, abs=0.1)}
    assert value == exact.get(metric, pytest.approx(1, abs=1e-3))
    scored = load_result(tmp_path / "r.json").session.outputs[0].scores
    assert accuracy_facts(scored).value == pytest.approx(value)


def test_names_cannot_steer_the_terminal():
    model = {"name": "\x1b[2Jevil"}
    lines = [{"session": {"models": [model]}}]
    shown = table(SessionOutcome(failures={0: "\x1b[31mno"}), lines)
    assert "\x1b" not in shown
    assert "?[2Jevil" in shown
