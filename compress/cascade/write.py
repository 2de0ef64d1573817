"""The folder of a cascade: both models, how to choose between them, and what runs them."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress import __version__
from compress.artifact import file_sha256, model_files
from compress.cascade.measure import Measured
from compress.cascade.models import CascadeModel
from compress.cascade.program.scores import confidence
from compress.cascade.result import Cascade, cascade_bytes
from compress.cascade.threshold import sent_back
from compress.errors import StorageError
from compress.io.atomic import write_atomically
from compress.io.scratch import scratch
from compress.measure.named_arrays import Array
from compress.overwriting import CASCADE, CASCADE_NAME, check_cascade_folder
from compress.running.split_arrays import SplitArrays
from compress.ship.model_file import ModelFile, write_model
from compress.task import Task

__all__ = ["write_cascade"]

_PROGRAM = Path(__file__).parent / "program"
_PROGRAM_FILES = ("run.py", "scores.py")
_SAMPLES = 64


def write_cascade(
    found: Cascade, measured: Measured, task: Task, folder: Path, figures: Mapping[str, bytes]
) -> Cascade:
    """Write a cascade, and what was found of it, to a folder of its own.

    Args:
        found: what is said of it.
        measured: has the models.
        task: gives test samples that the runner is tried on.
        folder: is made, or has an earlier cascade, which is replaced.
        figures: pictures by their names.

    Returns:
        The same, with the files.

    Raises:
        RecipeError: something is in the folder that this tool did not write.
        StorageError: the disk refused; what was there before can be written over again.
    """
    check_cascade_folder(folder, "--out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch(folder.parent) as place:
            draft = Path(place)
            found = _with_models(found, measured, draft)
            for name in _PROGRAM_FILES:
                shutil.copyfile(_PROGRAM / name, draft / name)
            np.savez(draft / "fitted.npz", **measured.fitted[found.score])  # type: ignore[arg-type]
            (draft / "samples.npz").write_bytes(_samples(found, measured, task))
            for name, content in figures.items():
                (draft / name).write_bytes(content)
            files = {
                path.relative_to(draft).as_posix(): file_sha256(path)
                for path in sorted(draft.rglob("*"))
                if path.is_file()
            }
            found = replace(found, files=files)
            _move(draft, folder, found)
    except OSError as error:
        raise StorageError(
            f"{folder}: the cascade could not be written there ({error.strerror or error}); free "
            "space or give another folder (--out)."
        ) from error
    return found


def _with_models(found: Cascade, measured: Measured, draft: Path) -> Cascade:
    student = _model(measured.deployed, draft, "student", found.run)
    larger = _model(measured.larger, draft, "larger", found.run)
    return replace(
        found,
        student=replace(found.student, file=student),
        larger=replace(found.larger, file=larger),
    )


def _model(model: CascadeModel, draft: Path, name: str, run: str) -> str:
    """Write one of the models; returns its file, which external data give a folder of its own."""
    place = draft / f"{name}.onnx"
    if len(model_files(model.path)) > 1:
        place = draft / name / f"{name}.onnx"
        place.parent.mkdir()
    says = {"version": __version__, "recipe": run, "row": str(model.deployed.row.index)}
    own, *_ = write_model(model.path, place, {**says, "cascade": name})
    return own.relative_to(draft).as_posix()


def _samples(found: Cascade, measured: Measured, task: Task) -> bytes:
    """A few test samples, one after the other, as the cascade answers them here."""
    split = SplitArrays.spread(task.test, _SAMPLES)
    first, features = measured.deployed.run(split.inputs)
    fitted = measured.fitted[found.score]
    threshold = float("inf") if found.threshold is None else found.threshold
    back = sent_back(confidence(found.score, first, features, fitted), threshold)
    second, _ = measured.larger.run(split.inputs)
    chosen = np.where(back.reshape(-1, *[1] * (first.ndim - 1)), second, first)
    inputs = ModelFile(measured.deployed.path, 1).fitted(split.inputs)
    arrays: dict[str, Array] = {f"input/{name}": array for name, array in inputs.items()}
    if isinstance(split.labels, np.ndarray):
        arrays["label"] = split.labels
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays, output=chosen, sent_back=back)  # type: ignore[arg-type]
    return stream.getvalue()


def _move(draft: Path, folder: Path, found: Cascade) -> None:
    """Put all files in their place; a kill leaves a folder that may be written over."""
    folder.mkdir(exist_ok=True)
    earlier = _files_of(folder / CASCADE_NAME)
    coming: dict[str, Any] = {"kind": CASCADE, "files": [*earlier, *found.files]}
    write_atomically(folder / CASCADE_NAME, json.dumps(coming))
    for name in earlier:
        if name not in found.files and (folder / name).resolve().is_relative_to(folder.resolve()):
            (folder / name).unlink(missing_ok=True)
    for name in found.files:
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(draft / name, folder / name)
    write_atomically(folder / CASCADE_NAME, cascade_bytes(found))


def _files_of(path: Path) -> list[str]:
    """What an earlier cascade says that it wrote: the folder was looked at before."""
    try:
        files = json.loads(path.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in files]
