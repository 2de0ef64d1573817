"""The task ``image-to-image``: a fast net learns the images that a slow teacher makes of images.

::

    task:
      name: image-to-image
      images: photographs               or a folder of photographs of your own
      teacher: {name: oil-paint}        or module:name with --import
      controls: {strength: [0, 1]}      numbers that the net gets beside the image

The teacher makes its images before the training, once, and ``compresskit pairs RECIPE`` does it by
itself. Labels are its images: a distill stage learns from them with ``teacher: {labels: true}``. No
photograph that is tested on is trained on, or chosen by.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from compress.config.fields import LARGEST_SEED, Flag, Name, Number, Whole
from compress.config.references import CodeReferences
from compress.effects.perceptual import perceptual as perceptual_distance
from compress.errors import RecipeError
from compress.preprocessing import Control, ImagePreprocessing
from compress.task import Task
from compress.tasks.arrays import inputs_of
from compress.tasks.pairs.dataset import MirroredPairs, PairDataset
from compress.tasks.pairs.making import PairsPlan, PairsSize, pairs_folder
from compress.tasks.pairs.sources import read_photographs, read_photos
from compress.tasks.pairs.teacher import ImageTeacherSettings

if TYPE_CHECKING:
    from compress.tasks import TaskConfig

__all__ = ["TASK_NAME", "make_task", "pairs_plan", "plan_of"]

#: As recipes have it.
TASK_NAME = "image-to-image"

_TASK = "task image-to-image: "
# Longer sides of photographs, as a multiple of the deployed size: more would never be seen.
_LONGEST = 4
_MOST_CONTROLS = 3
_LEAST_CROP = 32
_LARGEST = 1e6

_Size = Annotated[Whole, Field(ge=32, le=2048)]
_End = Annotated[Number, Field(ge=-_LARGEST, le=_LARGEST)]
_Controls = Annotated[dict[Name, tuple[_End, _End]], Field(min_length=1, max_length=_MOST_CONTROLS)]
_Count = Annotated[Whole, Field(ge=1, le=100_000)]
_Seed = Annotated[Whole, Field(ge=1, le=LARGEST_SEED)]


def make_task(
    *,
    images: Literal["photographs"] | Path | None = None,
    teacher: ImageTeacherSettings | None = None,
    size: _Size = 256,
    crop: _Size | None = None,
    pairs: _Count = 60,
    frames: _Count = 4,
    controls: _Controls | None = None,
    augment: Flag = True,
    perceptual: Flag = False,
    seed: _Seed = 1,
    references: CodeReferences | None = None,
) -> Task:
    """The task: of photographs that are not divided, 15 % each are for validation and the test.

    Args:
        images: ``photographs`` that come with scikit-image and scikit-learn (17 of 16 scenes), or a
            folder: of photographs, or with ``train``, ``validation`` and ``test``.
        teacher: what makes the images to learn, with its options.
        size: side of the images that the net is deployed on, validated and tested with, in pixels.
        crop: side of the images that it is trained on; half of ``size`` where not given.
        pairs: of each photograph to train on: parts of it, changed in color, by noise and by what
            stands before it.
        frames: of each photograph of validation and test: parts as they are. With controls, each is
            there five times, with the values that divide their ranges evenly.
        controls: the lowest and highest value of each number that teacher and net get beside the
            image, by name.
        augment: mirror half of the pairs in training.
        perceptual: score rows also by their distance to the teacher in features of a net (Zhang et
            al. 2018, :mod:`compress.effects.perceptual`), of which less is better.
        seed: of what is drawn of photographs and controls.
        references: the code that may be followed, for a teacher of one's own.

    Raises:
        RecipeError: no images or teacher are given, or a range that is none.
        DataError: too few photographs, or a teacher that returns no image of the size.
        MissingExtra: a package that the photographs or the teacher need is not installed.
    """
    given = pairs_plan(
        images=images,
        teacher=teacher,
        of=_size_of(size, crop, pairs, frames, seed),
        controls=controls or {},
        references=references or CodeReferences(),
    )
    given.make()
    train, validation, test = (_dataset(given, part) for part in ("train", "validation", "test"))
    return Task(
        name=TASK_NAME,
        train=train,
        validation=validation,
        test=test,
        metric="psnr",
        further_metrics=("ssim", perceptual_distance) if perceptual else ("ssim",),
        augment=MirroredPairs() if augment else None,
        # In training images are smaller, and ranges are of the graph that is deployed.
        calibration=inputs_of(validation),
        outputs="image",
        preprocessing=ImagePreprocessing(
            size,
            size,
            3,
            fit="cover",
            upright=True,
            controls=tuple(Control(name, *ends) for name, ends in (controls or {}).items()),
        ),
    )


def plan_of(config: TaskConfig, references: CodeReferences) -> PairsPlan | None:
    """The pairs of a recipe's task, none of which is made here; ``None`` of another task.

    Args:
        config: the task's block.
        references: the code that may be followed.

    Raises:
        CompressError: as :func:`pairs_plan` has it.
    """
    if config.name != TASK_NAME:
        return None
    defaults = {key: one.default for key, one in inspect.signature(make_task).parameters.items()}
    given = {**defaults, **config.options}
    numbers = (given[key] for key in ("size", "crop", "pairs", "frames", "seed"))
    return pairs_plan(
        images=given["images"],
        teacher=given["teacher"],
        of=_size_of(*numbers),
        controls=given["controls"] or {},
        references=references,
    )


def _size_of(size: int, crop: int | None, pairs: int, frames: int, seed: int) -> PairsSize:
    return PairsSize(size, crop or max(_LEAST_CROP, size // 2), pairs, frames, seed)


def pairs_plan(
    *,
    images: str | Path | None,
    teacher: ImageTeacherSettings | None,
    of: PairsSize,
    controls: dict[str, tuple[float, float]],
    references: CodeReferences,
) -> PairsPlan:
    """The pairs of a task, none of which is made here.

    Args:
        images: ``photographs``, or a folder.
        teacher: its settings.
        of: how many pairs, and how large.
        controls: ranges by name.
        references: the code that may be followed.

    Raises:
        RecipeError: no images or teacher are given, or a range that is none.
        DataError: too few photographs.
        MissingExtra: a package that photographs need is not installed.
    """
    if images is None or teacher is None:
        raise RecipeError(
            f"{_TASK}give images (`images: photographs`, or a folder) and a teacher (`teacher: "
            "{name: oil-paint}`)."
        )
    for name, (low, high) in controls.items():
        if not name.isidentifier() or name == "image":
            raise RecipeError(f"{_TASK}controls: {name!r} is no name of a control; give a word.")
        if not low < high:
            raise RecipeError(
                f"{_TASK}controls.{name}: a range is its lowest and its highest value, such as "
                f"[0, 1]; got [{low:g}, {high:g}]."
            )
    longest = _LONGEST * of.size
    if images == "photographs":
        photos = read_photographs(longest)
    else:
        photos = read_photos(Path(images), longest, _TASK)
    return PairsPlan(photos, teacher.build(references), controls, of, pairs_folder())


def _dataset(plan: PairsPlan, part: str) -> PairDataset:
    images, made, controls = plan.arrays(part)
    tensors = {name: torch.from_numpy(values) for name, values in controls.items()}
    return PairDataset(torch.from_numpy(images), torch.from_numpy(made), tensors)
