"""A split of the task's data as arrays, as targets take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from compress.errors import DataError
from compress.modules.inputs import Inputs
from compress.task import Dataset
from compress.training.data import is_labeled, read
from compress.training.labels import one_label

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
        """Read the whole split once.

        Raises:
            DataError: its batches differ in shape.
        """
        batches = list(read(dataset, _READ_BATCH))
        inputs = _joined([batch.inputs for batch in batches])
        if not is_labeled(dataset):
            return cls(dataset, inputs, None)
        labels = [one_label(batch.labels).numpy() for batch in batches if batch.labels is not None]
        return cls(dataset, inputs, _concatenated(labels, "the labels"))

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
        parts = [part.numpy() for part in inputs if isinstance(part, Tensor)]
        return {"": _concatenated(parts, "the inputs")}
    named = [part for part in inputs if isinstance(part, dict)]
    return {
        name: _concatenated([part[name].numpy() for part in named], f"the input {name!r}")
        for name in first
    }


def _concatenated(parts: Sequence[Array], what: str) -> Array:
    shapes = dict.fromkeys(part.shape[1:] for part in parts)
    if len(shapes) > 1:
        one, other = (", ".join(map(str, ("n", *shape))) for shape in list(shapes)[:2])
        raise DataError(
            f"{what} of some batches have the shape ({one}), and of others ({other}): a model is "
            "deployed for one shape; pad sequences to one length (fields: {padding: 0}), or resize."
        )
    return np.concatenate(parts)
