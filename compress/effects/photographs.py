"""Real photographs that come with scikit-image and scikit-learn: 17 files of 16 scenes.

Nine scenes are in color: a portrait, a cat, a cup, a motorcycle (twice, by two lenses of a stereo
camera), a rocket, the deep sky, a retina, a temple and a flower. Seven are grey: a cameraman, a
clock, coins, the moon, bricks, grass and gravel. What the wheels have beside them are drawings,
text and what a microscope sees, which a camera's loop does not.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compress.errors import MissingExtra

__all__ = ["PHOTOGRAPHS", "Part", "Photograph", "PhotographName", "photograph"]

Part = Literal["train", "validation", "test"]
#: The names of :data:`PHOTOGRAPHS`.
PhotographName = Literal[
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "clock_motion",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "moon",
    "motorcycle_left",
    "motorcycle_right",
    "retina",
    "rocket",
    "china",
    "flower",
]


@dataclass(frozen=True)
class Photograph:
    """A photograph in an installed package.

    Args:
        name: of the file, less its suffix.
        package: that it comes with.
        inside: its place in the package.
        part: what it is for. Both views of one scene are in one part, and of each part some are in
            color.
    """

    name: str
    package: str
    inside: str
    part: Part = "train"

    @property
    def path(self) -> Path:
        """Its file.

        Raises:
            MissingExtra: the package is not installed, or lacks the file.
        """
        spec = importlib.util.find_spec(self.package)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            if (found := Path(place) / self.inside).is_file():
                return found
        raise MissingExtra(
            f"the photograph {self.name} comes with {_DISTRIBUTIONS[self.package]}, which is not "
            "installed here, or without its data: pip install 'compresskit[effects]'."
        )


_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def _skimage(file: str, part: Part = "train") -> Photograph:
    return Photograph(file.partition(".")[0], "skimage", f"data/{file}", part)


def _sklearn(file: str, part: Part = "train") -> Photograph:
    return Photograph(file.partition(".")[0], "sklearn", f"datasets/images/{file}", part)


PHOTOGRAPHS = (
    _skimage("astronaut.png"),
    _skimage("brick.png"),
    _skimage("camera.png", "validation"),
    _skimage("chelsea.png", "test"),
    _skimage("clock_motion.png"),
    _skimage("coffee.png", "validation"),
    _skimage("coins.png"),
    _skimage("grass.png"),
    _skimage("gravel.png"),
    _skimage("hubble_deep_field.jpg"),
    _skimage("moon.png", "test"),
    _skimage("motorcycle_left.png"),
    _skimage("motorcycle_right.png"),
    _skimage("retina.jpg"),
    _skimage("rocket.jpg", "test"),
    _sklearn("china.jpg"),
    _sklearn("flower.jpg", "test"),
)


def photograph(name: str) -> Photograph | None:
    """The photograph of a name, if there is one."""
    return next((one for one in PHOTOGRAPHS if one.name == name), None)
