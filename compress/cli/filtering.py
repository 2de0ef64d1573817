"""An image filter as it is deployed: its file on images, with the time that each step takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import DataError, RecordError
from compress.io.files import named
from compress.preprocessing import ImagePreprocessing
from compress.tasks.image_files import ImageFiles

__all__ = ["DeployedFilter", "Steps", "as_bytes", "as_input", "middle_of", "pictures_of"]

Array = np.ndarray[Any, Any]

_WARM = 3


@dataclass
class Steps:
    """Seconds for each image: reading and scaling it, the net, and making bytes of the outputs."""

    before: list[float] = field(default_factory=list)
    net: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def add(self, before: float, net: float, after: float) -> None:
        """Note an image."""
        self.before.append(before)
        self.net.append(net)
        self.after.append(after)

    @property
    def medians(self) -> tuple[float, float, float]:
        """The median of each."""
        before, net, after = (statistics.median(x) for x in (self.before, self.net, self.after))
        return before, net, after


def as_input(pixels: Array) -> Array:
    """An image ``(height, width, 3)`` in bytes as ``(3, height, width)`` from 0 to 1."""
    found: Array = pixels.transpose(2, 0, 1).astype(np.float32) / 255
    return found


def as_bytes(image: Array) -> Array:
    """An image ``(3, height, width)`` from 0 to 1 as ``(height, width, 3)`` in bytes."""
    found: Array = np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0)
    return found


def middle_of(path: Path, size: int, asked: str = "demo: ") -> Array:
    """A picture's middle, ``(size, size, 3)`` in bytes.

    Args:
        path: of the picture.
        size: of a side, in pixels.
        asked: who asked for it, before what is wrong.

    Raises:
        DataError: it cannot be read as an image.
    """
    form = ImagePreprocessing(size, size, 3, fit="cover", upright=True)
    files = ImageFiles(path.parent, size, False, asked)
    found: Array = files.formed(path, form).permute(1, 2, 0).numpy()
    return found


def pictures_of(given: Path, asked: str) -> list[Path]:
    """A picture, or those of a folder.

    Args:
        given: the picture or the folder.
        asked: who asked for it, before what is wrong.

    Raises:
        DataError: there are none.
    """
    found = [given]
    if given.is_dir():
        found = ImageFiles(given, 1, False, asked).images(given)
    if not found or not found[0].is_file():
        raise DataError(f"{asked}{named(given)}: there is no picture; give one, or a folder.")
    return found


@dataclass(frozen=True)
class DeployedFilter:
    """A file of a run that makes an image of an image, in onnxruntime with one thread.

    Args:
        path: of the file.
    """

    path: Path

    @cached_property
    def size(self) -> int:
        """Side of its images in pixels.

        Raises:
            RecordError: it does not take one square image.
        """
        shape = self._image.shape
        if shape[0] != 1 or shape[1] != 3 or shape[2] != shape[3]:
            raise RecordError(
                f"{named(self.path)} takes {shape}, and it must be a file for one square image "
                "with three channels; run the recipe for a target with batch: 1."
            )
        return int(shape[2])

    @property
    def controls(self) -> tuple[str, ...]:
        """The names of its controls."""
        inputs = self._session.get_inputs()
        return tuple(one.name for one in inputs if one.name != self._image.name)

    def __call__(self, image: Array, controls: Mapping[str, float]) -> Array:
        """What it makes of an image ``(3, size, size)`` from 0 to 1, cut off at these."""
        feed = {self._image.name: image[None].astype(np.float32)}
        feed |= {name: np.full((1, 1), controls[name], np.float32) for name in self.controls}
        made: Array = self._session.run(None, feed)[0][0]
        return made.clip(0, 1)

    def on_file(self, path: Path, controls: Mapping[str, float], steps: Steps) -> list[Array]:
        """A picture's middle, and what is made of it, ``(size, size, 3)`` in bytes.

        Args:
            path: of the picture.
            controls: by name.
            steps: gets the time of each step.

        Raises:
            DataError: it cannot be read as an image.
        """
        times = [time.perf_counter()]
        shown = middle_of(path, self.size)
        image = as_input(shown)
        times.append(time.perf_counter())
        made = self(image, controls)
        times.append(time.perf_counter())
        in_bytes = as_bytes(made)
        times.append(time.perf_counter())
        before, net, after = (end - begin for begin, end in pairwise(times))
        steps.add(before, net, after)
        return [shown, in_bytes]

    def warm_up(self, controls: Mapping[str, float]) -> None:
        """Run it a few times, since the first runs are slower."""
        for _ in range(_WARM):
            self(np.zeros((3, self.size, self.size), np.float32), controls)

    @property
    def _image(self) -> Any:
        found = [one for one in self._session.get_inputs() if len(one.shape) == 4]
        outputs = self._session.get_outputs()
        if len(found) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 4:
            raise RecordError(f"{named(self.path)} makes no image of one image.")
        return found[0]

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self.path, options)
