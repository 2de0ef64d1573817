"""Batches of samples of about one length, without the padding that none of them needs.

Texts are padded to one length, and most of what a net computes of them may be padding. Batches of
similar lengths are cut to the longest of them. A pool of a few batches is sorted, not the whole
data set, and the batches of a pool come in any order, so that what is learned from stays shuffled
(bucketing, as in Khomenko et al. 2016, "Accelerating recurrent neural network training via sequence
bucketing and multi-GPU data parallelization").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from compress.modules.inputs import Inputs
from compress.modules.outputs import each_output
from compress.task import Dataset
from compress.training.labels import Labels

__all__ = [
    "cut",
    "cut_batch",
    "cut_inputs",
    "lengths_of",
    "longest_of",
    "padded_length",
    "similar_lengths",
]

_POOL = 32  # batches: with 32 texts in each, all but a few hundredths of the padding is gone


def lengths_of(dataset: Dataset) -> Tensor | None:
    """The length of each sample, ``(n,)``, where the data set has an attribute ``lengths``."""
    given = getattr(dataset, "lengths", None)
    return None if given is None else torch.as_tensor(given)


def longest_of(lengths: Tensor, samples: Tensor) -> int:
    """The longest of some samples; 1 where all are empty."""
    return max(1, int(lengths[samples].max()))


def padded_length(inputs: Inputs) -> int | None:
    """The length that inputs are padded to, their axis 1; ``None`` where they differ in it."""
    tensors = inputs.values() if isinstance(inputs, dict) else [inputs]
    sizes = {tensor.shape[1] for tensor in tensors if tensor.dim() > 1}
    return sizes.pop() if len(sizes) == 1 else None


def cut(tensor: Tensor, padded: int, length: int) -> Tensor:
    """A tensor without what is behind ``length`` on axis 1, where that is ``padded`` long."""
    if tensor.dim() < 2 or tensor.shape[1] != padded:
        return tensor
    return tensor[:, :length]


def cut_inputs(inputs: Inputs, padded: int, length: int) -> Inputs:
    """Inputs of which every tensor is :func:`cut`."""
    if isinstance(inputs, dict):
        return {name: cut(tensor, padded, length) for name, tensor in inputs.items()}
    return cut(inputs, padded, length)


def cut_batch(inputs: Inputs, labels: Labels | None, length: int) -> tuple[Inputs, Labels | None]:
    """Inputs, and labels of places, without what is behind ``length``."""
    padded = padded_length(inputs)
    if padded is None:
        return inputs, labels
    kept = None if labels is None else each_output(labels, lambda one: cut(one, padded, length))
    return cut_inputs(inputs, padded, length), kept


def similar_lengths(
    chunks: Sequence[Tensor], lengths: Tensor, generator: Callable[[int], torch.Generator]
) -> Iterable[Tensor]:
    """Chunks of the same sizes, in which samples of similar lengths are together.

    Args:
        chunks: the samples of each batch.
        lengths: of all samples, ``(n,)``.
        generator: for the order of the batches of a pool, by its number.
    """
    for number, start in enumerate(range(0, len(chunks), _POOL)):
        pool = list(chunks[start : start + _POOL])
        samples = torch.cat(pool)
        ordered = samples[lengths[samples].argsort(stable=True)]
        order = torch.randperm(len(pool), generator=generator(number))
        sizes = [len(pool[place]) for place in order.tolist()]
        parts: dict[int, Tensor] = dict(
            zip(order.tolist(), torch.split(ordered, sizes), strict=True)
        )
        yield from (parts[place] for place in range(len(pool)))
