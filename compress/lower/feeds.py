"""Batches of any size as what a model takes, be its batch static or free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from compress.inputs import Inputs
from compress.lower.graph import Array

__all__ = ["batches"]


def batches(data: Sequence[Inputs], session: Any) -> Iterator[tuple[dict[str, Array], int]]:
    """``data`` as feeds of the session's batch, and how many rows of each are new.

    Where the session's batch is free, each of ``data`` is one feed. A last batch that is too short
    is filled with the samples before it (or, if there are too few, by repeating them), and its new
    rows are the last ones.
    """
    fixed = session.get_inputs()[0].shape[0]
    for inputs in data:
        arrays = _arrays(inputs, session)
        count = len(next(iter(arrays.values())))
        size = fixed if isinstance(fixed, int) else count
        for start in range(0, count, size):
            stop = min(start + size, count)
            rows = np.arange(stop - size, stop) % count
            yield {name: array[rows] for name, array in arrays.items()}, stop - start


def _arrays(inputs: Inputs, session: Any) -> dict[str, Array]:
    if isinstance(inputs, Tensor):
        return {session.get_inputs()[0].name: inputs.detach().cpu().numpy()}
    return {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items()}
