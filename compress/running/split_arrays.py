"""A split of the task's data as arrays, as targets take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from compress.measure.named_arrays import Array, Arrays, concatenated, joined
from compress.modules.inputs import Inputs, at_least_float32
from compress.task import Dataset
from compress.training.data import is_labeled, read, spread

__all__ = ["SplitArrays", "as_arrays"]

_READ_BATCH = 256


@dataclass(frozen=True)
class SplitArrays:
    """All samples of a split.

    Args:
        dataset: the split.
        inputs: by name; a single tensor under the empty name. Samples are on axis 0.
        labels: an array, or arrays by the names of the outputs that they are for; ``None`` where
            there are none. Samples are on axis 0.
    """

    dataset: Dataset
    inputs: Mapping[str, Array]
    labels: Arrays | None

    @classmethod
    def of(cls, dataset: Dataset) -> SplitArrays:
        """Read the whole split once.

        Raises:
            DataError: its batches differ in shape.
        """
        batches = list(read(dataset, _READ_BATCH))
        inputs = _joined([batch.inputs for batch in batches])
        if not is_labeled(dataset):
            return cls(dataset, inputs, None)
        labels = [as_arrays(batch.labels) for batch in batches if batch.labels is not None]
        return cls(dataset, inputs, joined(labels, "the labels"))

    @classmethod
    def spread(cls, dataset: Dataset, samples: int) -> SplitArrays:
        """At most ``samples`` of a split, evenly spaced.

        Raises:
            DataError: they differ in shape.
        """
        batch = spread(dataset, samples)
        labels = None if batch.labels is None else as_arrays(batch.labels)
        return cls(dataset, _joined([batch.inputs]), labels)

    def without_labels(self) -> SplitArrays:
        """The same, as if there were no labels."""
        return replace(self, labels=None)

    def first(self, samples: int) -> dict[str, Array]:
        """The inputs of the first ``samples``."""
        return {name: array[:samples] for name, array in self.inputs.items()}


def as_arrays(tensors: Tensor | dict[str, Tensor]) -> Arrays:
    """Outputs or labels of a batch as arrays: numbers of lower precision in float32."""
    if isinstance(tensors, dict):
        return {name: _array(tensor) for name, tensor in tensors.items()}
    return _array(tensors)


def _array(tensor: Tensor) -> Array:
    return np.asarray(at_least_float32(tensor).detach().cpu().numpy())


def _joined(inputs: Sequence[Inputs]) -> dict[str, Array]:
    # A single tensor goes under the empty name: a target feeds it to the only input there is.
    first = inputs[0]
    if isinstance(first, Tensor):
        parts = [part.numpy() for part in inputs if isinstance(part, Tensor)]
        return {"": concatenated(parts, "the inputs")}
    named = [part for part in inputs if isinstance(part, dict)]
    return {
        name: concatenated([part[name].numpy() for part in named], f"the input {name!r}")
        for name in first
    }
