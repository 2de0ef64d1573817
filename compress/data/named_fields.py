"""A data set whose samples are brought into the form that its fields say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from compress.data.fields import ABSENT, LABEL_KEYS, Fields, KeyPath, at_path, leaves, steps_of
from compress.data.padding import Padding
from compress.data.samples import collated, holds_label, parted, reading
from compress.data.views import FirstSamples
from compress.errors import DataError

__all__ = ["FieldsDataset", "unused_fields"]

_IDS = "input_ids"


class FieldsDataset:
    """Samples as ``inputs`` or ``(inputs, label)``, made of the samples of another data set.

    Where sequences are padded, samples are read one by one and batches made of them; else batches
    are made as the other data set makes them.

    Args:
        dataset: whose samples have any form.
        fields: which parts are inputs and label, and what is padded.
        length: of padded samples; ``None`` where :attr:`Fields.length` says it, or none are padded.
        is_labeled: whether to give the labels.
    """

    def __init__(
        self, dataset: Any, fields: Fields, length: int | None = None, is_labeled: bool = True
    ) -> None:
        self._dataset = dataset
        self._fields = fields
        self._length = fields.length if length is None else length
        self._is_labeled = is_labeled

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int, /) -> Any:
        """One sample: its inputs, or ``(inputs, label)``.

        Raises:
            DataError: a field that it does not have, or no sample.
        """
        where = f"sample {index} of the {type(self._dataset).__name__}"
        inputs, label, has_label = self._parts(self._dataset[index], where)
        if self._padding is not None and self._length is not None:
            inputs, label = self._padding.padded(inputs, label, self._length, where)
        return (inputs, label) if has_label else inputs

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        """One collated batch: inputs, or ``(inputs, labels)``."""
        name = type(self._dataset).__name__
        own = getattr(self._dataset, "__getitems__", None)
        batch = own(list(indices)) if own is not None and self._padding is None else None
        if batch is None or isinstance(batch, list):
            samples = [self[index] for index in indices] if batch is None else self._each(batch)
            inputs, labels = collated(samples, indices, name)
            return inputs if labels is None else (inputs, labels)
        where = f"a batch of the {name}"
        inputs, labels, has_label = self._parts(batch, where, is_batch=True)
        return (inputs, labels) if has_label else inputs

    @cached_property
    def lengths(self) -> Tensor | None:
        """The length of each sample before padding, ``(n,)``; ``None`` where none are padded."""
        if self._padding is None:
            return None
        found = [self._length_of(index) for index in range(len(self))]
        lengths = torch.tensor(found)
        return lengths if self._length is None else lengths.clamp(max=self._length)

    def at_length(self, length: int) -> FieldsDataset:
        """The same, with all samples padded to ``length``."""
        found = FieldsDataset(self._dataset, self._fields, length, self._is_labeled)
        if self.lengths is not None:
            vars(found)["lengths"] = self.lengths.clamp(max=length)  # every sample was read for it
        return found

    def first(self, count: int) -> FieldsDataset:
        """The first ``count`` samples."""
        part = FirstSamples(self._dataset, count)
        return FieldsDataset(part, self._fields, self._length, self._is_labeled)

    def without_labels(self) -> FieldsDataset:
        """The inputs alone."""
        return FieldsDataset(self._dataset, self._fields, self._length, is_labeled=False)

    def unused(self) -> list[str]:
        """The parts of the first sample that are neither inputs nor the label."""
        if self._fields.paths is None:
            return []
        sample = self._dataset[0]
        label = self._label_path(sample, "sample 0")
        plain = [] if label is None or isinstance(label, dict) else [label]
        used = [steps_of(path) for path in (*self._fields.used, *plain)]
        return [
            name
            for name in leaves(sample)
            if not any(name == ".".join(one) or name.split(".")[: len(one)] == one for one in used)
        ]

    def _each(self, samples: list[Any]) -> list[Any]:
        where = f"a sample of the {type(self._dataset).__name__}"
        found = [self._parts(sample, where) for sample in samples]
        return [(inputs, label) if has_label else inputs for inputs, label, has_label in found]

    def _parts(self, sample: Any, where: str, *, is_batch: bool = False) -> tuple[Any, Any, bool]:
        """The inputs, the label, and whether there is a place for one that is wanted."""
        paths = self._fields.paths
        if paths is None:
            pair = self._relabeled(sample, where)
            found = parted(pair, where, is_batch=is_batch)
            return (*found, self._is_labeled and holds_label(pair))
        inputs: Any
        if isinstance(paths, dict):
            inputs = {name: self._found(sample, path, where) for name, path in paths.items()}
        else:
            inputs = self._found(sample, paths, where)
        path = self._label_path(sample, where)
        label = None if path is None else self._label_at(sample, path, where)
        has_label = self._is_labeled and path is not None
        return (*parted((_listed(inputs), label), where, is_batch=is_batch), has_label)

    def _relabeled(self, sample: Any, where: str) -> Any:
        """A sample of which at most the label is said to be elsewhere."""
        path = self._fields.label
        if path is None:
            return sample
        label = self._label_at(sample, path, where)
        if not isinstance(sample, Mapping):
            raise DataError(
                f"{where} is no dictionary, and its fields say no inputs; say which part is what: "
                f"fields: {{inputs: {{NAME: 0}}, label: {_written(path)}}}."
            )
        taken = list(path.values()) if isinstance(path, dict) else [path]
        return {name: part for name, part in sample.items() if name not in taken}, label

    def _label_at(self, sample: Any, path: KeyPath | dict[str, KeyPath], where: str) -> Any:
        """The label at a path, or by name those that a sample has of several."""
        if not isinstance(path, dict):
            return self._found(sample, path, where)
        parts = {name: at_path(sample, one) for name, one in path.items()}
        found = {name: None if part is ABSENT else part for name, part in parts.items()}
        if all(part is ABSENT for part in parts.values()):
            self._found(sample, next(iter(path.values())), where)
        return found

    def _label_path(self, sample: Any, where: str) -> KeyPath | dict[str, KeyPath] | None:
        """Where the label is: as the fields say, or under a plain key; ``None`` where it is not."""
        if self._fields.label is not None or not isinstance(sample, Mapping):
            return self._fields.label
        names = sorted((LABEL_KEYS & sample.keys()) - set(self._fields.used))
        if len(names) > 1:
            raise DataError(
                f"{where} has both {names[0]!r} and {names[1]!r}, each of which may be its label; "
                f"say which: fields: {{label: {names[0]}}}."
            )
        return names[0] if names else None

    def _found(self, sample: Any, path: KeyPath, where: str) -> Any:
        part = at_path(sample, path)
        if part is ABSENT:
            there = ", ".join(leaves(sample)) or f"a {type(sample).__name__}"
            raise DataError(f"{where} has no field {path!r}; it has {there}.")
        return part

    def _length_of(self, index: int) -> int:
        assert self._padding is not None
        where = f"sample {index} of the {type(self._dataset).__name__}"
        with reading(f"sample {index}", self._dataset):
            inputs, _, _ = self._parts(self._dataset[index], where)
        return self._padding.length_of(inputs, where)

    @property
    def _padding(self) -> Padding | None:
        fields = self._fields
        if not fields.pads:
            return None
        if isinstance(fields.padding, dict):
            return Padding(None, fields.padding, fields.mask)
        if fields.padding is not None:
            return Padding(fields.padding, mask=fields.mask)
        own = getattr(self._dataset, "pad_id", None)  # as data sets of tokens have it
        if not isinstance(own, int):
            raise DataError(
                "fields ask for one length, and nothing says what samples are padded with; add "
                "padding: 0, or the number that pads them."
            )
        return Padding(None, {_IDS: own, "attention_mask": 0, "token_type_ids": 0}, fields.mask)


def unused_fields(dataset: Any) -> list[str]:
    """The parts of a data set's samples that are neither inputs nor label, where fields say so."""
    while not isinstance(dataset, FieldsDataset):
        dataset = getattr(dataset, "_dataset", None)
        if dataset is None:
            return []
    return dataset.unused()


def _written(path: KeyPath | dict[str, KeyPath]) -> str:
    if not isinstance(path, dict):
        return str(path)
    return f"{{{', '.join(f'{name}: {one}' for name, one in path.items())}}}"


def _listed(inputs: Any) -> Any:
    # A tuple at a path is not taken for a nested sample, but for a list of numbers.
    return list(inputs) if isinstance(inputs, tuple) else inputs
