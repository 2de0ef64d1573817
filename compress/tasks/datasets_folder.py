"""The task ``datasets-folder``: what ``save_to_disk`` of Hugging Face ``datasets`` wrote.

::

    FOLDER/dataset_dict.json, FOLDER/train/..., FOLDER/test/...     split already
    FOLDER/state.json, FOLDER/data-*.arrow                          split here

Loaded from disk alone (extra ``datasets``); no code is run, and no file outside of the folder is
read. Samples are dictionaries of columns, as tensors: the label has a plain key (``label``,
``labels``, ``target``, ``targets``), or a task's ``fields`` say which it is.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from compress.errors import DataError, MissingExtra, in_words
from compress.io.files import named, read_json
from compress.preprocessing import ArrayPreprocessing
from compress.task import Task
from compress.tasks.columns import ALIASES, places_apart

__all__ = ["load_split", "make_task"]

_MOST_JSON_BYTES = 64 << 20
_LISTS = ("_data_files", "_indices_data_files")


def make_task(*, folder: Path) -> Task:
    """The task: what is not split already has a tenth each set apart for validation and the test.

    Args:
        folder: the one that ``save_to_disk`` wrote.

    Raises:
        DataError: no such folder, or a damaged one.
        MissingExtra: datasets is not installed.
    """
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtra(
            "folders of Hugging Face datasets need datasets, which is not installed: pip install "
            "'compresskit[datasets]'."
        )
    parts = {_known(name): load_split(path) for name, path in _parts(folder).items()}
    if "train" not in parts:
        raise DataError(
            f"{named(folder)}: there is no split called train in it; it has {', '.join(parts)}."
        )
    for name in ("test", "validation"):
        if name not in parts:
            rest, apart = places_apart(len(parts["train"]))
            parts[name] = parts["train"].select(apart)
            parts["train"] = parts["train"].select(rest)
    splits = (parts["train"], parts["validation"], parts["test"])
    return Task("datasets-folder", *splits, preprocessing=ArrayPreprocessing())


def _parts(folder: Path) -> dict[str, Path]:
    """The folder of each split; one that is not split is of ``train``."""
    if os.path.isfile(folder / "dataset_dict.json"):
        listed = read_json(folder / "dataset_dict.json", _MOST_JSON_BYTES, DataError)
        names = listed.get("splits") if isinstance(listed, dict) else None
        if not isinstance(names, list) or not names or not all(map(_is_plain, names)):
            raise DataError(
                f"{named(folder / 'dataset_dict.json')}: it lists no splits; save the data again "
                "with save_to_disk."
            )
        return {name: folder / name for name in names}
    if not os.path.isfile(folder / "state.json"):
        raise DataError(
            f"{named(folder)}: this is no folder of a Hugging Face data set, which has "
            "dataset_dict.json or state.json; save one with d.save_to_disk(FOLDER)."
        )
    return {"train": folder}


def _known(name: str) -> str:
    return ALIASES.get(name, name)


def load_split(folder: Path) -> Any:
    """The data set of a folder that is not split, with samples as dictionaries of tensors.

    Raises:
        DataError: no such folder, or a damaged one.
    """
    state = read_json(folder / "state.json", _MOST_JSON_BYTES, DataError)
    for key in _LISTS:
        files = (state.get(key) if isinstance(state, dict) else None) or []
        if not isinstance(files, list) or not all(_is_file_entry(file) for file in files):
            raise DataError(
                f"{named(folder / 'state.json')}: it names files outside of its folder, or none; "
                "save the data again with save_to_disk."
            )
    import datasets

    try:
        found = datasets.Dataset.load_from_disk(str(folder.absolute()))
        return found.with_format("torch")
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(
            f"{named(folder)}: no folder of a Hugging Face data set that can be read "
            f"({named(in_words(error))})."
        ) from error


def _is_file_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and _is_plain(entry.get("filename"))


def _is_plain(name: Any) -> bool:
    """Whether it names something in a folder itself."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\0"} & {*name}
