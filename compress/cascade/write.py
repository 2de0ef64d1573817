"""The folder of a cascade: both models, how to choose between them, and what runs them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.cascade.folder import PROGRAM, FolderToBe, written
from compress.cascade.measure import Measured
from compress.cascade.program.scores import confidence
from compress.cascade.result import Cascade, cascade_bytes
from compress.cascade.threshold import sent_back
from compress.measure.named_arrays import Array
from compress.running.split_arrays import SplitArrays
from compress.ship.model_file import ModelFile
from compress.task import Task

__all__ = ["write_cascade"]

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
    with written(folder) as to_be:
        draft = to_be.draft
        found = _with_models(found, measured, to_be)
        for name in _PROGRAM_FILES:
            shutil.copyfile(PROGRAM / name, draft / name)
        np.savez(draft / "fitted.npz", **measured.fitted[found.score])  # type: ignore[arg-type]
        (draft / "samples.npz").write_bytes(_samples(found, measured, task))
        for name, content in figures.items():
            (draft / name).write_bytes(content)
        found = replace(found, files=to_be.files())
        to_be.put(found.files, cascade_bytes(found))
    return found


def _with_models(found: Cascade, measured: Measured, to_be: FolderToBe) -> Cascade:
    student, larger = (
        to_be.add_model(
            model.path, name, {"recipe": found.run, "row": str(model.deployed.row.index)}
        )
        for model, name in ((measured.deployed, "student"), (measured.larger, "larger"))
    )
    return replace(
        found,
        student=replace(found.student, file=student),
        larger=replace(found.larger, file=larger),
    )


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
