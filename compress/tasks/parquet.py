"""The task ``parquet``: the columns of a Parquet file, or of one for each split.

::

    FILE.parquet                                     split here
    FOLDER/train.parquet, FOLDER/test.parquet        split already; validation.parquet is taken
                                                     where it is there

A column of numbers, or of lists of numbers, is an input by its name, and the label has a plain key
(``label``, ``labels``, ``target``, ``targets``); a task's ``fields`` say otherwise. Read by pyarrow
(extra ``datasets``), within bounds.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.config.fields import Name, Names
from compress.errors import CompressError, DataError, MissingExtra, in_words
from compress.io.files import named, opened, size_words
from compress.task import Task
from compress.tasks.columns import ALIASES, Column, as_column, task_of_tables

__all__ = ["joined_features", "make_task", "read_columns"]

_MOST_FILE_BYTES = _MOST_BYTES = 4 << 30
_MOST_ROWS = 10_000_000
_ROWS = 4_096


def make_task(*, path: Path, features: Names | None = None, label: Name | None = None) -> Task:
    """The task: what is not split already has a tenth each set apart for validation and the test.

    Args:
        path: the file, or a folder that has one for each split.
        features: columns of numbers that are one input together, a vector, in this order; with
            them other columns but the label are left out.
        label: the column with the label; without ``features``, a task's ``fields`` say it.

    Raises:
        DataError: no such file or folder, a damaged file, or columns that cannot be used.
        MissingExtra: pyarrow is not installed.
    """
    _check_installed()
    if label is not None and features is None:
        raise DataError(
            f"task parquet: label {label!r} is for features; write `features: [...]` as well, or "
            f"`fields: {{inputs: [...], label: {label}}}`."
        )
    tables = {split: read_columns(file) for split, file in _files(path).items()}
    if features is not None:
        tables = {
            split: joined_features(table, features, label, path) for split, table in tables.items()
        }
    return task_of_tables("parquet", tables, path, features or ())


def _check_installed() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra(
            "Parquet files need pyarrow, which is not installed: pip install "
            "'compresskit[datasets]'."
        )


def _files(path: Path) -> dict[str, Path]:
    if not os.path.isdir(path):
        return {"": path}
    named_so: dict[str, Path] = {}
    for name, split in ALIASES.items():
        if os.path.lexists(file := path / f"{name}.parquet"):
            named_so.setdefault(split, file)
    if not named_so:
        raise DataError(
            f"{named(path)}: there is no train.parquet and no test.parquet in this folder; give "
            "them these names, or the path of one file."
        )
    return named_so


def read_columns(path: Path) -> dict[str, Column]:
    """The columns of a file, by name.

    Raises:
        DataError: no such file, or one that cannot be read within bounds.
        MissingExtra: pyarrow is not installed.
    """
    _check_installed()
    import pyarrow.parquet

    with (
        opened(path, DataError, most_bytes=_MOST_FILE_BYTES) as stream,
        _one_sentence(path),
        pyarrow.parquet.ParquetFile(stream) as file,
    ):
        if file.metadata.num_rows > _MOST_ROWS:
            raise DataError(
                f"{named(path)}: it has {file.metadata.num_rows:,} rows, and at most "
                f"{_MOST_ROWS:,} are read."
            )
        batches, taken = [], 0
        for batch in file.iter_batches(_ROWS):
            taken += batch.nbytes
            if taken > _MOST_BYTES:
                raise DataError(
                    f"{named(path)}: it unfolds to more than {size_words(_MOST_BYTES)}, which is "
                    "the most that is read; leave columns or rows out."
                )
            batches.append(batch)
        table = pyarrow.Table.from_batches(batches, file.schema_arrow)
    return {
        name: _column(table.column(place), f"{named(path)}: the column {named(name)}")
        for place, name in enumerate(table.column_names)
    }


def _column(column: Any, where: str) -> Column:
    import pyarrow.types as types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if is_list:
        return _lists(column.to_pylist(), where)
    if column.null_count or not (
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    ):
        values: list[Any] = column.to_pylist()
        return [_missing_as_nan(value, kind) for value in values]
    return as_column(column.to_numpy(), where)


def _missing_as_nan(value: Any, kind: Any) -> Any:
    import pyarrow.types as types

    return float("nan") if value is None and types.is_floating(kind) else value


def _lists(values: list[Any], where: str) -> Column:
    """Lists of numbers: one tensor where they have one length, else a tensor for each."""
    try:
        arrays = [np.asarray(value) for value in values]
    except ValueError as error:
        raise DataError(
            f"{where} has lists of lists of different lengths; store them as one list each."
        ) from error
    wrong = next((each for each in arrays if each.dtype.kind not in "biuf"), None)
    if wrong is not None:
        raise DataError(f"{where} has lists of what is no number, or misses values.")
    kind = np.result_type(*{each.dtype for each in arrays}) if arrays else np.dtype("f4")
    kind = np.dtype("f4") if kind.kind == "f" else kind
    tensors = [torch.from_numpy(each.astype(kind)) for each in arrays]
    if len({each.shape for each in tensors}) == 1:
        return torch.stack(tensors)
    return list(tensors)


def joined_features(
    table: dict[str, Column], features: tuple[str, ...], label: str | None, path: Path
) -> dict[str, Column]:
    """One input of several columns, and the label.

    Args:
        table: columns by name.
        features: the columns of the input, in order.
        label: that of the label, if there is one.
        path: of the file, for sentences.

    Raises:
        DataError: a column that is not there, or holds no numbers.
    """
    for name in (*features, *([] if label is None else [label])):
        if name not in table:
            raise DataError(
                f"{named(path)}: there is no column {named(name)}; it has "
                f"{named(', '.join(table))}."
            )
    columns = [_numbers(table[name], name, path) for name in features]
    found: dict[str, Column] = {"x": torch.stack(columns, 1)}
    return found if label is None else {**found, "y": table[label]}


def _numbers(column: Column, name: str, path: Path) -> Tensor:
    if not isinstance(column, Tensor) or column.dim() != 1:
        raise DataError(
            f"{named(path)}: the column {named(name)} is not one number for each row, as features "
            "are; fill in what misses, number texts, or leave it out."
        )
    return column.float()


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Whatever a file of a stranger makes the library raise is of the file."""
    try:
        yield
    except (CompressError, MemoryError):
        raise
    except Exception as error:
        raise DataError(
            f"{named(path)}: no Parquet file that can be read ({named(in_words(error))})."
        ) from error
