"""The task ``npz``: arrays that ``numpy.savez`` wrote.

::

    x, y                                  split here; or inputs, labels
    train_x, train_y, test_x, test_y      split already; or x_train, ..., and validation_x, ...
    image, depth, label                   inputs by their names, with a label under a plain key

Nothing in the file is run, and it is read within half of this machine's memory.
"""

from __future__ import annotations

from pathlib import Path

from compress.errors import DataError
from compress.io.files import named
from compress.measure.arrays import read_arrays
from compress.task import Task
from compress.tasks.columns import Column, as_column, tables_of, task_of_tables

__all__ = ["make_task", "read_npz"]


def make_task(*, path: Path) -> Task:
    """The task: what is not split already has a tenth each set apart for validation and the test.

    Args:
        path: the file; samples are on the first axis of every array.

    Raises:
        DataError: no such file, a damaged one, or arrays that do not go together.
    """
    return task_of_tables("npz", tables_of(read_npz(path), path), path)


def read_npz(path: Path) -> dict[str, Column]:
    """The arrays of a file by name, as columns.

    Raises:
        DataError: no such file, a damaged one, or an array that has no samples.
    """
    columns = {}
    for name, array in read_arrays(path).items():
        if array.ndim == 0:
            raise DataError(
                f"{named(path)}: the array {named(name)} is one number; save arrays with samples "
                "on the first axis."
            )
        columns[name] = as_column(array, f"{named(path)}: the array {named(name)}")
    return columns
