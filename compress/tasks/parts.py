"""The parts of a folder of data: split already, or set apart here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from compress.tasks.arrays import ArrayDataset, split

__all__ = ["parts_of"]

_SPLIT_SEED = 0
_SHARE_APART = 0.1
_VALIDATION = ("validation", "valid", "val")


def parts_of(
    folder: Path,
    read: Callable[[Path], ArrayDataset],
    validation_names: Sequence[str] = _VALIDATION,
) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """What to train on, what is for validation, and what to test on.

    Where ``folder`` holds ``train`` and ``test``, they are these, and ``validation``, ``valid`` or
    ``val`` is where it is there; of all else a tenth each is set apart.

    Args:
        folder: of the data.
        read: makes a data set of a folder.
        validation_names: what the folder for validation may be called beside ``train``.

    Raises:
        DataError: as ``read`` has it, or too few samples for a split.
    """

    def is_there(name: str) -> bool:
        return os.path.isdir(folder / name)

    if is_there("train") and is_there("test"):
        train, test = read(folder / "train"), read(folder / "test")
    else:
        train, test = split(read(folder), _SHARE_APART, seed=_SPLIT_SEED)
    own = next(filter(is_there, validation_names), None)
    if own is not None and is_there("train"):
        return train, read(folder / own), test
    train, validation = split(train, _SHARE_APART, seed=_SPLIT_SEED)
    return train, validation, test
