"""Batches of any size as what a model takes, be its batch static or free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from compress.backends.onnx.graph import Array
from compress.errors import LoweringError
from compress.modules.inputs import Inputs, batch_size_of

__all__ = ["batches", "check_inputs", "cut", "head", "part"]


def batches(data: Sequence[Inputs], session: Any) -> Iterator[tuple[dict[str, Array], int]]:
    """``data`` as feeds of the session's batch, and how many rows of each are new (:func:`cut`).

    Where the session's batch is free, each of ``data`` is one feed.
    """
    ports = session.get_inputs()
    fixed, names = ports[0].shape[0], [port.name for port in ports]
    for inputs in data:
        yield from cut(inputs, names, fixed if isinstance(fixed, int) else batch_size_of(inputs))


def cut(inputs: Inputs, names: Sequence[str], size: int) -> Iterator[tuple[dict[str, Array], int]]:
    """``inputs`` as feeds of ``size`` samples for the model inputs ``names``.

    A last batch that is too short is filled with the samples before it (or, if there are too few,
    by repeating them); its new rows, whose number is given, are the last ones.
    """
    arrays = _arrays(inputs, names)
    count = batch_size_of(inputs)
    for start in range(0, count, size):
        stop = min(start + size, count)
        rows = np.arange(stop - size, stop) % count
        yield {name: array[rows] for name, array in arrays.items()}, stop - start


def head(inputs: Inputs, samples: int) -> Inputs:
    """The first ``samples`` of a batch."""
    return part(inputs, slice(samples))


def part(inputs: Inputs, rows: slice) -> Inputs:
    """Some samples of a batch, which they are views of."""
    if isinstance(inputs, dict):
        return {name: tensor[rows] for name, tensor in inputs.items()}
    return inputs[rows]


def check_inputs(inputs: Inputs, what: str) -> None:
    """Refuse a batch that says nothing: no samples, or values that are no numbers.

    Raises:
        LoweringError: says which of ``what`` it is.
    """
    tensors = inputs if isinstance(inputs, dict) else {"": inputs}
    for name, tensor in tensors.items():
        place = f"{what} input {name!r}" if name else f"{what} input"
        if not tensor.dim() or not len(tensor):
            raise LoweringError(
                f"the {place} has shape {tuple(tensor.shape)}, which holds no samples; pass at "
                "least one, on axis 0."
            )
        wrong = tensor.isnan().flatten(1).any(1) if tensor.dim() > 1 else tensor.isnan()
        if bool(wrong.any()):
            raise LoweringError(
                f"the {place} holds NaN in {int(wrong.sum())} of {len(tensor)} samples (the first "
                f"is {int(wrong.nonzero()[0])}), so that nothing can be compared; remove them."
            )


def _arrays(inputs: Inputs, names: Sequence[str]) -> dict[str, Array]:
    if isinstance(inputs, Tensor):
        return {names[0]: inputs.detach().cpu().numpy()}
    return {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items()}
