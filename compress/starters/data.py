"""Which task a path is for: a folder of images in one of its forms, a file of arrays, or code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.config.references import CodeReferences, is_reference
from compress.errors import CompressError, DataError
from compress.io.files import named
from compress.starters.code import reference_of
from compress.tasks import TASKS, TaskConfig, make_own_task, make_task

__all__ = ["IMAGE_FOLDER", "OwnData", "data_of", "training_samples"]

IMAGE_FOLDER = "image-folder"
_FORMS = (
    "--data is a folder of images (in a folder for each class, or without labels), one of images "
    "and masks, of images with COCO's JSON, or what save_to_disk wrote; a file .npz or .parquet; "
    "data.py:make_task for a function that makes a compress.Task; or a built-in task"
)
_PARTS = ("train", "test")


@dataclass(frozen=True)
class OwnData:
    """The task of a recipe.

    Args:
        task: its name.
        path: of the data, from the current folder; ``None`` where code or a built-in task has them.
        key: under which the task has the path.
        imports: modules that the recipe needs.
    """

    task: str
    path: Path | None = None
    key: str = "folder"
    imports: tuple[str, ...] = field(default=())

    def block(self, beside: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe's block, with the path as it is from the folder of the recipe."""
        path = {} if self.path is None else {self.key: relative(self.path, beside)}
        return {"name": self.task, **path, **options}


def relative(path: Path, folder: Path) -> str:
    """A path from the current folder as one from ``folder``; absolute ones stay."""
    if path.is_absolute():
        return path.as_posix()
    return Path(os.path.relpath(path, folder)).as_posix()


def data_of(given: str) -> OwnData:
    """The task that ``--data`` is for.

    Raises:
        DataError: nothing is there, or it is of no form that a task reads.
        CodeReferenceError: a file of code that cannot be named as a module.
    """
    if given in TASKS:
        return OwnData(given)
    reference = reference_of(given)
    if reference is not None and is_reference(reference):
        return OwnData(reference, imports=(reference.partition(":")[0],))
    if reference is not None:
        raise DataError(
            f"--data {named(given)}: say which function makes the task, such as {given}:make_task."
        )
    path = Path(given)
    if path.is_dir():
        task = _task_of_folder(path)
        return OwnData(task, path, "path" if task == "parquet" else "folder")
    suffix = path.suffix.lower()
    if path.is_file() and suffix in (".npz", ".parquet"):
        return OwnData(suffix.removeprefix("."), path, "path")
    if path.is_file() and suffix in (".csv", ".tsv"):
        columns = f"pandas.read_csv({path.name!r}{', sep=chr(9)' * (suffix == '.tsv')})"
        raise DataError(
            f"--data {named(given)}: text has no types of columns; write it once as Parquet: "
            f"{columns}.to_parquet({f'{path.stem}.parquet'!r})."
        )
    there = "there is no such file or folder" if not path.exists() else "no task reads such a file"
    raise DataError(f"--data {named(given)}: {there}; {_FORMS}.")


def training_samples(own: OwnData) -> tuple[int | None, list[str]]:
    """How many samples are trained on, of data in files or from code, and what to say of them.

    ``None`` for a built-in task, whose data are known, for data without a length, and for files
    that need more keys, of which a note tells.

    Raises:
        CompressError: code that makes no task.
    """
    if own.path is None and not own.imports:
        return None, []
    references = CodeReferences.of(own.imports).imported()
    try:
        config = TaskConfig(**own.block(Path(), {}))
        task = make_task(config) if config.own is None else make_own_task(config, references)
    except CompressError as error:
        if own.path is None:
            raise
        return None, [f"the data cannot be read as they are: {error}"]
    try:
        return len(task.train), []
    except TypeError:  # a stream
        return None, []


def _task_of_folder(folder: Path) -> str:
    names = set(_names(folder))
    inner = {f"{part}/{name}" for part in _PARTS for name in _names(folder / part)}
    for task, is_one in _FOLDERS.items():
        if is_one(names) or is_one({name.partition("/")[2] for name in inner}):
            return task
    return IMAGE_FOLDER


def _names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        yield from (name for name in os.listdir(folder) if not name.startswith("."))


def _has_json(names: set[str]) -> bool:
    return any(name.lower().endswith(".json") for name in names)


# In this order: what `save_to_disk` wrote holds JSON as well.
_FOLDERS: Mapping[str, Callable[[set[str]], bool]] = {
    "datasets-folder": lambda names: bool(names & {"dataset_info.json", "dataset_dict.json"}),
    "mask-folder": lambda names: {"images", "masks"} <= names,
    "coco-folder": _has_json,
    "parquet": lambda names: any(name.lower().endswith(".parquet") for name in names),
}
