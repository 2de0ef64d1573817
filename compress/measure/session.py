"""Session: a measuring session as a folder for a device, and what came of it read back.

The folder's format is that of :mod:`.ondevice.session`, which works on it there. What is read may
be a stranger's: nothing in it is taken for granted.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from compress.artifact import file_sha256, model_files
from compress.errors import MeasurementError, StorageError
from compress.io.files import named
from compress.measure.machine import describe
from compress.measure.modes import PLANS
from compress.measure.ondevice import loop
from compress.measure.ondevice.dataset_metrics import DatasetScore
from compress.measure.ondevice.session import checked_session, stays_inside
from compress.measure.ondevice.session_log import SessionError, SessionLog, read_lines
from compress.measure.rounds import timings_of
from compress.measure.score import Scores
from compress.measure.target import Array, BenchmarkConfig, Failure, Timing

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import Answer
    from compress.measure.ondevice.scoring import Difference
    from compress.measure.ondevice.session import SessionSettings
    from compress.measure.ondevice.session_log import Line

__all__ = ["PredictedOutputs", "SessionResult", "few_samples", "read_session", "write_session"]


_TIMING_SAMPLES = 64
# What a damaged or invented line can make the loop and the statistics raise.
_NONSENSE = (
    *(AttributeError, IndexError, KeyError, TypeError, ValueError, ArithmeticError),
    SessionError,
)


@dataclass(frozen=True)
class PredictedOutputs:
    """One model on every sample: ``files`` has the ``.npy`` of each output.

    ``scores`` (one for each sample, or of all) and ``host`` (the difference from the host's
    outputs) are there where the session asked for them; ``error`` says why something is missing.
    """

    files: tuple[Path, ...] = ()
    scores: Scores | None = None
    host: Difference | None = None
    error: str | None = None


@dataclass(frozen=True)
class SessionResult:
    """A finished session: ``environment`` is as from :meth:`.target.Target.environment`.

    ``timings`` has one for each model, or is empty if nothing was to be timed; so has ``outputs``.
    ``session`` is what ``session.json`` said.
    """

    timings: list[Timing | Failure]
    environment: dict[str, Any]
    outputs: list[PredictedOutputs]
    session: SessionSettings = field(repr=False)


def write_session(
    folder: Path,
    models: Sequence[Path],
    config: BenchmarkConfig | None,
    *,
    threads: int,
    batch: int,
    inputs_for_predict: Mapping[str, Array] | None = None,
    timeout_s: float = 600,
    job: Mapping[str, object] | None = None,
) -> None:
    """Lay out a session in ``folder``: ``session.json``, ``models/`` and ``inputs/``.

    Args:
        folder: is made if need be; a session that is there already is replaced.
        models: the first is what the others are compared with; none to ask for the environment.
        config: what to time with, and how hard to try; ``None`` to time nothing.
        threads: onnxruntime's intra-op threads.
        batch: of one inference, for models that do not fix it.
        inputs_for_predict: with them, every model's outputs for them are kept; then they are what
            is timed with, too.
        timeout_s: of one process.
        job: further keys of every job of the worker, such as the runtime.

    Raises:
        MeasurementError: a model is missing.
        StorageError: the disk refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inputs = inputs_for_predict
        if inputs is None:
            inputs = few_samples(config.inputs, batch) if config else {}
        session = {
            "schema": 1,
            "models": [
                {**_put_model(folder, number, path), **_shapes(config, path)}
                for number, path in enumerate(models)
            ],
            "inputs": _put_arrays(folder, "inputs", inputs),
            "plan": asdict(PLANS[config.mode]) if config else None,
            "seed": config.seed if config else 0,
            "threads": threads,
            "batch": batch,
            "predict": inputs_for_predict is not None,
            "job": dict(job or {}),
            "timeout_s": timeout_s,
        }
        if config and config.values:
            session["values"] = _put_arrays(folder, "values", config.values)
        (folder / "session.jsonl").unlink(missing_ok=True)
        (folder / "session.json").write_text(json.dumps(session, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise StorageError(
            f"{folder}: the session could not be written ({error.strerror or error}); free space "
            "or choose another place."
        ) from error


def few_samples(inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Enough samples to time with, spread evenly over a data set that may be sorted by class."""
    count = max(_TIMING_SAMPLES, 8 * batch)
    return {
        name: array
        if len(array) <= count
        else np.take(array, np.linspace(0, len(array) - 1, count).astype(int), axis=0)
        for name, array in inputs.items()
    }


def _put_model(folder: Path, number: int, model: Path) -> dict[str, str]:
    if not model.is_file():
        raise MeasurementError(f"{model}: there is no such file.")
    place = folder / "models" / str(number)
    place.mkdir(parents=True, exist_ok=True)
    for part in model_files(model):
        shutil.copyfile(part, place / part.name)
    path = (place / model.name).relative_to(folder).as_posix()
    return {"path": path, "sha256": file_sha256(model), "name": str(model)}


def _shapes(config: BenchmarkConfig | None, model: Path) -> dict[str, object]:
    shapes = config.shapes.get(model) if config else None
    return {"shapes": {name: list(sizes) for name, sizes in shapes.items()}} if shapes else {}


def _put_arrays(folder: Path, place: str, arrays: Mapping[str, Array]) -> dict[str, str]:
    (folder / place).mkdir(exist_ok=True)
    paths = {name: f"{place}/{number}.npy" for number, name in enumerate(arrays)}
    for name, path in paths.items():
        np.save(folder / path, arrays[name], allow_pickle=False)
    return paths


def read_session(
    lines: Path | Sequence[Mapping[str, object]], models: Sequence[Path | str] | None = None
) -> SessionResult:
    """What a session found out: from its ``session.jsonl`` or from the lines of one.

    Everything is computed again from the raw samples. ``models`` are the names to use in sentences;
    without them, those of the session. Output files are looked for beside ``session.jsonl``.

    Raises:
        MeasurementError: the session is not finished, or these are not the lines of a session.
    """
    where, folder = (str(lines), lines.parent) if isinstance(lines, Path) else ("session", Path())
    try:
        there = read_lines(lines)[0] if isinstance(lines, Path) else map(dict, lines)
        return _read(SessionLog(there), folder, models)
    except _NONSENSE as error:
        text = named(" ".join(str(error).split()).rstrip(".") or type(error).__name__)
        raise MeasurementError(
            f"{where}: these are not the lines of a whole session: {text}."
        ) from error


def _read(log: SessionLog, folder: Path, models: Sequence[Path | str] | None) -> SessionResult:
    header = log.line({"kind": "session", "schema": 1}, dict)
    session, plan = checked_session(header["session"])
    facts = log.line({"kind": "environment"}, dict)
    names = [model["name"] for model in session["models"]]
    shown = names if models is None else [str(model) for model in models]
    if len(shown) != len(names):
        raise ValueError(f"it is about {len(names)} models, not {len(shown)}")
    threads, batch = session["threads"], session["batch"]
    timings: list[Timing | Failure] = []
    if plan is not None:
        outcome = loop.measure(names, plan, session["seed"], _never, log)
        timings = timings_of(
            outcome, shown, plan, threads=threads, batch=batch, cores=_usable_cores(facts)
        )
    asked = range(len(names)) if session["predict"] else ()
    outputs = [
        _outputs(log.line({"kind": "outputs", "index": index}, dict), folder) for index in asked
    ]
    log.line({"kind": "end"}, dict)
    environment = describe(facts, threads=threads, batch=batch)
    return SessionResult(timings, environment, outputs, session)


def _never(kind: str, index: int, _: Mapping[str, object]) -> Answer:
    raise AssertionError(f"reading ran {kind} on {index}")


def _usable_cores(facts: Line) -> int:
    cores, limit = len(facts["affinity"]), facts["cpu_limit"]
    return max(1, cores if limit is None else min(cores, math.ceil(limit)))


def _scores(line: Line) -> Scores | None:
    scores, of_all = line.get("scores"), line.get("dataset_score")
    if scores is not None:
        return np.array([float(score) for score in scores])
    if of_all is None:
        return None
    value, *draws = (
        math.nan if each is None else float(each) for each in (of_all["value"], *of_all["draws"])
    )
    return DatasetScore(value, np.array(draws), int(line["samples"]))


def _outputs(line: Line, folder: Path) -> PredictedOutputs:
    files = [entry["path"] for entry in line.get("files", ())]
    if not all(stays_inside(path) for path in files):
        raise ValueError("an output's path leads out of the folder")
    host = line.get("host")
    return PredictedOutputs(
        files=tuple(folder / path for path in files),
        scores=_scores(line),
        host=None if host is None else cast("Difference", dict(host)),
        error=None if line.get("error") is None else str(line["error"])[:500],
    )
