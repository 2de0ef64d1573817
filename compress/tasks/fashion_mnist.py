"""The task ``fashion-mnist``: 28x28 grey images of clothing in ten classes.

Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms"; MIT license. 55,000 images to train on, 5,000 set apart from the published
training images for validation, and the published 10,000 to test on.

The four files are never downloaded unless asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from compress.config.fields import Flag
from compress.errors import DataError
from compress.preprocessing import ImagePreprocessing
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, normalized, split
from compress.tasks.augment import ShiftFlip
from compress.tasks.fetch import download as fetch
from compress.tasks.idx import IdxFile, read_idx

__all__ = ["ADDRESS", "CLASSES", "FILES", "cache_folder", "make_task"]

ADDRESS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
#: Training images and labels, test images and labels.
FILES = (
    IdxFile(
        "train-images-idx3-ubyte.gz",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    IdxFile(
        "train-labels-idx1-ubyte.gz",
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    IdxFile(
        "t10k-images-idx3-ubyte.gz",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    IdxFile(
        "t10k-labels-idx1-ubyte.gz",
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

_VALIDATION_SAMPLES = 5_000
_SPLIT_SEED = 0
# Mean and deviation of the training images, over 255.
_FORM = ImagePreprocessing(28, 28, channels=1, upright=False, mean=(0.2860,), std=(0.3530,))


def make_task(*, folder: Path | None = None, download: Flag = False, augment: Flag = True) -> Task:
    """The task, from the first place that has all four files.

    Args:
        folder: looked in first; then Debian's package, then the user's cache.
        download: fetch the files, about 30 MB, where no place has them: into ``folder``, or else
            into the cache.
        augment: shift training images by up to two pixels and mirror half of them.

    Raises:
        DataError: no place has the files, one is damaged, or the download fails.
        StorageError: a downloaded file cannot be written.
    """
    try:
        found = find(folder)
    except DataError:
        if not download:
            raise
        found = folder or cache_folder()
        fetch(FILES, ADDRESS, found)
    training, test = _pairs(found)
    train, validation = split(training, _VALIDATION_SAMPLES, seed=_SPLIT_SEED)
    return Task(
        name="fashion-mnist",
        train=_normalized(train),
        validation=_normalized(validation),
        test=_normalized(test),
        augment=ShiftFlip(shift=2, fill=_FORM.darkest, flip=True) if augment else None,
        classes=CLASSES,
        outputs="class-scores",
        preprocessing=_FORM,
    )


def find(folder: Path | None = None) -> Path:
    """The first place that has all four files: ``folder``, Debian's package, the user's cache.

    Raises:
        DataError: no place has them; the message says how to get them.
    """
    places = [place for place in (folder, DEBIAN_FOLDER, cache_folder()) if place is not None]
    for place in places:
        if not _missing(place):
            return place
    raise DataError(_how_to_get_it(places))


def cache_folder() -> Path:
    """Where downloads go: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "compresskit" / "fashion-mnist"


def _missing(folder: Path) -> list[str]:
    return [file.name for file in FILES if not os.path.isfile(folder / file.name)]


def _how_to_get_it(places: Sequence[Path]) -> str:
    looked = ", ".join(
        f"{place} (lacks {len(_missing(place))} of {len(FILES)} files)" for place in places
    )
    return (
        f"task fashion-mnist: the data set is not on this machine; looked in {looked}. Install it "
        "(`apt-get install dataset-fashion-mnist`), give the folder that holds its four files "
        "(`folder: ...`), or let it be downloaded (`download: true`, about 30 MB)."
    )


def _pairs(folder: Path) -> tuple[ArrayDataset, ArrayDataset]:
    """Training and test samples, as bytes."""
    arrays = [torch.tensor(read_idx(folder / file.name, file)) for file in FILES]
    images, labels, test_images, test_labels = arrays
    return ArrayDataset(images, labels.long()), ArrayDataset(test_images, test_labels.long())


def _normalized(dataset: ArrayDataset) -> ArrayDataset:
    return ArrayDataset(normalized(dataset.inputs.unsqueeze(1), _FORM), dataset.labels)
