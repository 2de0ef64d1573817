"""A session: what its folder describes, measured from the start or resumed.

FOLDER/session.json says what to do. Paths are relative to FOLDER and stay inside it::

    {"schema": 1,
     "models": [{"path": "models/0/model.onnx", "sha256": "...", "name": "input",
                 "shapes": {"x": [1, 512]}, "output": 0}, ...],
     "inputs": {"": "inputs/0.npy"},     samples by model input; {}: drawn from the seed
     "values": {"sr": "values/0.npy"},   whole inputs, where the others are drawn
     "plan": {fields of Plan},           null: nothing is timed
     "seed": 0, "threads": 1, "batch": 1,
     "predict": true,                    keep each model's outputs for every sample
     "labels": "labels.npy",             null, or with a metric: each sample is scored
     "metric": "accuracy",               one of scoring.METRICS and OVER_DATA_SETS, or null
     "expected": ["expected/0.npy"],     null, or for each model null or its outputs elsewhere for
                                         the first samples: the difference is reported
     "further": [["expected/0-1.npy"]],  the same of its second output and those after it
     "job": {"runtime": "onnxruntime"},  further keys of every job of the worker
     "timeout_s": 600}                   of one process; a thousand samples to predict may take it

``labels``, ``metric``, ``expected``, ``further``, ``job``, ``timeout_s``, ``values`` and a model's
``shapes`` (what its inputs are drawn with) and ``output`` (the place of the one that is scored, of
several) may be left out. ``sha256`` is over a model's file and, if there is one, its external data
beside it (``model.onnx.data``). The first model is what the others are compared with. Without
models only the environment is reported.

FOLDER/session.jsonl gets a line for each thing done, and is only ever appended to::

    {"kind": "session", "schema": 1, "session": {session.json}}
    {"kind": "environment", ...}                          answer to the worker's job, as are these:
    {"kind": "memory" | "check" | "energy", "index", "model", ...}
    {"kind": "time", "index", "model", "round", "label", ...}
    {"kind": "round", "round", "half_width", "elapsed_s", "enough"}
    {"kind": "outputs", "index", "model", "samples", "names",
     "files": [{"path": "outputs/0.npy", "sha256"}],      a second output: outputs/0-1.npy
     "scores": [...], "host": {...}}                      with labels; with expected
                     "dataset_score": {"value", "draws"}  in place of scores, by a metric over all
    {"kind": "end"}

A line with ``error`` (a sentence) stands for a job that could not be done; the session continues
without that model. ``index`` counts models. Doing it again resumes where it was stopped, however it
was; a torn last line is dropped, and so is a round that is not whole.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from compress.measure.ondevice.lock import device_lock
from compress.measure.ondevice.loop import SessionOutcome, measure
from compress.measure.ondevice.plan import Plan, checked_plan
from compress.measure.ondevice.process import (
    WORKER,
    JobFailed,
    library_folders,
    run_interleaved,
    run_worker,
)
from compress.measure.ondevice.scoring import METRICS, OVER_DATA_SETS, differences, scores
from compress.measure.ondevice.session_log import SessionError, open_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from compress.measure.ondevice.answers import Answer
    from compress.measure.ondevice.loop import Settings
    from compress.measure.ondevice.session_log import Line
    from compress.measure.ondevice.tensor_spec import Array

__all__ = ["ModelEntry", "SessionSettings", "checked_session", "run_folder", "stays_inside"]

_SCHEMA = 1
_TIMEOUT_S = 600.0


class _ModelOptions(TypedDict, total=False):
    shapes: dict[str, list[int]]
    output: int


class ModelEntry(_ModelOptions):
    """A model of a session: its file, the sha256 of it, and its name in sentences."""

    path: str
    sha256: str
    name: str


class _MayBeAbsent(TypedDict, total=False):
    values: dict[str, str]
    further: list[list[str]]


class SessionSettings(_MayBeAbsent):
    """What session.json says, with its defaults filled in."""

    schema: int
    models: list[ModelEntry]
    inputs: dict[str, str]
    plan: dict[str, object] | None
    seed: int
    threads: int
    batch: int
    predict: bool
    labels: str | None
    metric: str | None
    expected: list[str | None] | None
    job: dict[str, object]
    timeout_s: float


def run_folder(
    folder: Path,
    *,
    lines: Path | None = None,
    worker: Path = WORKER,
    notify: Callable[[str], None] = lambda _: None,
) -> SessionOutcome:
    """Do what ``FOLDER/session.json`` says, or resume it, and return what was measured.

    Args:
        folder: with session.json, models and inputs.
        lines: in place of ``FOLDER/session.jsonl``.
        worker: the file that a worker process executes.
        notify: called with a few words on what is about to be done.

    Raises:
        DeviceBusy: another session is timing on this device.
        SessionError: the folder is wrong, belongs to other lines, or nothing works here.
        OSError: the disk refused.
    """
    settings, plan = _load(folder)
    for model in settings["models"]:
        check_model(folder, model)
    session = _FolderJobs(folder, settings, worker, notify)
    path = folder / "session.jsonl" if lines is None else lines
    with device_lock(), open_log(path) as log:
        header = {"schema": _SCHEMA, "session": settings}
        if log.line({"kind": "session"}, lambda: header).get("session") != settings:
            raise SessionError(
                f"{path}: these are the lines of another session; move the file away to start over."
            )
        try:
            log.line({"kind": "environment"}, session.environment)
        except JobFailed as error:
            raise SessionError(
                f"nothing can be measured on this device by {sys.executable}: {error}"
            ) from error
        names = [model["name"] for model in settings["models"]]
        outcome = SessionOutcome()
        if plan is not None:
            outcome = measure(
                names, plan, settings["seed"], session.run_job, log, session.interleaved
            )
        for index, name in enumerate(names if settings["predict"] else []):
            place = {"kind": "outputs", "index": index, "model": name}
            log.line(place, partial(session.outputs, index))
        log.line({"kind": "end"}, dict)
    return outcome


@dataclass(frozen=True)
class _FolderJobs:
    """Jobs on the models of a folder."""

    folder: Path
    settings: SessionSettings
    worker: Path
    notify: Callable[[str], None]
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def environment(self) -> Answer:
        """What the machine and the runtime are."""
        return self._run({**self._fixed(), "kind": "environment"})

    def run_job(self, kind: str, index: int, settings: Settings) -> Answer:
        """One job on the model with that index; raises :class:`.process.JobFailed`."""
        name, samples = self._name(index), settings.get("samples")
        self.notify(f"{kind} {name}" + (f" ({next(self.numbers)})" if kind == "time" else ""))
        scale = samples / 1000 if isinstance(samples, int) else 0.0
        try:
            return self._run(self._job(index, {"kind": kind, **settings}), max(1.0, scale))
        except JobFailed as error:
            raise JobFailed(f"{name}: {error}") from error

    def interleaved(self, jobs: Sequence[tuple[int, Settings]], seed: int) -> list[Answer]:
        """Times models side by side; see :func:`.process.run_interleaved`."""
        self.notify(f"time {len(jobs)} processes side by side ({next(self.numbers)})")
        whole = [self._job(index, settings) for index, settings in jobs]
        limit_s = self.settings["timeout_s"]
        answers = run_interleaved(whole, seed=seed, timeout_s=limit_s, worker=self.worker)
        return [
            {"error": f"{self._name(jobs[place][0])}: {answer['error']}"}
            if "error" in answer
            else answer
            for place, answer in enumerate(answers)
        ]

    def outputs(self, index: int) -> Line:
        """The line about one model's outputs for every sample."""
        # Not at the top: what a session only times needs no numpy here.
        sys.path.extend(f for f in library_folders() if f not in sys.path)
        try:
            found = self._predicted(index)
        except JobFailed as error:
            return {"error": str(error)}
        try:
            return {**found, **self._judged(index, found)}
        except ValueError as error:
            return {**found, "error": f"{self._name(index)}: {error}"}

    def _predicted(self, index: int) -> Line:
        (self.folder / "outputs").mkdir(exist_ok=True)
        samples = max((len(self._array(p)) for p in self.settings["inputs"].values()), default=0)
        files = []
        with tempfile.TemporaryDirectory(dir=self.folder / "outputs") as scratch:
            answer = self.run_job("predict", index, {"folder": scratch, "samples": samples})
            for place, written in enumerate(answer["outputs"]):
                name = f"outputs/{index}-{place}.npy" if place else f"outputs/{index}.npy"
                os.replace(written, self.folder / name)
                files.append({"path": name, "sha256": _sha256([self.folder / name])})
        return {"samples": answer["samples"], "names": answer["names"], "files": files}

    def _judged(self, index: int, predicted: Line) -> Line:
        """Scores and the difference from the host, where the session asks for them."""
        found: Line = {}
        paths = [file["path"] for file in predicted["files"]]
        labels, metric = self.settings["labels"], self.settings["metric"]
        if labels is not None and metric is not None:
            place = self.settings["models"][index].get("output", 0)
            if place >= len(paths):
                raise ValueError(f"it has {len(paths)} output(s), and none at place {place}.")
            found.update(_scored(self._array(paths[place]), self._array(labels), metric))
        expected = self.settings["expected"][index] if self.settings["expected"] else None
        if expected is not None:
            further = self.settings.get("further", [])
            wanted = [expected, *(further[index] if further else [])]
            own = [self._array(path) for path in paths]
            arrays = [self._array(path) for path in wanted]
            found["host"] = differences(predicted["names"], own, arrays)
        return found

    def _array(self, path: str) -> Array:
        import numpy as np

        array: Array = np.load(self.folder / path, mmap_mode="r", allow_pickle=False)
        return array

    def _name(self, index: int) -> str:
        return self.settings["models"][index]["name"]

    def _run(self, job: Mapping[str, object], scale: float = 1.0) -> Answer:
        limit_s = self.settings["timeout_s"] * scale
        return run_worker(job, timeout_s=limit_s, worker=self.worker)

    def _job(self, index: int, settings: Settings) -> dict[str, object]:
        model = self.settings["models"][index]
        return {
            **self._fixed(),
            "model": str(self.folder / model["path"]),
            "shapes": model.get("shapes", {}),
            "inputs": self._paths(self.settings["inputs"]),
            "values": self._paths(self.settings.get("values", {})),
            **settings,
        }

    def _paths(self, arrays: Mapping[str, str]) -> dict[str, str]:
        return {name: str(self.folder / path) for name, path in arrays.items()}

    def _fixed(self) -> dict[str, object]:
        own = self.settings
        return {
            **own["job"],
            "threads": own["threads"],
            "batch": own["batch"],
            "seed": own["seed"],
        }


def _load(folder: Path) -> tuple[SessionSettings, Plan | None]:
    """``session.json``, checked and with its defaults filled in, and its plan."""
    path = folder / "session.json"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SessionError(f"{path}: there is no session that can be read ({error}).") from error
    if not isinstance(given, dict) or given.get("schema") != _SCHEMA:
        raise SessionError(
            f"{path}: not a session of schema {_SCHEMA}; take a program that fits it."
        )
    try:
        return checked_session(given)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SessionError(f"{path}: wrong or missing: {error}.") from error


def _scored(outputs: Array, labels: Array, metric: str) -> Line:
    if metric in METRICS:
        return {"scores": scores(outputs, labels, metric).tolist()}
    from compress.measure.ondevice.dataset_metrics import dataset_score

    score = dataset_score(outputs, labels, metric)
    # JSON has no NaN, which a resample without a value has.
    draws = [None if draw != draw else draw for draw in score.draws.tolist()]
    value = None if score.value != score.value else score.value
    return {"dataset_score": {"value": value, "draws": draws}}


def checked_session(given: Mapping[str, Any]) -> tuple[SessionSettings, Plan | None]:
    """A session from plain data with its defaults filled in, and its plan.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: what is wrong or missing, in few words.
    """
    scoring = {"labels": None, "metric": None, "expected": None}
    defaults = {"predict": False, "seed": 0, "job": {}, "timeout_s": _TIMEOUT_S}
    session: Any = {**defaults, **scoring, **given}
    for key in ("threads", "batch"):
        if not isinstance(session[key], int) or session[key] < 1:
            raise ValueError(f"{key} must be a whole number from 1; got {session[key]!r:.40}")
    if session["metric"] not in (None, *METRICS, *OVER_DATA_SETS):
        known = ", ".join((*METRICS, *OVER_DATA_SETS))
        raise ValueError(f"metric must be {known} or null; got {session['metric']!r:.40}")
    if not isinstance(session["job"], dict) or not session["timeout_s"] > 0:
        raise ValueError("job must be a mapping, and timeout_s above 0")
    expected = session["expected"] or []
    if expected and len(expected) != len(session["models"]):
        raise ValueError("expected must have an entry for each model")
    further = session.get("further", [])
    if further and (len(further) != len(expected) or not all(isinstance(f, list) for f in further)):
        raise ValueError("further must have a list for each entry of expected")
    for model in session["models"]:
        if not isinstance(model["name"], str) or not isinstance(model["sha256"], str):
            raise TypeError("each model's name and sha256 must be text")
        sizes = itertools.chain.from_iterable(model.get("shapes", {}).values())
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("each model's shapes must be lists of whole numbers")
        place = model.get("output", 0)
        if not isinstance(place, int) or place < 0:
            raise ValueError(f"each model's output must be a place from 0; got {place!r:.40}")
    paths = [model["path"] for model in session["models"]]
    paths += [*session["inputs"].values(), session["labels"], *expected]
    paths += [*session.get("values", {}).values(), *itertools.chain.from_iterable(further)]
    for path in paths:
        if path is not None and not stays_inside(path):
            raise ValueError(f"the path {path!r:.80} leads out of the folder")
    settings: SessionSettings = session
    return settings, None if session["plan"] is None else checked_plan(session["plan"])


def stays_inside(path: object) -> bool:
    """Whether a relative path, of whichever system, leads to something in its folder."""
    if not isinstance(path, str) or not path or "\\" in path or ":" in path or "\0" in path:
        return False
    return not {"", ".", ".."} & set(path.split("/"))


def check_model(folder: Path, model: ModelEntry) -> None:
    """See that a model is the one that session.json names, by its checksum.

    Raises:
        SessionError: it is missing, or another one.
    """
    path = folder / model["path"]
    if not path.is_file():
        raise SessionError(f"{path}: there is no such file, yet session.json names it as a model.")
    found = _sha256([path, path.with_name(path.name + ".data")])
    if found != model["sha256"]:
        raise SessionError(
            f"{path}: its sha256 is {found[:12]}..., session.json says {model['sha256'][:12]}...; "
            "send the file again."
        )


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            with path.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
    return digest.hexdigest()
