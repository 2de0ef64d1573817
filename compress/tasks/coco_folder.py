"""The task ``coco-folder``: images of your own with boxes, as COCO's annotations say them.

::

    FOLDER/*.json, FOLDER/*.jpg                     one file of annotations; split here
    FOLDER/train/*.json, FOLDER/train/*.jpg, ...    split already: train and test, and validation,
                                                    valid or val where it is there

A file's images lie beside it, or in ``images`` beside it. They are scaled to fit into a square, the
rest of which is grey, and boxes with them. Boxes without an area and those of crowds are left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from compress.config.fields import Flag, Whole
from compress.errors import DataError, RecipeError
from compress.io.files import named, read_json
from compress.quoting import shown
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, ScaledImages
from compress.tasks.detection import DetectionLoss, MeanAveragePrecision
from compress.tasks.image_files import ImageFiles
from compress.tasks.parts import parts_of

__all__ = ["CocoReader", "make_task"]

_TASK = "task coco-folder: "
_MOST_BYTES, _MOST_VALUES = 1 << 30, 40_000_000
_MOST_BOXES = 500
_CELL = 8

Array = np.ndarray[Any, Any]


def make_task(
    *,
    folder: Path | None = None,
    size: Annotated[Whole, Field(ge=32, le=1024)] = 128,
    grey: Flag = False,
) -> Task:
    """The task: a tenth of what is not split already is set apart for validation, and for the test.

    Args:
        folder: with the annotations and the images, or with ``train`` and ``test``.
        size: images are scaled to fit into ``size`` by ``size`` pixels, a multiple of 8.
        grey: one channel instead of three.

    Raises:
        RecipeError: no folder is given, or a size that is no multiple of 8.
        DataError: the folder holds no annotations, or a file that cannot be read.
    """
    if folder is None:
        raise RecipeError(f"{_TASK}give the folder that holds annotations and images (`folder:`).")
    if size % _CELL:
        raise RecipeError(f"{_TASK}size must be a multiple of {_CELL}; got {size}.")
    files = ImageFiles(folder, size, grey, _TASK)
    read = CocoReader(files)
    train, validation, test = parts_of(folder, read.dataset)
    return Task(
        name="coco-folder",
        train=ScaledImages(train),
        validation=ScaledImages(validation),
        test=ScaledImages(test),
        metric=MeanAveragePrecision(size, size),
        further_metrics=(MeanAveragePrecision(size, size, overlap=0.5),),
        loss=DetectionLoss(size, size),
        classes=tuple(read.classes.values()),
        outputs={"boxes": "values", "scores": "independent-logits"},
        preprocessing=files.contain,
    )


@dataclass(frozen=True)
class _Image:
    """An image of a file of annotations."""

    path: Path
    width: int
    height: int
    boxes: Sequence[tuple[int, Sequence[float]]]


class CocoReader:
    """Reads files of annotations that have the same classes."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files
        self.classes: dict[int, str] = {}

    def dataset(self, folder: Path) -> ArrayDataset:
        """The images of a folder, with their boxes.

        Raises:
            DataError: no annotations, or other classes than in folders before.
        """
        if folder != self._files.home:
            self._files.check_link(folder)
        path = self._annotations(folder)
        table = _Table(
            path, read_json(path, _MOST_BYTES, DataError, where=_TASK, most_values=_MOST_VALUES)
        )
        classes = table.classes()
        if self.classes and classes != self.classes:
            given, wanted = (named(", ".join(each.values())) for each in (classes, self.classes))
            raise table.refusal(f"has the categories {given}, and other parts have {wanted}")
        self.classes = classes
        return self._read(table.images(folder))

    def _annotations(self, folder: Path) -> Path:
        found = [path for path in self._files.listed(folder) if path.suffix.lower() == ".json"]
        if len(found) != 1:
            names = f"{len(found)} ({named(', '.join(path.name for path in found))})"
            raise self._files.refusal(
                folder,
                f"must hold one file of annotations, *.json; it holds {names if found else 'none'}",
            )
        self._files.check_link(found[0])
        return found[0]

    def _read(self, images: Sequence[_Image]) -> ArrayDataset:
        numbers = {category: place for place, category in enumerate(self.classes)}
        most = max((len(image.boxes) for image in images), default=0)
        pixels = self._files.room(len(images))
        boxes = np.full((len(images), max(most, 1), 4), np.nan, np.float32)
        scores = np.full((len(images), max(most, 1)), -1, np.int64)
        for place, image in enumerate(images):
            self._files.check_inside(image.path)
            found = self._files.placed(image.path)
            if (found.width, found.height) != (image.width, image.height):
                raise self._files.refusal(
                    image.path,
                    f"has {found.width} by {found.height} pixels, and its annotations say "
                    f"{image.width} by {image.height}",
                )
            pixels[place] = found.pixels
            scale = np.array([found.across / found.width, found.down / found.height] * 2)
            for row, (category, corners) in enumerate(image.boxes):
                boxes[place, row] = np.array(corners) * scale
                scores[place, row] = numbers[category]
        return ArrayDataset(pixels, {"boxes": boxes, "scores": scores})


class _Table:
    """A file of annotations; every value in it is looked at before it is used."""

    def __init__(self, path: Path, content: Any) -> None:
        self.path = path
        self._content = content

    def refusal(self, problem: str) -> DataError:
        """What is raised of the file, as a sentence."""
        return DataError(f"{_TASK}{named(self.path)} {problem}.")

    def classes(self) -> dict[int, str]:
        """The names of the categories, by their ids, in the order of these."""
        found: dict[int, str] = {}
        for row in self._rows("categories"):
            name = row.get("name")
            if not isinstance(name, str):
                raise self.refusal(f"has a category without a name ({shown(row)})")
            found[self._id(row, "id", "categories")] = name
        if not found:
            raise self.refusal("has no categories")
        return dict(sorted(found.items()))

    def images(self, folder: Path) -> list[_Image]:
        """The images, each with the category and the corners of each of its boxes."""
        inner = folder / "images"
        home = inner if os.path.isdir(inner) else folder
        rows = {self._id(row, "id", "images"): row for row in self._rows("images")}
        boxes: dict[int, list[tuple[int, Sequence[float]]]] = {key: [] for key in rows}
        known = self.classes()
        for row in self._rows("annotations"):
            image = self._id(row, "image_id", "annotations")
            category = self._id(row, "category_id", "annotations")
            if image not in rows or category not in known:
                what = "image" if image not in rows else "category"
                raise self.refusal(
                    f"has an annotation of {what} {image if what == 'image' else category}, which "
                    "is not in it"
                )
            corners = self._corners(row, self._sides(rows[image]))
            if corners is not None:
                boxes[image].append((category, corners))
        for key, found in boxes.items():
            if len(found) > _MOST_BOXES:
                raise self.refusal(
                    f"has {len(found)} boxes in image {key}, and at most {_MOST_BOXES} are taken"
                )
        return [
            _Image(self._path(home, row), *self._sides(row), boxes[key])
            for key, row in rows.items()
        ]

    def _rows(self, name: str) -> list[Mapping[str, Any]]:
        rows = self._content.get(name) if isinstance(self._content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self.refusal(
                f"has no list {name!r} of objects, as COCO's annotations of boxes have"
            )
        return rows

    def _id(self, row: Mapping[str, Any], key: str, where: str) -> int:
        found = row.get(key)
        if type(found) is not int:
            raise self.refusal(f"has an entry of {where!r} whose {key!r} is no whole number")
        return found

    def _sides(self, row: Mapping[str, Any]) -> tuple[int, int]:
        width, height = (row.get(key) for key in ("width", "height"))
        if type(width) is not int or type(height) is not int or min(width, height) < 1:
            raise self.refusal("has an image without 'width' and 'height' in whole pixels")
        return width, height

    def _path(self, home: Path, row: Mapping[str, Any]) -> Path:
        name = row.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            raise self.refusal("has an image without a 'file_name'")
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise self.refusal(
                f"names the image {named(name)}, which is no path within its folder; give paths "
                "relative to the folder of the images"
            )
        return home / name

    def _corners(
        self, row: Mapping[str, Any], sides: tuple[int, int]
    ) -> tuple[float, float, float, float] | None:
        """The corners of a box within its image; ``None`` of a crowd, or of a box without area."""
        left, top, across, down = self._box(row)
        x0, x1 = (min(max(x, 0), sides[0]) for x in (left, left + across))
        y0, y1 = (min(max(y, 0), sides[1]) for y in (top, top + down))
        is_kept = x1 > x0 and y1 > y0 and not row.get("iscrowd")
        return (x0, y0, x1, y1) if is_kept else None

    def _box(self, row: Mapping[str, Any]) -> list[float]:
        box = row.get("bbox")
        if isinstance(box, list) and len(box) == 4:
            numbers = [float(one) for one in box if type(one) in (int, float)]
            if len(numbers) == 4 and all(map(math.isfinite, numbers)):
                return numbers
        raise self.refusal(
            f"has an annotation whose 'bbox' is {shown(box)}; it is the left and the upper edge, "
            "the width and the height, in pixels"
        )
