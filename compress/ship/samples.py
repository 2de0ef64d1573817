"""Some test samples with their labels, and what the shipped file makes of them."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from compress.errors import DataError
from compress.measure.named_arrays import Array, Arrays
from compress.measure.perplexity import bits_per_token
from compress.metrics import metric_name
from compress.modules.outputs import Outputs
from compress.outputs import Implied, OutputKind
from compress.running.row_metrics import RowMetric, row_metrics
from compress.running.split_arrays import SplitArrays
from compress.ship.model_file import ModelFile
from compress.task import Task
from compress.training.data import samples_at
from compress.training.supervision import Supervision

__all__ = ["Samples", "take_samples"]

_MOST_BYTES = 1 << 20
_MOST_SAMPLES = 512
#: The metrics that ``run.py`` works out.
_RULES = ("accuracy", "binary-accuracy", "mse", "r2", "f1", "mean-iou", "psnr")


@dataclass(frozen=True)
class Samples:
    """Test samples as ``samples.npz`` has them.

    Args:
        content: of that file.
        count: how many samples are in it.
        total: how many the test split has.
        rule: the metric, as ``run.py`` knows it; ``None`` of others.
        on: the output that the metric is on; ``None`` for all.
        kinds: what each output is, by its name; ``None`` where nothing says it.
    """

    content: bytes
    count: int
    total: int
    rule: str | None
    on: str | None
    kinds: Mapping[str, OutputKind | None]


def take_samples(
    task: Task,
    model: ModelFile,
    names: tuple[str, ...],
    implied: Collection[Implied],
    wanted: int | Literal["all"] | None,
) -> Samples:
    """Test samples, evenly spaced, with labels, and the model's outputs for them.

    Args:
        task: has the test split.
        model: gives the outputs.
        names: that the model has for them.
        implied: what the losses of the run's stages imply of the outputs.
        wanted: how many; ``None`` for as many as take about 1 MiB.

    Raises:
        DataError: a test split without a sample, or samples that the model does not take.
        LoweringError: onnxruntime cannot run the file.
    """
    total = len(task.test)
    if not total:
        raise DataError(f"task {task.name!r}: its test split has no sample to ship.")
    one = _read(task, model, names, 1)
    supervision = _supervision(task, one, implied)
    size = sum(array.nbytes for array in one.arrays(None).values())
    few = min(_MOST_SAMPLES, max(1, _MOST_BYTES // max(size, 1)))
    count = total if wanted == "all" else min(total, wanted or few)
    taken = _read(task, model, names, count)
    leading = row_metrics(task, supervision)[0]
    labels = None if taken.labels is None else _labels(leading, taken.outputs, taken.labels)
    stream = io.BytesIO()
    np.savez_compressed(stream, **taken.arrays(labels))  # type: ignore[arg-type]
    kinds = {name: output.kind for name, output in supervision.by_output.items()}
    return Samples(stream.getvalue(), count, total, _rule(leading), leading.output or None, kinds)


@dataclass(frozen=True)
class _Taken:
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    labels: Arrays | None

    def arrays(self, labels: Arrays | None) -> dict[str, Array]:
        """All arrays by the names that they have in the file."""
        found = {f"input/{name}": array for name, array in self.inputs.items()}
        found |= {f"output/{name}": array for name, array in self.outputs.items()}
        own = self.labels if labels is None else labels
        if isinstance(own, dict):
            return found | {f"label/{name}": array for name, array in own.items()}
        return found if own is None else {**found, "label": own}


def _read(task: Task, model: ModelFile, names: tuple[str, ...], count: int) -> _Taken:
    split = SplitArrays.of(_Places(task.test, count))
    inputs = model.fitted(split.inputs)
    outputs = model.predict(inputs)
    return _Taken(inputs, dict(zip(names, outputs, strict=True)), split.labels)


class _Places:
    """Evenly spaced samples of a data set: it may be sorted by class."""

    def __init__(self, dataset: Any, count: int) -> None:
        self._dataset = dataset
        self._places = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> Any:
        return self._dataset[self._places[index]]

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        places = [self._places[index] for index in indices]
        if hasattr(self._dataset, "__getitems__"):
            return self._dataset.__getitems__(places)
        return [self._dataset[place] for place in places]


def _supervision(task: Task, taken: _Taken, implied: Collection[Implied]) -> Supervision:
    given: dict[str, torch.Tensor] = {
        name: torch.from_numpy(array) for name, array in taken.outputs.items()
    }
    outputs: Outputs = given
    if len(given) == 1:
        only = next(iter(given.values()))
        outputs = {task.ships[0]: only} if task.ships else only
    return Supervision.of(task, outputs, tuple(implied), samples_at(task.test, [0]))


def _labels(leading: RowMetric, outputs: Mapping[str, Array], labels: Arrays) -> Arrays | None:
    """The labels as ``run.py`` takes them; ``None`` where it does not work the metric out."""
    if _rule(leading) is None:
        return None
    own = leading.output if leading.output in outputs else next(iter(outputs))
    assert own is not None
    return leading.fitted(outputs[own].shape, labels)


def _rule(leading: RowMetric) -> str | None:
    if not isinstance(leading.metric, str):
        name = metric_name(leading.metric)
        return name if leading.metric is bits_per_token else None
    return leading.metric if leading.metric in _RULES else None
