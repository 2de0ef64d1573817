"""Bundle: a run's models on one target, and what measuring them elsewhere needs, in one file.

It holds no program: that is :mod:`compress.measure.program`, which goes beside it.

::

    MANIFEST.json                 what the bundle is; bytes and sha256 of every other member
    models/02-distill/model.onnx  one for each row, the baseline first in the manifest
    inputs/0.npy  labels.npy      test samples
    expected/0.npy                what each model says here, for a few samples; a second output
                                  is 0-1.npy
    __main__.py                   a sentence, for whoever runs ``python3 FILE``
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.artifact import file_sha256, model_files
from compress.errors import DataError, MeasurementError, RecordError, StorageError
from compress.io.atomic import part_of
from compress.measure.local import LocalTarget
from compress.measure.modes import PLANS
from compress.measure.program import PROGRAM, write_program
from compress.record import Measurement, Record, Row

__all__ = ["DEFAULT_SAMPLES", "Contents", "Samples", "write_bundle"]

Array = np.ndarray[Any, Any]
Predict = Callable[[Path, Mapping[str, Array]], Sequence[Array]]

#: Enough for a 95 % interval of about ±1.3 points at an accuracy of 90 %.
DEFAULT_SAMPLES = 2000
_MOST_INPUT_BYTES = 64 << 20
_EXPECTED_SAMPLES = 256
_MOST_EXPECTED_BYTES = 4 << 20
_MAIN = f"""\
import sys

print("this bundle holds no program: run `python3 {PROGRAM} BUNDLE`, with the file of that name "
      "that `compresskit bundle` writes beside it.", file=sys.stderr)
sys.exit(2)
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same contents give the same bytes


@dataclass(frozen=True)
class Samples:
    """The test split. ``labels`` is ``None`` where there are none.

    ``metric`` is ``None`` where it is code of the recipe's, which a device does not have: then
    scores are left out. ``as_labels`` makes labels of what all are compared with, where there are
    none: of its output ``output``, which is the one that is scored, where models have several.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    metric: str | None
    as_labels: Callable[[Array], Array]
    output: str | None = None

    def place_in(self, names: Sequence[str]) -> int:
        """The place of the output that is scored, among the names of a file's outputs.

        Raises:
            DataError: it is not among them.
        """
        if len(names) < 2 or self.metric is None:
            return 0
        if self.output is None or self.output not in names:
            raise DataError(
                f"bundle: rows are scored by their output {self.output!r}, and one has "
                f"{', '.join(names)}; run the recipe again."
            )
        return list(names).index(self.output)

    def __len__(self) -> int:
        return min((len(array) for array in self.inputs.values()), default=0)


@dataclass(frozen=True)
class Contents:
    """What went into a bundle, and the program that was written beside it."""

    rows: int
    samples: int
    of_samples: int
    bytes: int
    program: Path


@dataclass
class _Members:
    """What the archive will hold: bytes, or files to be copied; and what it declares of them."""

    sources: dict[str, bytes | Path] = field(default_factory=dict)
    declared: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, source: bytes | Path) -> str:
        digest, size = hashlib.sha256(), 0
        for block in _blocks(source):
            digest.update(block)
            size += len(block)
        self.sources[name] = source
        self.declared[name] = {"bytes": size, "sha256": digest.hexdigest()}
        return name

    def add_array(self, name: str, array: Array) -> str:
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        return self.add(name, stream.getvalue())


def write_bundle(
    record: Record,
    folder: Path,
    path: Path,
    test: Samples,
    *,
    target: str | None = None,
    samples: int | None = None,
    predict: Predict | None = None,
) -> Contents:
    """Write the bundle of a run, and beside it the program that measures it on a device.

    Args:
        record: of the run.
        folder: the run's.
        path: where the bundle goes; replaced in one step.
        test: the test split.
        target: whose artifacts are bundled; the record's first one where not given.
        samples: how many test samples, drawn at random but always the same ones; by default
            :data:`DEFAULT_SAMPLES`, fewer where they would take more than 64 MiB.
        predict: computes outputs here; by default onnxruntime on this machine.

    Raises:
        RecordError: no such target, no baseline on it, or a model that is gone or was changed.
        DataError: no test samples, or none asked for.
        MeasurementError: the baseline does not run here, and its answers are needed as labels.
        StorageError: the disk refused.
    """
    name = _target_of(record, target)
    rows = _rows(record, folder, name)
    chosen = _choose(test, samples)
    state = _state(record, name)
    run = predict or LocalTarget(batch=state["batch"]).predict
    members = _Members()
    session: dict[str, Any] = {
        "schema": 1,
        "models": [_add_model(members, folder, row, found, chosen) for row, found in rows],
        "inputs": {
            name: members.add_array(f"inputs/{place}.npy", array)
            for place, (name, array) in enumerate(chosen.inputs.items())
        },
        "seed": record.seed,
        "predict": True,
        "metric": chosen.metric,
        **state,
    }
    models = [folder / found.artifact.path for _, found in rows]
    expected = _add_expected(members, models, chosen, run)
    session["expected"] = [first for first, *_ in expected]
    if any(further for _, *further in expected):
        session["further"] = [further for _, *further in expected]
    first = chosen.place_in(rows[0][1].artifact.outputs)
    session["labels"] = _add_labels(members, models[0], first, chosen, run)
    members.add("__main__.py", _MAIN.encode())
    manifest = {
        "schema": 1,
        "kind": "compresskit-bundle",
        "record": record.name,
        "target": name,
        "task": record.task.model_dump(mode="json"),
        "rows": [_row_facts(row, found) for row, found in rows],
        "samples": {"count": len(chosen), "of": len(test)},
        "session": session,
        "plans": {mode: asdict(plan) for mode, plan in PLANS.items()},
        "members": members.declared,
    }
    _write(path, json.dumps(manifest, indent=1).encode(), members)
    program = path.with_name(PROGRAM)
    write_program(program)
    return Contents(len(rows), len(chosen), len(test), path.stat().st_size, program)


# -- what is bundled --------------------------------------------------------------------------


def _target_of(record: Record, target: str | None) -> str:
    known = ", ".join(record.targets) or "none yet"
    name = target or next(iter(record.targets), None)
    if name not in record.targets:
        raise RecordError(f"{record.name}: no row was measured on {name!r}; known are {known}.")
    return name


def _rows(record: Record, folder: Path, target: str) -> list[tuple[Row, Measurement]]:
    """The rows on a target, the baseline first, each with the very file that was measured."""
    there = [(row, found) for row in record.rows if (found := row.on(target)) is not None]
    there.sort(key=lambda pair: pair[0].index != record.baseline)
    if not there or there[0][0].index != record.baseline:
        raise RecordError(
            f"{record.name}: its baseline, row {record.baseline}, was not measured on {target!r}, "
            "and there is nothing to compare with; run the recipe to its end."
        )
    for row, found in there:
        model = folder / found.artifact.path
        if not model.is_file():
            raise RecordError(f"{model}: the model of row {row.index} ({row.stage}) is gone.")
        if file_sha256(model) != found.artifact.sha256:
            raise RecordError(
                f"{model}: the model of row {row.index} ({row.stage}) is not the one that was "
                "measured; run the recipe again."
            )
    return there


def _choose(test: Samples, samples: int | None) -> Samples:
    """A part of the test split: at random, for it may be sorted by class, or by anything."""
    if len(test) == 0:
        raise DataError("bundle: there are no test samples.")
    if samples is not None and samples < 1:
        raise DataError(f"bundle: samples must be at least 1; got {samples}.")
    one = sum(array[:1].nbytes for array in test.inputs.values())
    count = samples or max(1, min(DEFAULT_SAMPLES, _MOST_INPUT_BYTES // max(1, one)))
    if count >= len(test):
        return test
    chosen = np.sort(np.random.default_rng(0).choice(len(test), count, replace=False))
    labels = None if test.labels is None else test.labels[chosen]
    inputs = {name: array[chosen] for name, array in test.inputs.items()}
    return replace(test, inputs=inputs, labels=labels)


def _state(record: Record, target: str) -> dict[str, int]:
    """Threads and batch of the target, which are part of what was measured."""
    state = record.environment.get("targets", {}).get(target, {}).get("state", {})
    return {key: int(state.get(key) or 1) for key in ("threads", "batch")}


def _row_facts(row: Row, found: Measurement) -> dict[str, Any]:
    return {
        "index": row.index,
        "stage": row.stage,
        "fingerprint": row.fingerprint,
        "sha256": found.artifact.sha256,
    }


def _add_model(
    members: _Members, folder: Path, row: Row, found: Measurement, test: Samples
) -> dict[str, Any]:
    name, model = f"{row.index:02d}-{row.stage}", folder / found.artifact.path
    # External data is found by its name: file names stay what they are.
    first, *_ = [members.add(f"models/{name}/{p.name}", p) for p in model_files(model)]
    entry: dict[str, Any] = {"path": first, "sha256": found.artifact.sha256, "name": name}
    place = test.place_in(found.artifact.outputs)
    return {**entry, "output": place} if place else entry


def _add_expected(
    members: _Members, models: Sequence[Path], test: Samples, predict: Predict
) -> list[list[str | None]]:
    """What each model gives here, output by output. One that does not run here has one ``None``."""
    few = {name: array[:_EXPECTED_SAMPLES] for name, array in test.inputs.items()}
    paths: list[list[str | None]] = []
    for place, model in enumerate(models):
        try:
            outputs = predict(model, few)
        except MeasurementError:
            paths.append([None])  # it is left for the device to try
            continue
        own: list[str | None] = []
        for number, output in enumerate(outputs):
            name = f"expected/{place}-{number}.npy" if number else f"expected/{place}.npy"
            count = max(1, _MOST_EXPECTED_BYTES // max(1, output[:1].nbytes))
            own.append(members.add_array(name, output[:count]))
        paths.append(own)
    return paths


def _add_labels(
    members: _Members, baseline: Path, place: int, test: Samples, predict: Predict
) -> str | None:
    """Labels; of unlabeled data, what the baseline gives here, which others are compared with."""
    if test.metric is None:
        return None
    labels = test.labels
    if labels is None:
        outputs = predict(baseline, test.inputs)[place]
        labels = test.as_labels(outputs)
    return members.add_array("labels.npy", labels)


# -- the archive ------------------------------------------------------------------------------


def _blocks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as stream:
        yield from iter(lambda: stream.read(1 << 20), b"")


def _write(path: Path, manifest: bytes, members: _Members) -> None:
    beside = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, source in [("MANIFEST.json", manifest), *sorted(members.sources.items())]:
                info = zipfile.ZipInfo(name, _EPOCH)
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                with archive.open(info, "w", force_zip64=True) as stream:
                    for block in _blocks(source):
                        stream.write(block)
        beside.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path}: the bundle could not be written ({error.strerror or error}); free space or "
            "choose another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
