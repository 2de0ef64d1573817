"""Outputs and labels in numpy: one array, or arrays by the names of outputs. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.errors import DataError

__all__ = [
    "Array",
    "Arrays",
    "arrays_of",
    "by_names",
    "concatenated",
    "joined",
    "sample_count",
]

Array = np.ndarray[Any, Any]

#: What a model gives for some samples, or their labels: an array, or arrays by name, with samples
#: on axis 0.
Arrays = Array | dict[str, Array]


def by_names(arrays: Sequence[Array], names: Sequence[str]) -> Arrays:
    """What a file gives: its only array, or its arrays by the names of the model's outputs.

    Args:
        arrays: one for each output of the file, in order.
        names: of the outputs, in the same order; not needed for one.

    Raises:
        DataError: there are more arrays than names, or fewer.
    """
    if len(arrays) == 1:
        return arrays[0]
    if len(arrays) != len(names):
        listed = f" ({', '.join(names)})" if names else ""
        raise DataError(
            f"scoring: the file gives {len(arrays)} outputs, and the model has {len(names)}"
            f"{listed}; both must have the same ones."
        )
    return dict(zip(names, arrays, strict=True))


def arrays_of(arrays: Arrays) -> list[Array]:
    """All arrays."""
    return list(arrays.values()) if isinstance(arrays, dict) else [arrays]


def sample_count(arrays: Arrays, what: str) -> int:
    """How many samples there are.

    Args:
        arrays: of the same samples.
        what: they are, for the message.

    Raises:
        DataError: the arrays differ in that.
    """
    counts = sorted({len(array) for array in arrays_of(arrays)})
    if len(counts) != 1:
        listed = ", ".join(f"{len(array)} of {name}" for name, array in _named(arrays).items())
        raise DataError(f"scoring: {what} must be of the same samples; got {listed or 'none'}.")
    return counts[0]


def joined(parts: Sequence[Arrays], what: str = "the outputs") -> Arrays:
    """The samples of several batches, one after another.

    Args:
        parts: of the batches.
        what: they are, for the message.

    Raises:
        DataError: the batches differ in names or shape.
    """
    first = parts[0]
    if not isinstance(first, dict):
        return concatenated([part for part in parts if not isinstance(part, dict)], what)
    named = [part for part in parts if isinstance(part, dict)]
    for part in named:
        if part.keys() != first.keys():
            raise DataError(
                f"{what} of some batches are for {', '.join(first)}, and of others for "
                f"{', '.join(part)}; give all of them for every sample, with None or NaN where one "
                "is not known."
            )
    return {
        name: concatenated([part[name] for part in named], f"{what} for {name!r}") for name in first
    }


def concatenated(parts: Sequence[Array], what: str) -> Array:
    """Arrays one after another along axis 0.

    Args:
        parts: at least one.
        what: they are, for the message.

    Raises:
        DataError: they differ in shape.
    """
    shapes = dict.fromkeys(part.shape[1:] for part in parts)
    if len(shapes) > 1:
        one, other = (", ".join(map(str, ("n", *shape))) for shape in list(shapes)[:2])
        raise DataError(
            f"{what} of some batches have the shape ({one}), and of others ({other}): a model is "
            "deployed for one shape; pad sequences to one length (fields: {padding: 0}), or resize."
        )
    return np.concatenate(parts)


def _named(arrays: Arrays) -> dict[str, Array]:
    return arrays if isinstance(arrays, dict) else {"": arrays}
