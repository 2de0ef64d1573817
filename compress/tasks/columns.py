"""Columns by name, as files have them: splits of them, and the data sets that they make.

Owns what names of columns say: the split that a column is of, and which are input and label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.data.fields import LABEL_KEYS
from compress.errors import DataError
from compress.io.files import named
from compress.preprocessing import ArrayPreprocessing
from compress.task import Dataset, Task
from compress.tasks.arrays import ArrayDataset, split

__all__ = ["ALIASES", "Column", "Columns", "as_column", "places_apart"]
__all__ += ["dataset_of", "numbered", "tables_of", "task_of_tables"]

#: Numbers; or what is no tensor: texts, sequences of different lengths, numbers some of which miss.
Column = Tensor | list[Any]

#: What splits are called, and what they are here.
ALIASES = {"train": "train", "validation": "validation", "valid": "validation"}
ALIASES |= {"val": "validation", "dev": "validation", "test": "test"}
_NAMES = "|".join(ALIASES)
_BEFORE, _BEHIND = re.compile(rf"({_NAMES})[_./-](.+)"), re.compile(rf"(.+)[_./-]({_NAMES})")
_INPUTS, _LABELS = frozenset({"x", "inputs"}), LABEL_KEYS | {"y"}
_SPLIT_SEED = 0
_SHARE_APART = 0.1
_MOST_CLASSES = 65_536


class Columns:
    """Samples that are dictionaries, with one value of each column.

    Args:
        columns: by name, all of one length.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """One sample."""
        return {name: column[index] for name, column in self.columns.items()}

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        """One collated batch; a list of samples where a column is no tensor."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        tensors = {
            name: column.index_select(0, rows)
            for name, column in self.columns.items()
            if isinstance(column, Tensor)
        }
        if len(tensors) == len(self.columns):
            return tensors
        return [self[index] for index in indices]

    def subset(self, indices: Sequence[int]) -> Columns:
        """A data set of these samples, in this order, with its own memory."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return Columns(
            {
                name: column.index_select(0, rows)
                if isinstance(column, Tensor)
                else [column[index] for index in indices]
                for name, column in self.columns.items()
            }
        )


def as_column(array: np.ndarray[Any, Any], where: str) -> Column:
    """An array as a column: numbers as a tensor, texts as a list.

    Raises:
        DataError: it is of neither.
    """
    if array.dtype.kind in "US":
        return [str(value) for value in array.tolist()]
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{where} is of the type {array.dtype}, and data are numbers; save it as such."
        )
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # In memory of its own: arrays of files may not be written to, or lie in another byte order.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def task_of_tables(
    name: str,
    tables: Mapping[str, Mapping[str, Column]],
    path: object,
    features: Sequence[str] = (),
) -> Task:
    """The task of some tables: of the splits, or of one that is split here.

    Args:
        name: of the task.
        tables: columns by name, by split; of one table under an empty name a tenth each is set
            apart for validation and the test, and where there is no validation, a tenth of train.
        path: what it was read from, for sentences.
        features: the names of the numbers of an input that is a vector.

    Labels that are texts are the names of classes, which are numbered in the order of the alphabet.

    Raises:
        DataError: columns that differ in length, no split to train or to test on, or none at all.
    """
    classes, tables = _numbered(tables, path)
    parts = {split: dataset_of(table, split, path) for split, table in tables.items()}
    if set(parts) == {""}:
        parts["train"], parts["test"] = _apart(parts.pop(""))
    missing = [split for split in ("train", "test") if split not in parts]
    if missing:
        there = ", ".join(parts)
        raise DataError(
            f"task {name}: {named(path)} has the split {there}, and none called {missing[0]}; save "
            "train and test, or all samples without a split, which are then split here."
        )
    if "validation" not in parts:
        parts["train"], parts["validation"] = _apart(parts["train"])
    return Task(
        name,
        parts["train"],
        parts["validation"],
        parts["test"],
        classes=classes,
        preprocessing=ArrayPreprocessing(tuple(features)),
    )


def _numbered(
    tables: Mapping[str, Mapping[str, Column]], path: object
) -> tuple[tuple[str, ...], Mapping[str, Mapping[str, Column]]]:
    """The names of the classes, where labels are texts, and the tables with their numbers."""
    found = {
        split: key
        for split, table in tables.items()
        for key in sorted(_LABELS & table.keys())
        if _are_texts(table[key])
    }
    if not found:
        return (), tables
    texts = {split: tables[split][key] for split, key in found.items()}
    names = sorted({text for column in texts.values() for text in column if text is not None})
    if len(names) > _MOST_CLASSES:
        raise DataError(
            f"{named(path)}: the column {named(next(iter(found.values())))} has {len(names):,} "
            f"different texts for labels, and at most {_MOST_CLASSES:,} classes are numbered; give "
            "numbers, or name the label's column."
        )
    number: dict[Any, int] = {name: place for place, name in enumerate(names)} | {None: -1}
    numbered = {
        split: {**tables[split], found[split]: torch.tensor([number[t] for t in column])}
        for split, column in texts.items()
    }
    return tuple(names), {**tables, **numbered}


def numbered(
    table: Mapping[str, Column], classes: Sequence[str], path: object
) -> dict[str, Column]:
    """The columns of a table, with the numbers of classes where its labels are their names.

    Raises:
        DataError: a text that is the name of no class.
    """
    found = dict(table)
    number: dict[Any, int] = {name: place for place, name in enumerate(classes)} | {None: -1}
    for key in sorted(_LABELS & table.keys()):
        texts = table[key]
        if not _are_texts(texts):
            continue
        if wrong := next((text for text in texts if text not in number), None):
            raise DataError(
                f"{named(path)}: the label {named(wrong)} is none of the task's classes, "
                f"{named(', '.join(classes) or 'of which there are none')}."
            )
        found[key] = torch.tensor([number[text] for text in texts])
    return found


def _are_texts(column: Column) -> bool:
    if isinstance(column, Tensor) or not any(value is not None for value in column):
        return False
    return all(value is None or isinstance(value, str) for value in column)


def tables_of(columns: Mapping[str, Column], path: object) -> dict[str, dict[str, Column]]:
    """Columns by split, where their names say it (``train_x``, ``x_train``); else one table.

    Raises:
        DataError: names of which some say a split, and some do not.
    """
    tables: dict[str, dict[str, Column]] = {}
    for name, column in columns.items():
        before, behind = _BEFORE.fullmatch(name), _BEHIND.fullmatch(name)
        split, own = "", name
        if before is not None:
            split, own = ALIASES[before[1]], before[2]
        elif behind is not None:
            split, own = ALIASES[behind[2]], behind[1]
        tables.setdefault(split, {})[own] = column
    if "" in tables and len(tables) > 1:
        raise DataError(
            f"{named(path)}: the names {', '.join(map(named, tables['']))} say no split, and "
            "others do; call them train_..., validation_... or test_..., or leave them out."
        )
    return tables


def places_apart(count: int, labels: Tensor | None = None) -> tuple[list[int], list[int]]:
    """The places of samples to keep, and of the tenth that is set apart.

    Raises:
        DataError: there are too few samples.
    """
    rest, apart = split(ArrayDataset(torch.arange(count), labels), _SHARE_APART, seed=_SPLIT_SEED)
    return rest.inputs.tolist(), apart.inputs.tolist()


def _apart(dataset: Any) -> tuple[Any, Any]:
    rest, apart = places_apart(len(dataset), _labels_of(dataset))
    return dataset.subset(rest), dataset.subset(apart)


def _labels_of(dataset: ArrayDataset | Columns) -> Tensor | None:
    if isinstance(dataset, ArrayDataset):
        return dataset.labels if isinstance(dataset.labels, Tensor) else None
    found = [dataset.columns[name] for name in sorted(LABEL_KEYS & dataset.columns.keys())]
    return found[0] if len(found) == 1 and isinstance(found[0], Tensor) else None


def dataset_of(table: Mapping[str, Column], split: str, path: object) -> Dataset:
    """The data set of a table: of a plain input and label as arrays, of others by name.

    Args:
        table: columns by name.
        split: that it is, for sentences; may be empty.
        path: what it was read from, for sentences.

    Raises:
        DataError: columns that differ in length, or have none.
    """
    sizes = {name: len(column) for name, column in table.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{named(name)} {size}" for name, size in sizes.items())
        of = f" of the split {split}" if split else ""
        raise DataError(
            f"{named(path)}: columns{of} differ in their number of samples ({listed}); save as "
            "many of each, with samples on the first axis."
        )
    if 0 in sizes.values():
        raise DataError(f"{named(path)}: there is no sample in it{split and f', split {split}'}.")
    inputs, labels = _INPUTS & table.keys(), _LABELS & table.keys()
    plain = [table[name] for name in (*inputs, *labels)]
    is_plain = len(inputs) == 1 and len(labels) <= 1 and len(plain) == len(table)
    if is_plain and all(isinstance(column, Tensor) for column in plain):
        return ArrayDataset(*plain)  # type: ignore[arg-type]
    return Columns(table)
