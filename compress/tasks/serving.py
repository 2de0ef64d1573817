"""Serving samples: data of the form that a task's own are of, read for scoring alone.

A task says by its preprocessing how a file becomes an input, and here files become samples by that,
whatever the task:

::

    FOLDER/*.jpg, FOLDER/cat/*.jpg              images, or a folder of them for each class
    FOLDER/images/*.jpg, FOLDER/masks/*.png     with masks; with boxes: one *.json of COCO's
    FOLDER/state.json                           a split of a Hugging Face data set
    FILE.npz, FILE.parquet                      columns as the task has them, the label optional
    FILE.txt                                    a text on each line, for tasks of texts

An array of bytes in a file ``.npz`` is pictures, ``(n, height, width)`` or with channels behind,
where the task is one of images; any other is inputs as the model takes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.errors import DataError
from compress.io.files import named
from compress.preprocessing import (
    ArrayPreprocessing,
    ImagePreprocessing,
    TextPreprocessing,
)
from compress.task import Dataset, Task
from compress.tasks.arrays import ArrayDataset, FormedImages
from compress.tasks.coco_folder import CocoReader
from compress.tasks.columns import Column, dataset_of, numbered
from compress.tasks.datasets_folder import load_split
from compress.tasks.image_files import ImageFiles
from compress.tasks.language import encode, windows_of_all
from compress.tasks.mask_folder import read_masks
from compress.tasks.npz import read_npz
from compress.tasks.parquet import joined_features, read_columns
from compress.tasks.text import read_lines
from compress.tasks.tokens import tokenize, vocabulary_of

__all__ = ["read_serving", "with_served"]

_MOST_BYTES = 4 << 30


def read_serving(task: Task, path: Path, where: str, options: Mapping[str, Any]) -> Dataset:
    """The samples of a file or a folder, as the task's own are.

    Args:
        task: whose preprocessing and classes say what is in it.
        path: of the file or folder.
        where: begins sentences: ``task.serving``.
        options: of the task, of which ``label`` names a column.

    Raises:
        DataError: nothing there that can be read in the task's form.
        MissingExtra: a library that reads it is not installed.
    """
    where, form = f"{where}: ", task.preprocessing
    if path.suffix == ".npz" and not os.path.isdir(path):
        return _of_npz(task, path)
    if path.suffix == ".parquet" and not os.path.isdir(path):
        return _of_parquet(task, path, options)
    if os.path.isfile(path / "state.json"):
        split: Dataset = load_split(path)
        return split
    if isinstance(form, ImagePreprocessing) and not form.controls:
        return _of_folder(task, form, path, where)
    if isinstance(form, TextPreprocessing) and not os.path.isdir(path):
        return _of_texts(task, form, path, where)
    raise DataError(
        f"{where}{named(path)} is not of a form that is read for the task {task.name!r}: "
        f"{_taken(form)}, or give data sets in Python, as Task(..., serving=...)."
    )


def _taken(form: object) -> str:
    """What would do in place of a path that does not."""
    arrays = "give a file .npz with the inputs as the model takes them"
    if isinstance(form, TextPreprocessing):
        return f"give a text file with a text on each line, or {arrays.removeprefix('give ')}"
    if isinstance(form, ArrayPreprocessing):
        return "give a file .npz or .parquet with the columns of the task's own data"
    return arrays


# -- images -----------------------------------------------------------------------------------


def _of_folder(task: Task, form: ImagePreprocessing, path: Path, where: str) -> Dataset:
    files = ImageFiles(path, form.height, form.channels == 1, where)
    inside = [each.name for each in files.listed(path)]
    if {"images", "masks"} <= set(inside):
        return FormedImages(read_masks(files, path, len(task.classes)), form)
    if any(name.lower().endswith(".json") for name in inside):
        reader = CocoReader(files)
        boxes = reader.dataset(path)
        if (own := tuple(reader.classes.values())) != task.classes:
            raise files.refusal(
                path,
                f"has the categories {named(', '.join(own))}, and the task's data have "
                f"{named(', '.join(task.classes))}",
            )
        return FormedImages(boxes, form)
    return FormedImages(_images(task, files, form), form)


def _images(task: Task, files: ImageFiles, form: ImagePreprocessing) -> ArrayDataset:
    """The images of a folder, or of one for each class, in the size of the form."""
    home, loose = files.home, files.images(files.home)
    folders = [each for each in files.listed(home) if os.path.isdir(each) and files.images(each)]
    if bool(loose) == bool(folders):
        found = "both images and folders of images" if loose else "no images"
        raise files.refusal(home, f"holds {found}; give images, or a folder of them for each class")
    found_images = [(image, -1) for image in loose]
    for folder in folders:
        if folder.name not in task.classes:
            raise files.refusal(
                folder,
                "is a folder of images and is called as no class of the task "
                f"({named(', '.join(task.classes) or 'it has none')}); give it the name of one, or "
                "images without labels in one folder",
            )
        files.check_link(folder)
        label = task.classes.index(folder.name)
        found_images += [(image, label) for image in files.images(folder)]
    pixels = _room(len(found_images), form, home)
    for place, (image, _) in enumerate(found_images):
        files.check_link(image)
        pixels[place] = files.formed(image, form)
    labels = torch.tensor([label for _, label in found_images]) if folders else None
    return ArrayDataset(pixels, labels)


def _room(count: int, form: ImagePreprocessing, home: Path) -> Tensor:
    shape = (form.channels, form.height, form.width)
    if count * int(np.prod(shape)) > _MOST_BYTES:
        raise DataError(
            f"{named(home)}: {count:,} images of {form.width} by {form.height} pixels would take "
            f"more than {_MOST_BYTES >> 30} GiB of memory; give fewer of them."
        )
    return torch.empty(count, *shape, dtype=torch.uint8)


# -- columns and texts ------------------------------------------------------------------------


def _of_npz(task: Task, path: Path) -> Dataset:
    dataset = dataset_of(numbered(read_npz(path), task.classes, path), "", path)
    form = task.preprocessing
    if isinstance(dataset, ArrayDataset) and isinstance(form, ImagePreprocessing):
        return _pictures(dataset, form, path)
    return dataset


def _pictures(dataset: ArrayDataset, form: ImagePreprocessing, path: Path) -> Dataset:
    """Bytes as pictures of the form; other numbers are inputs already."""
    pixels = dataset.inputs
    if pixels.dtype != torch.uint8:
        return dataset
    given = pixels.unsqueeze(-1) if pixels.dim() == 3 else pixels
    wanted = (form.height, form.width, form.channels)
    if tuple(given.shape[1:]) != wanted:
        raise DataError(
            f"{named(path)}: bytes are pictures, and those of the task are {wanted[0]} by "
            f"{wanted[1]} pixels with {wanted[2]} channel{'s' * (wanted[2] != 1)} behind; got the "
            f"shape {tuple(pixels.shape)}."
        )
    images = given.movedim(-1, 1).contiguous()
    return FormedImages(ArrayDataset(images, dataset.labels), form)


def _of_parquet(task: Task, path: Path, options: Mapping[str, Any]) -> Dataset:
    table: dict[str, Column] = read_columns(path)
    form, label = task.preprocessing, options.get("label")
    if isinstance(form, ArrayPreprocessing) and form.features:
        own = label if label in table else None
        table = joined_features(table, form.features, own, path)
    return dataset_of(numbered(table, task.classes, path), "", path)


def _of_texts(task: Task, form: TextPreprocessing, path: Path, where: str) -> Dataset:
    lines = read_lines(path)
    if form.characters:
        coded = [np.array(encode(line), dtype=np.uint8) for line in lines]
        return windows_of_all(coded, form.length, end=form.pad_id, where=f"{where}{named(path)}")
    assert form.tokenizer is not None
    if task.outputs == "tokens":
        vocabulary = vocabulary_of(form.tokenizer)
        return windows_of_all(
            vocabulary.encode(lines),
            form.length,
            end=vocabulary.end,
            where=f"{where}{named(path)}",
        )
    return tokenize(lines, form.tokenizer, form.length)


def with_served(
    task: Task, serving: Path | None, slices: Mapping[str, Path], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a task's fields become by samples in files: ``serving`` and ``slices``.

    Raises:
        DataError: as :func:`read_serving`.
    """
    found: dict[str, Any] = {}
    if serving is not None:
        found["serving"] = read_serving(task, serving, "task.serving", options)
    if slices:
        found["slices"] = {
            name: read_serving(task, path, f"task.slices.{name}", options)
            for name, path in slices.items()
        }
    return found
