"""Jobs about outputs: of every sample, of any run at all, and their names and shapes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np

from compress.measure.ondevice import drawn_inputs
from compress.measure.ondevice.inputs import GivenInputs
from compress.measure.ondevice.jobs import JobError, sentence
from compress.measure.ondevice.runtimes import open_model
from compress.measure.ondevice.tensor_spec import pairs, specs_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compress.measure.ondevice.answers import (
        FitAnswer,
        InspectAnswer,
        PredictAnswer,
        TensorSignature,
    )
    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.tensor_spec import Array, Declared

__all__ = ["GUESSING_CAP_S", "fit", "inspect", "predict"]

# Tried in the place of lengths and sides with which a model does not run: common ones first, and
# last what takes the least.
_GUESSES = (
    *(512, 256, 128, 64, 32, 48, 80, 96, 160, 192, 288, 299, 320, 384, 416, 448, 480, 576, 640),
    *(768, 1024, 100, 40, 20, 10, 8, 4, 3, 2, 1),
)
GUESSING_CAP_S = 20  # after which no further guess is tried


def predict(job: WorkerJob) -> PredictAnswer:
    """Run every sample, in order; write each output to ``folder`` as ``output-N.npy``.

    The last batch is filled up with its last sample, which moves no range that a model computes
    from its batch, and cut.
    """
    session = open_model(job)
    feeds = GivenInputs(session, job)
    names = [value.name for value in session.get_outputs()]
    paths = [os.path.join(job["folder"], f"output-{i}.npy") for i in range(len(names))]
    stacked = len(feeds.single) == len(feeds.specs)
    files: list[Array] = []
    for start in range(0, feeds.samples, feeds.batch):
        rows = np.minimum(np.arange(start, start + feeds.batch), feeds.samples - 1)
        values = session.run(None, feeds.take(rows))
        outputs = [_rows(name, v, feeds.batch, stacked) for name, v in pairs(names, values)]
        if not files:
            files = [
                np.lib.format.open_memmap(
                    path, "w+", value.dtype, (feeds.samples, *value.shape[1:])
                )
                for path, value in pairs(paths, outputs)
            ]
        count = min(feeds.batch, feeds.samples - start)
        for i, (file, value) in enumerate(pairs(files, outputs)):
            if value.shape[1:] != file.shape[1:]:
                raise JobError(f"the output {names[i]!r} changes shape between samples.")
            file[start : start + count] = value[:count]
    for file in files:
        file.flush()  # type: ignore[attr-defined]
    return {"outputs": paths, "names": names, "samples": feeds.samples, "batch": feeds.batch}


def _rows(name: str, value: object, batch: int, stacked: bool) -> Array:
    if not isinstance(value, np.ndarray):
        raise JobError(f"the output {name!r} is no tensor but a {type(value).__name__}.")
    if value.dtype.kind == "O":
        raise JobError(f"the output {name!r} holds strings; only numbers can be scored.")
    if stacked:
        return value[None]
    if value.shape[:1] != (batch,):
        raise JobError(
            f"the output {name!r} has shape {value.shape}; its first axis should be the {batch} "
            "samples of the batch."
        )
    return value


def fit(job: WorkerJob) -> FitAnswer:
    """Whether a model runs with what is drawn, and with which sizes: guesses are tried in turn.

    It raises only for a model that cannot be loaded, or fed.
    """
    session = open_model(job)
    begin = time.monotonic()
    failed = ""
    tried: list[dict[str, list[int]]] = []
    for guess in (0, *_GUESSES):
        inputs = drawn_inputs.DrawnInputs(session, job, guess)
        late = tried and time.monotonic() - begin > GUESSING_CAP_S
        large = (
            inputs.guessed
            and guess != _GUESSES[-1]
            and inputs.feed_bytes > drawn_inputs.FEEDS_BYTES
        )
        if late or large or inputs.shapes in tried:
            continue
        tried.append(inputs.shapes)
        try:
            session.run(None, inputs.rotation(1)[0])
        except JobError:
            raise
        except Exception as error:
            failed = failed or sentence(error)
        else:
            failed = ""
            break
    return {
        "inputs": [
            {"name": s.name, "type": s.type, "shape": s.shape, "axes": s.axes}
            for s in specs_of(session.get_inputs())
        ],
        "shapes": tried[0] if failed else inputs.shapes,
        "guessed": inputs.guessed,
        "tried": tried,
        "failed": failed or None,
    }


def inspect(job: WorkerJob) -> InspectAnswer:
    """Names, types and shapes of a model's inputs and outputs; ``None`` where a size is open."""
    session = open_model(job)
    return {
        "inputs": _signatures(session.get_inputs()),
        "outputs": _signatures(session.get_outputs()),
    }


def _signatures(values: Iterable[Declared]) -> list[TensorSignature]:
    return [{"name": s.name, "type": s.type, "shape": s.shape} for s in specs_of(values)]
