"""Parts of a data set of any kind: its first samples, or its inputs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.data.samples import parted

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FirstSamples", "InputsOnly"]


class FirstSamples:
    """The first ``count`` samples of a data set.

    ``torch.utils.data.Subset`` batches in a way of its own.
    """

    def __init__(self, dataset: Any, count: int) -> None:
        self._dataset = dataset
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> object:
        """One sample, as it is."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._dataset[index]

    @property
    def lengths(self) -> Tensor | None:
        """The length of each sample, where the data set has them."""
        lengths = getattr(self._dataset, "lengths", None)
        return None if lengths is None else lengths[: self._count]


class InputsOnly:
    """The inputs of a data set's samples; for those that have no way of their own."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int, /) -> object:
        """The inputs of one sample."""
        return parted(self._dataset[index], f"sample {index}")[0]

    @property
    def lengths(self) -> Tensor | None:
        """The length of each sample, where the data set has them."""
        lengths: Tensor | None = getattr(self._dataset, "lengths", None)
        return lengths
