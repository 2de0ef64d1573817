"""Making pairs, once: a file for each on disk, under a key of all that it depends on.

What is there already is kept, so that whoever is killed goes on where it was; several processes
that make the same pairs make the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import statistics
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import DataError
from compress.io.atomic import sweep, write_atomically
from compress.tasks.pairs.drawing import CONTROL_STEPS, VERSION, drawn_controls, drawn_image
from compress.tasks.pairs.sources import PARTS, Photo, Photos
from compress.tasks.pairs.teacher import ImageTeacher

__all__ = ["Arrays", "PairsDone", "PairsPlan", "PairsSize", "Report", "pairs_folder"]

Array = np.ndarray[Any, Any]
#: Images, the teacher's images and controls by name, of one part.
Arrays = tuple[Array, Array, dict[str, Array]]

_MOST_BYTES = 4 << 30
# The teacher's time is taken from so many of the last pairs of one size.
_RECENT = 50


@dataclass(frozen=True)
class PairsDone:
    """How far the making of pairs is, told after each.

    Args:
        done: pairs that are there.
        of: of so many.
        teacher_s: the median time of the teacher for an image of this size, in seconds.
        left_s: until all are there, in seconds.
    """

    done: int
    of: int
    teacher_s: float
    left_s: float


#: Called after each pair.
Report = Callable[[PairsDone], None]


@dataclass(frozen=True)
class PairsSize:
    """How many pairs there are, and how large.

    Args:
        size: of images of validation and test, in pixels: as they are deployed.
        crop: of images to train on.
        pairs: of each photograph to train on.
        frames: of each photograph of validation and test; with controls, times five for each.
        seed: of all that is drawn.
    """

    size: int
    crop: int
    pairs: int
    frames: int
    seed: int


@dataclass(frozen=True)
class _Pair:
    part: str
    photo: Photo
    place: int
    number: int

    @property
    def file(self) -> str:
        return f"{self.part}-{self.place:05d}-{self.number:05d}.npz"


def pairs_folder() -> Path:
    """Where pairs are kept: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "compresskit" / "pairs"


@dataclass(frozen=True)
class PairsPlan:
    """All pairs of a task, whether they are made already or not.

    Args:
        photos: that they are made of.
        teacher: makes their second images.
        controls: ranges by name.
        of: how many, and how large.
        root: below which they are kept.
    """

    photos: Photos
    teacher: ImageTeacher
    controls: Mapping[str, tuple[float, float]]
    of: PairsSize
    root: Path

    @cached_property
    def folder(self) -> Path:
        """Where these pairs are, by the key of all that they depend on."""
        facts = {
            "version": VERSION,
            "photos": {p: [one.digest for one in self.photos.parts[p]] for p in PARTS},
            "teacher": self.teacher.identity,
            "controls": {name: list(ends) for name, ends in self.controls.items()},
            "of": [self.of.size, self.of.crop, self.of.pairs, self.of.frames, self.of.seed],
        }
        content = json.dumps(facts, sort_keys=True).encode()
        return self.root / hashlib.blake2b(content, digest_size=16).hexdigest()

    @cached_property
    def pairs(self) -> list[_Pair]:
        """All pairs; a few of each part come first, so that a wrong teacher is known at once."""
        frames = self.of.frames * CONTROL_STEPS ** len(self.controls)
        found = [
            _Pair(part, photo, place, number)
            for part in PARTS
            for place, photo in enumerate(self.photos.parts[part])
            for number in range(self.of.pairs if part == "train" else frames)
        ]
        return sorted(found, key=lambda pair: (pair.number, PARTS.index(pair.part), pair.place))

    @property
    def missing(self) -> list[_Pair]:
        """The pairs that are not there yet."""
        there = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        return [pair for pair in self.pairs if pair.file not in there]

    def check_size(self) -> None:
        """Refuse more pairs than memory takes.

        Raises:
            DataError: there are more.
        """
        total = sum(6 * self._side(pair) ** 2 for pair in self.pairs)
        if total > _MOST_BYTES:
            raise DataError(
                f"task image-to-image: {len(self.pairs):,} pairs would take {total / 2**30:.1f} "
                f"GiB of memory, and {_MOST_BYTES >> 30} GiB is the limit; give fewer pairs, or a "
                "smaller crop."
            )

    def make(self, report: Report = lambda _: None) -> None:
        """Make the pairs that are missing.

        Args:
            report: told after each.

        Raises:
            DataError: the teacher failed, or returned no image of the size.
            StorageError: the disk refused.
        """
        missing = self.missing
        if not missing:
            return
        self.check_size()
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        done = len(self.pairs) - len(missing)
        seconds: dict[int, list[float]] = {}
        for number, pair in enumerate(missing, start=1):
            taken = self._make(pair)
            side = self._side(pair)
            seconds.setdefault(side, []).append(taken)
            left = sum(_expected(seconds, self._side(one)) for one in missing[number:])
            recent_s = statistics.median(seconds[side][-_RECENT:])
            report(PairsDone(done + number, len(self.pairs), recent_s, left))

    def arrays(self, part: str) -> Arrays:
        """The pairs of a part, made where they are missing or damaged: images ``(n, 3, h, w)``.

        Raises:
            DataError: as :meth:`make` has it.
            StorageError: the disk refused.
        """
        read = [self._read(pair) for pair in self._own(part)]
        images, made = (
            np.ascontiguousarray(np.stack([one[name] for one in read]).transpose(0, 3, 1, 2))
            for name in ("image", "made")
        )
        controls = {
            name: np.array([[float(one[f"control-{name}"])] for one in read], np.float32)
            for name in self.controls
        }
        return images, made, controls

    def photographs(self, part: str) -> list[int]:
        """Of which photograph each pair of a part is, by number, as :meth:`arrays` has them."""
        return [pair.place for pair in self._own(part)]

    @property
    def teacher_s(self) -> float | None:
        """The median time that the teacher took for an image of the deployed size, in seconds."""
        found = [
            float(self._read(pair)["seconds"])
            for pair in self.pairs
            if pair.part != "train" and (self.folder / pair.file).exists()
        ]
        return statistics.median(found) if found else None

    def _own(self, part: str) -> list[_Pair]:
        return sorted((pair for pair in self.pairs if pair.part == part), key=lambda one: one.file)

    def _side(self, pair: _Pair) -> int:
        return self.of.crop if pair.part == "train" else self.of.size

    def _seed(self, pair: _Pair) -> Sequence[int]:
        digest = hashlib.blake2b(pair.photo.digest.encode(), digest_size=4).digest()
        return (self.of.seed, int.from_bytes(digest, "big"), PARTS.index(pair.part), pair.number)

    def _make(self, pair: _Pair) -> float:
        """Make a pair and write its file; the seconds that the teacher took."""
        is_training, seed = pair.part == "train", self._seed(pair)
        # All values of the controls are seen on the same image.
        frame = pair.number if is_training else pair.number // CONTROL_STEPS ** len(self.controls)
        own = (*seed[:3], frame)
        image = drawn_image(pair.photo.pixels, self._side(pair), own, is_training=is_training)
        values = drawn_controls(self.controls, seed, pair.number, is_training=is_training)
        begin = time.perf_counter()
        made = self.teacher(image, values)
        seconds = time.perf_counter() - begin
        content = io.BytesIO()
        controls = {f"control-{name}": np.float64(value) for name, value in values.items()}
        arrays: dict[str, Any] = {"image": image, "made": made, **controls}
        arrays["seconds"] = np.float64(seconds)
        np.savez(content, allow_pickle=False, **arrays)
        write_atomically(self.folder / pair.file, content.getvalue())
        return seconds

    def _read(self, pair: _Pair) -> dict[str, Array]:
        path, side = self.folder / pair.file, self._side(pair)
        for is_again in (False, True):
            try:
                content = io.BytesIO(path.read_bytes())
                with np.load(content, allow_pickle=False) as file:
                    found = {name: file[name] for name in file.files}
                if {found[name].shape for name in ("image", "made")} == {(side, side, 3)}:
                    return found
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
                pass
            if not is_again:  # it is missing, or damaged
                self.folder.mkdir(parents=True, exist_ok=True)
                self._make(pair)
        raise DataError(f"task image-to-image: {path} cannot be read back; look at the disk.")


def _expected(seconds: Mapping[int, Sequence[float]], side: int) -> float:
    """How long the teacher will take, by what it took; of another size, by the number of pixels."""
    if side in seconds:
        return statistics.median(seconds[side][-_RECENT:])
    other, known = next(iter(seconds.items()))
    return statistics.median(known[-_RECENT:]) * (side / other) ** 2
