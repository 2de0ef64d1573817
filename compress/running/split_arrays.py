"""A split of the task's data as arrays, as targets take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from compress.modules.inputs import Inputs
from compress.task import Dataset
from compress.training.data import is_labeled, read

__all__ = ["SplitArrays"]

_READ_BATCH = 256

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SplitArrays:
    """All samples of a split.

    Args:
        dataset: the split.
        inputs: by name; a single tensor under the empty name. Samples are on axis 0.
        labels: ``None`` where there are none. Samples are on axis 0.
    """

    dataset: Dataset
    inputs: Mapping[str, Array]
    labels: Array | None

    @classmethod
    def of(cls, dataset: Dataset) -> SplitArrays:
        """Read the whole split once."""
        batches = list(read(dataset, _READ_BATCH))
        inputs = _joined([batch.inputs for batch in batches])
        if not is_labeled(dataset):
            return cls(dataset, inputs, None)
        labels = [batch.labels.numpy() for batch in batches if batch.labels is not None]
        return cls(dataset, inputs, np.concatenate(labels))

    def without_labels(self) -> SplitArrays:
        """The same, as if there were no labels."""
        return replace(self, labels=None)

    def first(self, samples: int) -> dict[str, Array]:
        """The inputs of the first ``samples``."""
        return {name: array[:samples] for name, array in self.inputs.items()}


def _joined(inputs: Sequence[Inputs]) -> dict[str, Array]:
    # A single tensor goes under the empty name: a target feeds it to the only input there is.
    first = inputs[0]
    if isinstance(first, Tensor):
        return {"": np.concatenate([part.numpy() for part in inputs if isinstance(part, Tensor)])}
    parts = [part for part in inputs if isinstance(part, dict)]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in first}
