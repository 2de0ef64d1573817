"""The parts of a folder of data: split already, or set apart here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from compress.tasks.arrays import ArrayDataset, split

__all__ = ["SHARE_APART", "VALIDATION", "parts_of"]

_SPLIT_SEED = 0
#: Of what is not split already, for validation and for the test each.
SHARE_APART = 0.1
#: What the folder for validation may be called.
VALIDATION = ("validation", "valid", "val")


def parts_of(
    folder: Path,
    read: Callable[[Path], ArrayDataset],
) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """What to train on, what is for validation, and what to test on.

    Where ``folder`` holds ``train`` and ``test``, they are these, and ``validation``, ``valid`` or
    ``val`` is where it is there; of all else a tenth each is set apart.

    Args:
        folder: of the data.
        read: makes a data set of a folder.

    Raises:
        DataError: as ``read`` has it, or too few samples for a split.
    """

    def is_there(name: str) -> bool:
        return os.path.isdir(folder / name)

    own = next(filter(is_there, VALIDATION), None) if is_there("train") else None
    if is_there("train") and is_there("test"):
        train, test = read(folder / "train"), read(folder / "test")
    else:
        whole = folder if own is None else folder / "train"
        train, test = split(read(whole), SHARE_APART, seed=_SPLIT_SEED)
    if own is not None:
        return train, read(folder / own), test
    train, validation = split(train, SHARE_APART, seed=_SPLIT_SEED)
    return train, validation, test
