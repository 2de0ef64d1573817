"""Batches: how training and calibration read a task's data sets.

Training reads *seeded epochs*. An epoch seed fixes one shuffling, augmentation and mixing of the
whole data set, cut into batches: the same seed gives the same batches bit for bit. So a teacher's
outputs can be computed once per seed and re-used, with teacher and student always looking at the
same crop (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from compress.data.samples import collated, holds_label, in_float32, label_tensors, parted, reading
from compress.errors import DataError
from compress.modules.inputs import Inputs
from compress.task import Augment, Dataset, PairedAugment
from compress.training.labels import Labels
from compress.training.lengths import (
    cut_batch,
    lengths_of,
    longest_of,
    padded_length,
    similar_lengths,
)
from compress.training.mixup import Mix

__all__ = ["Batch", "SeededEpochs", "head", "is_labeled", "read", "samples_at", "spread"]

# Keeps the draws of mixing apart from those of augmenting.
_MIXING = 1
_POOLING = 2  # and those of the order of batches in a pool of similar lengths


@dataclass(frozen=True)
class Batch:
    """One batch, or this process's part of a global batch.

    Args:
        epoch_seed: with ``index`` it identifies the content, for one rank.
        index: place of the batch in its seeded epoch.
        inputs: one tensor, or tensors by name, with samples on axis 0.
        labels: ``(n, ...)``, or by the names of the outputs that they are for; ``None`` where the
            data set has none.
        weight: of this part in the mean over the global batch.
        global_size: samples of the global batch, over all ranks.
        mixed_targets: labels of the samples that were mixed in, like ``labels``; ``None`` where
            nothing was mixed or the labels were mixed themselves.
        lam: weight of ``labels`` in a loss on labels; ``mixed_targets`` have ``1 - lam``.
    """

    epoch_seed: int
    index: int
    inputs: Inputs
    labels: Labels | None
    weight: float = 1.0
    global_size: int = 0
    mixed_targets: Labels | None = None
    lam: float = 1.0


@dataclass(frozen=True)
class SeededEpochs:
    """Seeded epochs of a data set; see the module's docstring.

    Batches differ in size by one sample at most: the remainder of the division is spread over all
    of them, since a batch norm cannot use a last batch of one or two samples. Of every global batch
    each rank gets a part; parts differ by one sample at most, and a global batch with fewer than
    two samples for each rank is given to all ranks in full.

    Args:
        dataset: what is read.
        batch_size: the largest global batch.
        seed: of shuffling, augmentation and mixing.
        augment: changes the inputs of a batch, or inputs and labels; ``None`` leaves them.
        rank: whose part to give.
        world_size: number of ranks.
        mix: mixes the samples of a batch; ``None`` leaves them.
        by_length: whether samples of similar lengths share batches, which are cut to the longest of
            them; the data set then has ``lengths`` (:mod:`.lengths`).
    """

    dataset: Dataset
    batch_size: int
    seed: int
    augment: Augment | PairedAugment | None = None
    rank: int = 0
    world_size: int = 1
    mix: Mix | None = None
    by_length: bool = False

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.dataset) / self.batch_size)

    def batch_sizes(self) -> list[int]:
        """How many samples of each batch, by its index, this rank gets."""
        chunks = torch.tensor_split(torch.arange(len(self.dataset)), len(self))
        return [len(self._local(chunk)) for chunk in chunks]

    def batches(self, epoch_seed: int, order_seed: int | None = None) -> Iterator[Batch]:
        """The batches of one seeded epoch, the same at every call.

        Args:
            epoch_seed: fixes the content of every batch.
            order_seed: fixes the order in which batches come; ``None`` for that of their indices.

        Raises:
            DataError: inputs that cannot be augmented or mixed, or samples that make no batch.
        """
        chunks, lengths = self._chunks(epoch_seed), self._lengths
        order = list(range(len(chunks)))
        if order_seed is not None:
            generator = _generator(self.seed, order_seed + 1_000_003)
            order = torch.randperm(len(chunks), generator=generator).tolist()
        local = [self._local(chunks[i]) for i in order]
        loader = _loader(self.dataset, [samples.tolist() for samples in local])
        for index, samples, (inputs, labels) in zip(order, local, loader, strict=True):
            global_size = len(chunks[index])
            if lengths is not None:  # all ranks cut to the longest of the global batch
                inputs, labels = cut_batch(inputs, labels, longest_of(lengths, chunks[index]))
            is_part = len(samples) < global_size
            seeds = (index, self.rank) if is_part else (index,)
            if isinstance(self.augment, PairedAugment):
                generator = _generator(self.seed, epoch_seed, *seeds)
                inputs, labels = self.augment.pair(inputs, labels, generator)
            elif self.augment is not None:
                augmented = _one_tensor(inputs, "augment")
                inputs = self.augment(augmented, _generator(self.seed, epoch_seed, *seeds))
            weight = len(samples) / global_size if is_part else 1 / self.world_size
            batch = Batch(epoch_seed, index, inputs, labels, weight, global_size)
            yield batch if self.mix is None else self._mixed(batch, self.mix, seeds)

    def positions(self, epoch_seed: int) -> int:
        """How long all batches of an epoch are together, in samples times their length."""
        padded = padded_length(head(self.dataset, 1).inputs) or 1
        lengths = self._lengths
        return sum(
            len(chunk) * (padded if lengths is None else longest_of(lengths, chunk))
            for chunk in self._chunks(epoch_seed)
        )

    @property
    def _lengths(self) -> Tensor | None:
        return lengths_of(self.dataset) if self.by_length else None

    def _chunks(self, epoch_seed: int) -> Sequence[Tensor]:
        """The samples of each global batch, by its index."""
        shuffled = torch.randperm(len(self.dataset), generator=_generator(self.seed, epoch_seed))
        chunks, lengths = torch.tensor_split(shuffled, len(self)), self._lengths
        if lengths is None:
            return chunks

        def generator(pool: int) -> torch.Generator:
            return _generator(self.seed, epoch_seed, pool, _POOLING)

        return list(similar_lengths(chunks, lengths, generator))

    def _mixed(self, batch: Batch, mix: Mix, seeds: tuple[int, ...]) -> Batch:
        generator = _generator(self.seed, batch.epoch_seed, *seeds, _MIXING)
        mixed = mix(_one_tensor(batch.inputs, "mix"), batch.labels, generator)
        return replace(
            batch,
            inputs=mixed.inputs,
            labels=mixed.labels,
            mixed_targets=mixed.mixed_targets,
            lam=mixed.lam,
        )

    def _local(self, chunk: Tensor) -> Tensor:
        # Norms over a batch need two samples.
        is_divided = len(chunk) >= 2 * self.world_size
        return torch.tensor_split(chunk, self.world_size)[self.rank] if is_divided else chunk


def read(
    dataset: Dataset,
    batch_size: int,
    limit: int | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """The data set in its own order, without augmentation.

    Args:
        dataset: what is read.
        batch_size: samples in a batch; the last may have fewer.
        limit: the most samples to read; ``None`` for all.
        rank: the batches to give are ``rank``, ``rank + world_size``, ...
        world_size: number of ranks that share the batches.

    Raises:
        DataError: samples that make no batch.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    starts = range(0, count, batch_size)[rank::world_size]
    chunks = [list(range(start, min(start + batch_size, count))) for start in starts]
    for index, (inputs, labels) in enumerate(_loader(dataset, chunks)):
        yield Batch(0, index, inputs, labels)


def head(dataset: Dataset, samples: int) -> Batch:
    """The first ``samples`` of a data set as one batch."""
    return next(read(dataset, samples, samples))


def spread(dataset: Dataset, samples: int) -> Batch:
    """The samples at :func:`spread_places` as one batch."""
    inputs, labels = next(iter(_loader(dataset, [spread_places(dataset, samples)])))
    return Batch(0, 0, inputs, labels)


def spread_places(dataset: Dataset, samples: int) -> list[int]:
    """The places of at most ``samples`` samples, evenly spaced: data may be sorted by class."""
    count = min(samples, len(dataset))
    places: list[int] = torch.linspace(0, len(dataset) - 1, count).long().tolist()
    return places


def samples_at(dataset: Dataset, places: Sequence[int]) -> Inputs:
    """The inputs of the samples at some places, as one batch."""
    inputs: Inputs = next(iter(_loader(dataset, [places])))[0]
    return inputs


def is_labeled(dataset: Dataset) -> bool:
    """Whether the samples have a place for a label; some may have none all the same."""
    with reading("sample 0", dataset):
        return holds_label(dataset[0])


class _Collated(TorchDataset[Any]):
    # Gives DataLoader whole batches, by the data set's own fast path where it has one.
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> tuple[Inputs, Labels | None]:
        name, batch = type(self._dataset).__name__, None
        if hasattr(self._dataset, "__getitems__"):
            with reading(f"samples {indices[0]} to {indices[-1]}", self._dataset):
                batch = self._dataset.__getitems__(list(indices))
        # torch's own Subset has it too, and returns a list of single samples.
        if batch is None or isinstance(batch, list):
            samples = batch or [self._sample(place) for place in indices]
            inputs, labels = collated(samples, indices, name)
        else:
            inputs, labels = parted(batch, f"a batch of the {name}", is_batch=True)
        known = None if labels is None else label_tensors(labels, f"a batch of the {name}")
        return in_float32(inputs), known

    def _sample(self, place: int) -> Any:
        with reading(f"sample {place}", self._dataset):
            return self._dataset[place]


def _one_tensor(inputs: Inputs, what: str) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise DataError(f"{what} needs inputs that are one tensor, not a dictionary.")
    return inputs


def _loader(dataset: Dataset, chunks: Sequence[Sequence[int]]) -> DataLoader[Any]:
    # Its own generator: DataLoader would otherwise draw a worker seed from the global one.
    return DataLoader(
        _Collated(dataset),
        sampler=chunks,
        batch_size=None,
        generator=torch.Generator(),
    )


def _generator(*seeds: int) -> torch.Generator:
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 1_000_033 + seed + 1) % (2**63)
    return torch.Generator().manual_seed(mixed)
