"""Data sets that are tensors in memory, and splits of them.

Owns the fast path by which a whole batch is read at once. Knows nothing of particular data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.data.views import FirstSamples, InputsOnly
from compress.errors import DataError
from compress.modules.outputs import each_output
from compress.preprocessing import Fit, ImagePreprocessing
from compress.task import Dataset
from compress.training.labels import Labels

__all__ = [
    "ArrayDataset",
    "FormedImages",
    "ScaledImages",
    "first",
    "inputs_of",
    "normalized",
    "scaled",
    "split",
]

# Bytes from -1 to 1.
_SCALED = ImagePreprocessing(1, 1, highest=2.0, mean=(1.0,))


_Array = Tensor | np.ndarray[Any, Any]


class ArrayDataset:
    """Samples along the first dimension of ``inputs``, with ``labels`` where there are any.

    Labels are one array, or arrays by the name of the output that each is for.

    Raises:
        DataError: inputs and labels differ in number.
    """

    def __init__(self, inputs: _Array, labels: _Array | Mapping[str, _Array] | None = None) -> None:
        self.inputs = torch.as_tensor(inputs)
        self.labels: Labels | None = None
        if isinstance(labels, Mapping):
            self.labels = {name: torch.as_tensor(part) for name, part in labels.items()}
        elif labels is not None:
            self.labels = torch.as_tensor(labels)
        for part in self.labels.values() if isinstance(self.labels, dict) else [self.labels]:
            if part is not None and len(part) != len(inputs):
                raise DataError(
                    f"a data set needs a label for every input; got {len(inputs)} inputs and "
                    f"{len(part)} labels."
                )

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int, /) -> Tensor | tuple[Tensor, Labels]:
        """One sample: its input, or ``(input, label)``."""
        if self.labels is None:
            return self.inputs[index]
        return self.inputs[index], each_output(self.labels, lambda part: part[index])

    def __getitems__(self, indices: Sequence[int], /) -> Tensor | tuple[Tensor, Labels]:
        """One collated batch: inputs, or ``(inputs, labels)``."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        inputs = self.inputs.index_select(0, rows)
        if self.labels is None:
            return inputs
        return inputs, each_output(self.labels, lambda part: part.index_select(0, rows))

    def subset(self, indices: Sequence[int]) -> ArrayDataset:
        """A data set of these samples, in this order, with its own memory."""
        # Not by what a subclass makes of its samples.
        found = ArrayDataset.__getitems__(self, indices)
        return ArrayDataset(*found) if isinstance(found, tuple) else ArrayDataset(found)

    def without_labels(self) -> ArrayDataset:
        """The inputs alone, sharing memory."""
        return ArrayDataset(self.inputs)


class FormedImages:
    """Images kept as bytes ``(n, channels, height, width)``, and given as a form says."""

    def __init__(self, images: ArrayDataset, form: ImagePreprocessing) -> None:
        self._images = images
        self._form = form

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Any:
        """One sample: its input, or ``(input, label)``."""
        return self._given(self._images[index])

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        """One collated batch: inputs, or ``(inputs, labels)``."""
        return self._given(self._images.__getitems__(indices))

    def without_labels(self) -> FormedImages:
        """The images alone, sharing memory."""
        return FormedImages(self._images.without_labels(), self._form)

    def _given(self, batch: Tensor | tuple[Tensor, Labels]) -> Any:
        images = normalized(batch[0] if isinstance(batch, tuple) else batch, self._form)
        if self._form.layout == "hwc":
            images = images.movedim(-3, -1).contiguous()
        return (images, batch[1]) if isinstance(batch, tuple) else images


class ScaledImages:
    """Images kept as bytes, and given as numbers from -1 to 1 (:func:`scaled`)."""

    def __init__(self, images: ArrayDataset) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Tensor | tuple[Tensor, Labels]:
        return _scaled(self._images[index])

    def __getitems__(self, indices: Sequence[int], /) -> Tensor | tuple[Tensor, Labels]:
        return _scaled(self._images.__getitems__(indices))

    def without_labels(self) -> ScaledImages:
        """The images alone, sharing memory."""
        return ScaledImages(self._images.without_labels())


def scaled(
    height: int,
    width: int,
    channels: int,
    fit: Fit = "contain",
    *,
    upright: bool = False,
    draft: bool = False,
) -> ImagePreprocessing:
    """What makes the inputs that :class:`ScaledImages` gives, of image files."""
    return replace(
        _SCALED,
        height=height,
        width=width,
        channels=channels,
        fit=fit,
        upright=upright,
        draft=draft,
    )


def normalized(images: Tensor, by: ImagePreprocessing) -> Tensor:
    """Bytes ``(..., channels, height, width)`` as numbers, in memory of their own."""
    found = images.float().div_(by.divisor)
    if len(by.mean) == len(by.std) == 1:
        return found.sub_(by.mean[0]).div_(by.std[0])
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (by.mean, by.std))
    return found.sub_(mean).div_(std)


def inputs_of(dataset: Dataset) -> Dataset:
    """The data set without its labels; by its own ``without_labels`` where it has one."""
    own = getattr(dataset, "without_labels", None)
    inputs: Dataset = InputsOnly(dataset) if own is None else own()
    return inputs


def first(dataset: Dataset, count: int) -> Dataset:
    """The first ``count`` samples, or all of them where there are fewer."""
    if count >= len(dataset):
        return dataset
    if isinstance(dataset, ArrayDataset):
        return dataset.subset(range(count))
    own = getattr(dataset, "first", None)
    part: Dataset = own(count) if callable(own) else FirstSamples(dataset, count)
    return part


def split(
    dataset: ArrayDataset, size: int | float, *, seed: int
) -> tuple[ArrayDataset, ArrayDataset]:
    """Set samples apart at random: ``(the rest, the samples set apart)``, each in its old order.

    Where there is one integer label for each sample, every class gives its share.

    Args:
        dataset: what to divide; left as it is.
        size: a number of samples, or a share between 0 and 1.
        seed: the same seed gives the same split, with every version of every library.

    Raises:
        DataError: one of the two parts would be empty.
    """
    count = round(size * len(dataset)) if isinstance(size, float) else size
    if not 0 < count < len(dataset):
        raise DataError(
            f"a split must leave samples on both sides; got a size of {size} for a data set of "
            f"{len(dataset)} samples."
        )
    chosen = np.zeros(len(dataset), dtype=bool)
    chosen[_choice(dataset, count, seed)] = True
    apart, rest = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    return dataset.subset(rest.tolist()), dataset.subset(apart.tolist())


def _choice(
    dataset: ArrayDataset, count: int, seed: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    # The legacy generator: its stream is frozen for good (NumPy Enhancement Proposal 19).
    random = np.random.RandomState(seed)
    labels = dataset.labels
    if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
        return random.permutation(len(dataset))[:count]
    _, classes, sizes = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    members = (np.flatnonzero(classes == number) for number in range(len(sizes)))
    shares = _shares(sizes * count / len(dataset), count)
    return np.concatenate(
        [random.permutation(own)[:share] for own, share in zip(members, shares, strict=True)]
    )


def _shares(quotas: np.ndarray[tuple[int], np.dtype[np.float64]], total: int) -> list[int]:
    """Whole numbers near ``quotas`` that sum to ``total``, by largest remainder."""
    shares = np.floor(quotas).astype(int)
    largest = np.argsort(shares - quotas, kind="stable")[: total - shares.sum()]
    shares[largest] += 1
    return [int(share) for share in shares]


def _scaled(batch: Tensor | tuple[Tensor, Labels]) -> Tensor | tuple[Tensor, Labels]:
    if isinstance(batch, tuple):
        return normalized(batch[0], _SCALED), batch[1]
    return normalized(batch, _SCALED)
