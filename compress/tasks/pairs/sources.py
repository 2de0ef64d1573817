"""The photographs that pairs are made of: a folder of the user's, or what installed packages have.

Whatever Pillow reads is brought to red, green and blue in bytes: grey, palettes, CMYK, 16 bits, the
first of several frames. A file that cannot be read, or is too small, is left out and counted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.effects.photographs import PHOTOGRAPHS
from compress.errors import DataError
from compress.io.files import named
from compress.tasks.image_files import ImageFiles

__all__ = ["PARTS", "Photo", "Photos", "read_photographs", "read_photos"]

Array = np.ndarray[Any, Any]

PARTS = ("train", "validation", "test")
# What lies around a photograph that is too small has nothing of a camera's image.
_LEAST_SIDE = 32
# Of several photographs, a share for validation and for the test each.
_SHARE_APART = 0.15
_MOST_BYTES = 4 << 30
_FEWEST = 3


@dataclass(frozen=True)
class Photo:
    """A photograph: its name, and its pixels ``(height, width, 3)`` in bytes."""

    name: str
    pixels: Array

    @property
    def digest(self) -> str:
        """Of its pixels."""
        shape = str(self.pixels.shape).encode()
        return hashlib.blake2b(shape + self.pixels.tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Photos:
    """Photographs by what they are for: no photograph is in two parts.

    Args:
        parts: photographs for each of :data:`PARTS`.
        skipped: a clause for each file that was left out.
    """

    parts: Mapping[str, Sequence[Photo]]
    skipped: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """A sentence on what was left out, if anything was."""
        if not self.skipped:
            return None
        first, more = self.skipped[0], len(self.skipped) - 1
        others = f"; {more} more, such as {self.skipped[1]}" if more else ""
        count = len(self.skipped)
        return f"{count} file{'s' * (count > 1)} left out: {first}{others}"


def read_photographs(longest: int) -> Photos:
    """The photographs of installed packages (:mod:`compress.effects.photographs`).

    Raises:
        MissingExtra: a package is not installed.
    """
    parts: dict[str, list[Photo]] = {part: [] for part in PARTS}
    for one in PHOTOGRAPHS:
        files = ImageFiles(one.path.parent, longest, False, "photographs: ")
        parts[one.part].append(Photo(one.name, files.whole(one.path, longest)))
    return Photos(parts)


def read_photos(folder: Path, longest: int, task: str) -> Photos:
    """The photographs of a folder; of one with ``train`` and ``test`` these, else parts set apart.

    Args:
        folder: of the user's.
        longest: what longer sides are scaled down to.
        task: begins sentences.

    Raises:
        DataError: there is no such folder, or fewer photographs than parts.
    """
    files = ImageFiles(folder, longest, False, task)
    skipped: list[str] = []
    if all(os.path.isdir(folder / part) for part in PARTS):
        parts = {part: _read(files, folder / part, longest, skipped) for part in PARTS}
    else:
        parts = _divided(_read(files, folder, longest, skipped))
    photos = Photos(parts, tuple(skipped))
    if not all(parts.values()):
        count, note = sum(map(len, parts.values())), photos.note
        raise DataError(
            f"{task}{named(folder)} has {count} photograph{'s' * (count != 1)} that can be used, "
            f"and it takes {_FEWEST} or more, one each to train, to validate and to test on"
            f"{f' ({note})' if note else ''}."
        )
    return photos


def _read(files: ImageFiles, folder: Path, longest: int, skipped: list[str]) -> list[Photo]:
    photos, taken, seen = [], 0, set[str]()
    for path in files.images(folder):
        try:
            files.check_link(path)
            pixels = files.whole(path, longest)
        except DataError as error:
            skipped.append(str(error).removeprefix(files.task).removesuffix("."))
            continue
        height, width = pixels.shape[:2]
        photo = Photo(path.name, pixels)
        if min(height, width) < _LEAST_SIDE:
            skipped.append(f"{named(path)} has {width} by {height} pixels, below {_LEAST_SIDE}")
        elif (digest := photo.digest) in seen:
            # The same photograph twice would be seen in training and in the test.
            skipped.append(f"{named(path)} is the same photograph as another")
        else:
            seen.add(digest)
            photos.append(photo)
            taken += pixels.nbytes
        if taken > _MOST_BYTES:
            raise files.refusal(
                folder,
                f"has photographs that take more than {_MOST_BYTES >> 30} GiB of memory; give "
                "fewer, or a smaller size",
            )
    return photos


def _divided(photos: list[Photo]) -> dict[str, list[Photo]]:
    """At least one for validation and the test each, by the order of their contents.

    So that photographs which are added later move few of the others.
    """
    ordered = sorted(photos, key=lambda photo: photo.digest)
    apart = max(1, round(_SHARE_APART * len(photos)))
    if len(photos) < _FEWEST:
        return {"train": ordered, "validation": [], "test": []}
    test, validation, train = ordered[:apart], ordered[apart : 2 * apart], ordered[2 * apart :]
    return {"train": train, "validation": validation, "test": test}
