"""Splits as people have them, brought into data sets that are read by index.

A data set with ``len(d)`` and ``d[i]`` stays as it is; what can only be gone through is read once
into memory, within bounds; of a ``DataLoader`` the data set is used, and its ``collate_fn`` where
that is its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from compress.data.fields import Fields
from compress.data.named_fields import FieldsDataset
from compress.data.samples import SAMPLE
from compress.data.views import FirstSamples
from compress.errors import CompressError, DataError, in_words
from compress.io.files import size_words

__all__ = ["IN_MEMORY", "CollatedDataset", "MemoryBounds", "adapted", "as_dataset"]

_END = object()
_INDEXED = f"give a data set with len(d) and d[i], where {SAMPLE}"


@dataclass(frozen=True)
class MemoryBounds:
    """What is read into memory at most."""

    samples: int
    bytes: int


IN_MEMORY = MemoryBounds(samples=1_000_000, bytes=4 << 30)


def adapted(
    splits: Mapping[str, Any],
    fields: Fields | None,
    where: str,
    served: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The splits of a task as data sets, with their samples in the form that fields say.

    Args:
        splits: by name; of any kind.
        fields: ``None`` leaves samples as they are.
        where: names the task, for sentences.
        served: samples of what will be served, likewise; what is deployed does not depend on them,
            so that they are cut to the length of the others.

    Raises:
        DataError: a split that is none; the message says what would do.
    """
    found = {
        name: as_dataset(split, f"{where}: the {name} split") for name, split in splits.items()
    }
    found |= {
        name: as_dataset(split, f"{where}: the {name} sample")
        for name, split in (served or {}).items()
    }
    if fields is None:
        return found
    named = {name: FieldsDataset(dataset, fields) for name, dataset in found.items()}
    if not fields.pads or fields.length is not None:
        return dict(named)
    # The length is a part of what is deployed: one for all splits.
    lengths = [named[name].lengths for name in splits]
    longest = max(int(each.max()) for each in lengths if each is not None)
    return {name: one.at_length(longest) for name, one in named.items()}


def as_dataset(split: Any, where: str, bounds: MemoryBounds = IN_MEMORY) -> Any:
    """A split as a data set with ``len(d)`` and ``d[i]``; itself where it is one.

    Args:
        split: a data set of any kind, a ``DataLoader``, or what can be gone through.
        where: names it, for sentences.
        bounds: of what is read into memory.

    Raises:
        DataError: it is no split, it is empty, or it does not fit into memory.
    """
    if isinstance(split, DataLoader):
        dataset = _of_loader(split, where, bounds)
    elif isinstance(split, IterableDataset) or not hasattr(split, "__getitem__"):
        dataset = _read_once(_iterated(split, where), where, bounds)
    else:
        _check_indexed(split, where)
        dataset = split
    if len(dataset) == 0:
        raise DataError(f"{where} is empty.")
    return dataset


class CollatedDataset:
    """A data set whose batches are made by a ``collate_fn`` of one's own.

    Args:
        dataset: read by index.
        collate: makes a batch of a list of its samples: inputs, ``(inputs, labels)`` or a
            dictionary.
    """

    def __init__(self, dataset: Any, collate: Any) -> None:
        self._dataset = dataset
        self._collate = collate

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int, /) -> Any:
        """One sample, out of a batch of it alone."""
        where = f"a batch of the {type(self._dataset).__name__}"
        return _rows(self.__getitems__([index]), where)[0]

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        """One batch."""
        samples = None
        if hasattr(self._dataset, "__getitems__"):
            samples = self._dataset.__getitems__(list(indices))
        if not isinstance(samples, list):
            samples = [self._dataset[index] for index in indices]
        batch = self._collate(samples)
        is_parts = isinstance(batch, list) and not _are_samples(batch)
        return tuple(batch) if is_parts else batch

    def first(self, count: int) -> CollatedDataset:
        """The first ``count`` samples."""
        return CollatedDataset(FirstSamples(self._dataset, count), self._collate)

    def without_labels(self) -> FieldsDataset:
        """The inputs alone."""
        return FieldsDataset(self, Fields(), is_labeled=False)


def _of_loader(loader: DataLoader[Any], where: str, bounds: MemoryBounds) -> Any:
    if isinstance(loader.dataset, IterableDataset) or not _is_plain(loader):
        batches = (_rows(batch, f"a batch of {where}") for batch in loader)
        return _read_once((sample for rows in batches for sample in rows), where, bounds)
    dataset = as_dataset(loader.dataset, where, bounds)
    if loader.collate_fn is default_collate:
        return dataset
    return CollatedDataset(dataset, loader.collate_fn)


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Whether the loader gives every sample of its data set once, in batches that say nothing."""
    sampler = loader.sampler
    is_whole = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    return is_whole and type(loader.batch_sampler) is BatchSampler


def _iterated(split: Any, where: str) -> Iterator[Any]:
    if isinstance(split, (str, bytes, Path)):
        raise DataError(
            f"{where} is a path, {str(split)!r}; {_INDEXED}, or name a task that reads files: npz, "
            "parquet, datasets-folder or image-folder."
        )
    if not isinstance(split, Iterable):
        raise DataError(
            f"{where} is a {type(split).__name__}, which can be read neither by index nor from "
            f"beginning to end; {_INDEXED}."
        )
    return iter(split)


def _check_indexed(split: Any, where: str) -> None:
    if isinstance(split, (str, bytes)):
        _iterated(split, where)
    columns = list(split.values()) if isinstance(split, Mapping) else split
    if _are_columns(columns):
        given = ", ".join(f"d[{k!r}]" for k in split) if isinstance(split, Mapping) else "*d"
        raise DataError(
            f"{where} is a {type(split).__name__} of {len(columns)} arrays of {len(columns[0])} "
            f"samples each; join them: torch.utils.data.TensorDataset({given}) of tensors."
        )
    if isinstance(split, Mapping) and 0 not in split:
        names = ", ".join(map(str, list(split)[:5]))
        raise DataError(
            f"{where} is a dictionary of {names}, not of samples; give one of its parts, such as "
            f"d[{next(iter(split), 'train')!r}]."
        )
    if hasattr(split, "iloc"):
        raise DataError(
            f"{where} is a {type(split).__name__}, whose d[i] is a column; give its rows, such as "
            "[(inputs, label), ...] or compress.tasks.arrays.ArrayDataset(inputs, labels)."
        )
    try:
        len(split)
    except TypeError:
        raise DataError(
            f"{where} is a {type(split).__name__}, which has no length; {_INDEXED}."
        ) from None


def _are_columns(parts: Any) -> bool:
    """Whether they are inputs and labels in an array each, and not samples."""
    if not isinstance(parts, (list, tuple)) or len(parts) not in (2, 3):
        return False
    if not all(isinstance(part, (Tensor, np.ndarray)) and part.ndim for part in parts):
        return False
    return len({len(part) for part in parts}) == 1 and len({part.shape for part in parts}) > 1


def _read_once(samples: Iterator[Any], where: str, bounds: MemoryBounds) -> list[Any]:
    """The samples in memory of their own: some yield the same array again and again."""
    found: list[Any] = []
    taken = 0
    while (sample := _next(samples, where)) is not _END:
        found.append(_copied(sample))
        taken += _bytes_of(sample)
        if len(found) > bounds.samples or taken > bounds.bytes:
            raise DataError(
                f"{where} can only be gone through, and is read once into memory for that; it has "
                f"more than {bounds.samples:,} samples or {size_words(bounds.bytes)}: {_INDEXED}."
            )
    return found


def _next(samples: Iterator[Any], where: str) -> Any:
    try:
        return next(samples, _END)
    except CompressError:
        raise
    except Exception as error:
        raise DataError(f"{where} cannot be read ({in_words(error)}).") from error


def _copied(sample: Any) -> Any:
    if isinstance(sample, Tensor):
        return sample.detach().clone()
    if isinstance(sample, np.ndarray):
        return sample.copy()
    if isinstance(sample, Mapping):
        return {name: _copied(part) for name, part in sample.items()}
    if isinstance(sample, (list, tuple)):
        parts = [_copied(part) for part in sample]
        return parts if isinstance(sample, list) else tuple(parts)
    return sample


def _bytes_of(sample: Any) -> int:
    if isinstance(sample, (Tensor, np.ndarray)):
        return int(sample.nbytes)
    if isinstance(sample, Mapping):
        return sum(map(_bytes_of, sample.values()))
    if isinstance(sample, (list, tuple)):
        return sum(map(_bytes_of, sample))
    return sys.getsizeof(sample)


def _rows(batch: Any, where: str) -> list[Any]:
    """The samples of a batch.

    Raises:
        DataError: it cannot be divided.
    """
    if isinstance(batch, (Tensor, np.ndarray)) and batch.ndim > 0:
        return list(batch)
    if isinstance(batch, Mapping):
        parts = [_rows(part, where) for part in batch.values()]
        return [dict(zip(batch, row, strict=True)) for row in _zipped(parts, where)]
    if isinstance(batch, (list, tuple)) and batch:
        if _are_samples(batch) or not isinstance(
            batch[0], (Tensor, np.ndarray, Mapping, list, tuple)
        ):
            return list(batch)
        return _zipped([_rows(part, where) for part in batch], where)
    raise DataError(
        f"{where} holds a {type(batch).__name__}, which cannot be divided into samples; give a "
        "collate_fn whose tensors have samples on their first axis."
    )


def _are_samples(batch: Any) -> bool:
    # Not [inputs, labels], as default_collate has it.
    return isinstance(batch, list) and all(isinstance(one, (tuple, Mapping)) for one in batch)


def _zipped(parts: list[list[Any]], where: str) -> list[tuple[Any, ...]]:
    sizes = [len(part) for part in parts]
    if len(set(sizes)) > 1:
        raise DataError(
            f"{where} has parts of {', '.join(map(str, sizes))} samples; give a collate_fn whose "
            "tensors all have samples on their first axis."
        )
    return list(zip(*parts, strict=True))
