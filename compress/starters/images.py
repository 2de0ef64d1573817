"""How a net takes images: their size, their channels, and the numbers that pixels become.

Nothing in a file of weights says so. A trained net is asked: of the usual ways it is the first one
in which it gets the most of some images right. Where others do as well, the caller is told. A net
that is right in none may have its classes in another order than the folders have: the order in
which the most images are right is looked for, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from compress.errors import CompressError, RecipeError, in_words
from compress.modules.outputs import by_name
from compress.tasks.arrays import normalized
from compress.tasks.image_files import ImageFiles
from compress.tasks.image_folder import TASK, classes_of, normalization, training_folder
from compress.tasks.parts import SHARE_APART

__all__ = ["ImageForm", "LabeledFiles", "check_size", "form_for", "is_guessing", "labeled_files"]

#: What pixels become, by the words for it: mean and deviation of them as shares of 255.
NORMALIZATIONS: tuple[tuple[str, tuple[float, ...] | None, tuple[float, ...] | None], ...] = (
    ("pixels from -1 to 1", None, None),
    ("pixels from 0 to 1", (0.0,), (1.0,)),
    ("the mean and deviation of ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
_SIZES = (224, 128, 96, 64, 32, 28)
# Of nets that take one size only.
_OTHER_SIZES: tuple[int, ...] = (
    256,
    192,
    160,
    112,
    100,
    299,
    300,
    320,
    384,
    512,
    240,
    200,
    150,
    144,
    120,
    80,
    56,
)
_OTHER_SIZES += (50, 48, 40, 36, 24, 20, 16, 8)
_DEFAULT = 64
_CHANNELS = (3, 1)
_MOST_IMAGES = 32
_CHANCE = 1.5  # times that of guessing: less is no net that was trained on these labels
_SMALLEST, _LARGEST = 8, 1024


@dataclass(frozen=True)
class LabeledFiles:
    """Some images of a folder, of every class alike.

    Args:
        paths: of the images.
        labels: the class of each; empty without labels.
        classes: their names.
        training: of all images, about how many are trained on.
        test: how many the test will have.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    training: int
    test: int


@dataclass(frozen=True)
class ImageForm:
    """A form of images that a net takes.

    Args:
        size: of a side in pixels.
        channels: 3 or 1.
        normalization: place in :data:`NORMALIZATIONS`.
        outputs: that the net gave for an image.
        right: of the images, how many it got right; ``None`` where it was not asked.
        order: the classes in the order of the outputs, where that is not the order of the folders.
    """

    size: int
    channels: int = 3
    normalization: int = 0
    outputs: int = 0
    right: int | None = None
    order: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        grey = ", grey" if self.channels == 1 else ""
        return f"{self.size} x {self.size}{grey}, {NORMALIZATIONS[self.normalization][0]}"

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``image-folder``."""
        _, mean, std = NORMALIZATIONS[self.normalization]
        found: dict[str, Any] = {"size": self.size}
        if self.order:
            found["classes"] = [*self.order]
        if self.channels == 1:
            found["grey"] = True
        return found if mean is None or std is None else {**found, "mean": [*mean], "std": [*std]}


def labeled_files(folder: Path) -> LabeledFiles:
    """Some of the images in a folder.

    Raises:
        DataError: it holds no images, or they are in no order that is read.
    """
    files = ImageFiles(folder, _DEFAULT, False, TASK)
    home = training_folder(folder)
    classes = classes_of(files, home)
    each = [files.images(home / name) for name in classes] or [files.images(home)]
    # One of each class in turn, from the whole of its list.
    spread = [_spread(paths, math.ceil(_MOST_IMAGES / len(each))) for paths in each]
    chosen = [
        (path, label)
        for row in zip_longest(*spread)
        for label, path in enumerate(row)
        if path is not None
    ][:_MOST_IMAGES]
    labels = tuple(label for _, label in chosen) if classes else ()
    count = sum(map(len, each))
    given = _count(files, folder / "test", classes) if home != folder else 0
    test = given or round(count * SHARE_APART)
    if not test:
        raise files.refusal(
            folder,
            f"holds {count} image{'s' * (count != 1)}, too few to set a tenth apart for the test; "
            "give 20 at least, or folders train and test with some in both",
        )
    training = max(1, count - (0 if given else test) - round(count * SHARE_APART))
    return LabeledFiles(tuple(path for path, _ in chosen), labels, classes, training, test)


def _count(files: ImageFiles, folder: Path, classes: Sequence[str]) -> int:
    if not folder.is_dir():
        return 0
    return sum(len(files.images(folder / name)) for name in classes or (".",))


def check_size(size: int) -> None:
    """Refuse a size that no image is read at.

    Raises:
        RecipeError: it is too small, or too large.
    """
    if not 1 <= size <= _LARGEST:
        raise RecipeError(
            f"--size {size}: the side of images is a number of pixels from 1 to {_LARGEST:,}."
        )


def form_for(
    module: nn.Module, images: LabeledFiles, size: int | None, *, is_trained: bool
) -> list[ImageForm]:
    """The forms in which the net takes these images: the best one, and those that are as good.

    Args:
        module: in eval mode.
        images: of the user.
        size: of a side, where it is known.
        is_trained: whether what it gives says anything.

    Raises:
        RecipeError: it runs on none of them.
        DataError: an image cannot be read.
    """
    problems: list[str] = []
    found: list[ImageForm] = []
    for sizes in (_usual_sizes(images), _OTHER_SIZES) if size is None else ((size,),):
        for channels, given in product(_CHANNELS, sizes):
            try:
                found += _forms(module, images, given, channels, is_trained=is_trained)
            except CompressError:
                raise
            except Exception as error:
                problems.append(in_words(error))
        if found:
            break
    else:
        tried = f"{size} pixels" if size else "any usual size"
        raise RecipeError(
            f"the net runs on no square images of {tried} with 3 channels or with 1 "
            f"({problems[0]}); give the size that it takes as --size, or its data as code "
            "(docs/your-own.md)."
        )
    in_order = [form for form in found if not form.order]
    most = max(form.right or 0 for form in in_order)
    if is_guessing(most, images) and len(in_order) < len(found):
        in_order = [form for form in found if form.order]
        most = max(form.right or 0 for form in in_order)
    best = [form for form in in_order if (form.right or 0) == most]
    # One or two images more are chance: other sizes that do as well are named after the best.
    near = [form for form in in_order if most and most - 2 <= (form.right or 0) < most]
    return best + [form for form in near if form.size != best[0].size]


def is_guessing(right: int, images: LabeledFiles) -> bool:
    """Whether so many right of these images are hardly more than by guessing."""
    count = len(images.labels)
    return right * len(images.classes) < _CHANCE * count and right < count


def _usual_sizes(images: LabeledFiles) -> tuple[int, ...]:
    sides = _sides(images.paths)
    if len(set(sides)) == 1 and _SMALLEST <= sides[0] <= _LARGEST and sides[0] not in _SIZES:
        return (sides[0], *_SIZES)
    typical = sorted(sides)[len(sides) // 2]
    # First what images are scaled down to rather than up.
    down = [one for one in _SIZES if one <= typical]
    return (*down, *sorted(set(_SIZES) - set(down)))


def _sides(paths: Sequence[Path]) -> list[int]:
    """The shorter side of each image, as its file says it."""
    files = ImageFiles(paths[0].parent, _DEFAULT, False, TASK)
    return [min(files.extent(path)) for path in paths]


def _forms(
    module: nn.Module, images: LabeledFiles, size: int, channels: int, *, is_trained: bool
) -> list[ImageForm]:
    """The forms of one size, with their scores."""
    files = ImageFiles(images.paths[0].parent, size, channels == 1, TASK)
    one = torch.zeros(2, channels, size, size)
    outputs = _outputs(module, one)
    form = ImageForm(size, channels, outputs=outputs.shape[1] if outputs.dim() == 2 else 0)
    if not (is_trained and images.labels and form.outputs >= max(2, len(images.classes))):
        return [form]
    labels = torch.tensor(images.labels)
    given = torch.stack([files.covering(path) for path in images.paths])
    found = []
    for number, (_, mean, std) in enumerate(NORMALIZATIONS):
        if mean is not None and len(mean) not in (1, channels):
            continue
        logits = _outputs(module, normalized(given, normalization(files, mean, std)))
        given_as = logits.argmax(1)
        right = int((given_as == labels).sum())
        found.append(ImageForm(size, channels, number, form.outputs, right))
        if form.outputs == len(images.classes):
            found += _in_another_order(found[-1], images, given_as)
    return found


def _in_another_order(form: ImageForm, images: LabeledFiles, given_as: Tensor) -> list[ImageForm]:
    """The form with the order of classes in which the most is right, where that is clear."""
    votes = torch.zeros(form.outputs, form.outputs)
    votes.index_put_((given_as, torch.tensor(images.labels)), torch.ones(1), accumulate=True)
    outputs, labels = linear_sum_assignment(votes, maximize=True)
    right = int(votes[outputs, labels].sum())
    # Some order is right by chance more often than one of them: of two classes at least half.
    least = min(0.75, max(0.5, 2 / form.outputs)) * len(images.labels)
    if right < least or (outputs == labels).all():
        return []
    return [replace(form, right=right, order=tuple(images.classes[label] for label in labels))]


def _outputs(module: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        outputs = by_name(module(batch))
    return next(iter(outputs.values())).float()


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    step = max(1, len(paths) // most)
    return list(paths[::step][:most])
