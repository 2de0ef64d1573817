"""A run without training, with two small models and a record; and a worker that pretends."""

import io
import json
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.artifact import file_sha256
from compress.device.bundle import Samples, write_bundle
from compress.measure.modes import PLANS
from compress.measure.program import PROGRAM, program_bytes
from compress.record import ArtifactFacts, Measurement, Record, Row, TaskFacts

from .rebuilding import classes_of

# Answers at once, from its job and the files beside the model. Counts what it did.
PRETENDING = """
import json, os, sys, time

job = json.loads(sys.stdin.readline())
if job["kind"] == "environment":
    print(json.dumps({
        "arch": "x", "system": "Linux", "kernel": "6", "cpu": "Pretended CPU", "board": "",
        "isa": [], "cores": 4, "max_khz": [], "memory_gib": 1.0, "python": "3.9", "governor": [],
        "boost": "", "affinity": [0, 1, 2, 3], "cpu_limit": 2.5, "mains_power": [], "load": 0.0,
        "pressure": "", "temperatures_mc": [], "onnxruntime": "1", "build": "b", "providers": [],
        "seen": sorted(m for m in sys.modules if m.split(".")[0] in ("numpy", "compress")),
    }))
    sys.exit()
here = os.path.dirname(job["model"])
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(job["kind"] + "\\n")
settings = json.load(open(os.path.join(here, "settings.json")))
time.sleep(settings.get("sleep_s", 0))
kind = {"turns": "time"}.get(job["kind"], job["kind"])
if settings.get("error") == kind:
    print(json.dumps({"error": "it broke."}))
    sys.exit()
turns = 0
while job["kind"] == "turns":
    print("ready", flush=True)
    if not sys.stdin.readline():
        break
    turns += 1
ns = settings["ns"]
print(json.dumps({
    "memory": {"runtime_bytes": 100, "load_peak_bytes": 300, "run_peak_bytes": 200},
    "check": {"denormal_ratio": 1.0, "saturation_sqnr_db": None, "repeatable": True},
    "time": {
        "batch": 1, "runs_per_sample": 1, "import_ns": 1, "create_ns": 1, "first_run_ns": ns,
        "samples_ns": [ns, ns + 1, ns + 2] * turns, "turns": [3] * turns,
        "steady": True, "finite": True, "wall_ns": 3 * ns,
        "cpu_ns": 3 * ns, "load": [0.0, 0.0], "probe_ns": [5000000, 5000000],
    },
}[kind]))
"""


def program_with(path, worker):
    """Writes the program to ``path`` with other code in the place of its worker's."""
    with zipfile.ZipFile(io.BytesIO(program_bytes())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (place,) = (name for name in members if name.endswith("/start_worker.py"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, place: worker}.items():
            archive.writestr(name, content)


@pytest.fixture(autouse=True)
def own_lock(tmp_path_factory, monkeypatch):
    """Tests run side by side, and each stands for a device of its own."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("device")))
    yield
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture(scope="session")
def tiny_plan():
    """Two or three rounds of processes that hardly time anything."""
    timing = {"window_s": 0.002, "warmup_cap_s": 0.02, "sample_s": 0.01, "least": 5, "cap_s": 0.1}
    return replace(PLANS["quick"], min_rounds=2, max_rounds=3, timing=timing)


@pytest.fixture
def pretend(tmp_path, tiny_plan):
    """A session folder whose worker answers at once; ``settings`` are those of each model."""

    def make(*settings, **changes):
        folder, program = tmp_path / "session", tmp_path / PROGRAM
        models = []
        for number, chosen in enumerate(settings):
            place = folder / "models" / str(number)
            place.mkdir(parents=True)
            (place / "model.onnx").write_text(f"model {number}")
            (place / "settings.json").write_text(json.dumps({"ns": 1_000_000, **chosen}))
            models.append(
                {
                    "path": f"models/{number}/model.onnx",
                    "sha256": file_sha256(place / "model.onnx"),
                    "name": "abc"[number],
                }
            )
        folder.mkdir(exist_ok=True)
        session = {
            "schema": 1,
            "models": models,
            "inputs": {},
            "plan": vars(tiny_plan),
            "seed": 0,
            "threads": 1,
            "batch": 1,
            **changes,
        }
        (folder / "session.json").write_text(json.dumps(session))
        program_with(program, PRETENDING)
        command = [sys.executable, "-I", "-S", str(program), str(folder)]
        return SimpleNamespace(
            folder=folder,
            lines=folder / "session.jsonl",
            use_worker=lambda text: program_with(program, text),
            command=command,
            calls=lambda: [
                line
                for path in sorted(folder.glob("models/*/calls"))
                for line in path.read_text().split()
            ],
        )

    return make


def linear(path, width, seed):
    """x (1, 4) -> hidden (1, width) -> y (1, 3)."""
    draws = np.random.default_rng(seed)
    first = draws.standard_normal((4, width)).astype(np.float32)
    last = (draws.standard_normal((width, 3)) / width).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["wide"]),
            helper.make_node("MatMul", ["wide", "last"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(last, "last")],
    )
    opset = [helper.make_opsetid("", 20)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return first @ last


@pytest.fixture(scope="session")
def make_run():
    """Writes a run folder with two rows into a folder; gives its record and its test split."""

    def make(root):
        weights = [
            linear(root / f"stages/{i:02d}-{label}/model.onnx", width, i)
            for i, (label, width) in enumerate([("input", 64), ("prune", 8)])
        ]
        x = np.random.default_rng(9).standard_normal((50, 4)).astype(np.float32)
        rows = [row(root, index, label) for index, label in enumerate(["input", "prune"])]
        record = Record(
            name="tiny",
            recipe={"name": "tiny"},
            environment={"targets": {"laptop": {"state": {"threads": 1, "batch": 1}}}},
            seed=3,
            status="done",
            task=TaskFacts(
                name="points", metric="accuracy", higher_is_better=True, test_samples=50
            ),
            baseline=0,
            rows=rows,
        )
        record.save(root)
        labels = (x @ weights[0]).argmax(1)
        return SimpleNamespace(
            root=root,
            record=record,
            test=Samples({"": x}, labels, "accuracy", classes_of),
            weights=weights,
        )

    return make


def row(root, index, label):
    path = f"stages/{index:02d}-{label}/model.onnx"
    artifact = ArtifactFacts(
        path=path,
        sha256=file_sha256(root / path),
        bytes=(root / path).stat().st_size,
        int8_mac_fraction=0.0,
    )
    return Row(
        index=index,
        stage=label,
        kind=label,
        seconds=1.0,
        cached=False,
        fingerprint=f"f{index}",
        parent=None,
        parameters=1,
        nonzero_parameters=1,
        macs=1,
        measurements=[Measurement(target="laptop", runtime="onnxruntime", artifact=artifact)],
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory, make_run):
    """A run and its bundle, once for all tests that then change a copy."""
    root = tmp_path_factory.mktemp("made")
    run = make_run(root / "run")
    write_bundle(run.record, run.root, root / "tiny.zip", run.test)
    return SimpleNamespace(**vars(run) | {"root": root})


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made.root / "run", tmp_path / "run")
    record = Record.load(tmp_path / "run")
    return SimpleNamespace(**vars(made) | {"root": tmp_path / "run", "record": record})


@pytest.fixture
def bundle(made, tmp_path):
    """The bundle of ``run``."""
    return Path(shutil.copy(made.root / "tiny.zip", tmp_path))


@pytest.fixture
def program(made, tmp_path):
    """The program that was written beside the bundle."""
    return Path(shutil.copy(made.root / PROGRAM, tmp_path))
