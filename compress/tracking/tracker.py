"""Tracker: the seam that every experiment tracker fits behind, and how one is named."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol

from compress.errors import MissingExtra, RecipeError

__all__ = ["TRACKERS", "Fact", "Tracker", "missing", "tracker_of"]

Fact = str | int | float | bool

#: By the name on the command line, which is also that of the extra: the module and its class.
TRACKERS = {
    "mlflow": ("compress.tracking.mlflow", "MlflowTracker"),
    "tensorboard": ("compress.tracking.tensorboard", "TensorBoardTracker"),
    "wandb": ("compress.tracking.wandb", "WandbTracker"),
}


class Tracker(Protocol):
    """Keeps the numbers of one run. Whatever a call raises ends the tracking, never the run."""

    @property
    def name(self) -> str:
        """As in sentences about it."""
        ...

    def begin(self, name: str, facts: Mapping[str, Fact]) -> None:
        """A run of the recipe ``name`` begins; ``facts`` are what it is run with."""
        ...

    def add(self, group: str, axis: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a group at one step of its axis, such as a stage's losses after an epoch."""
        ...

    def end(self, status: str) -> None:
        """The run is over: ``done``, ``failed`` or ``interrupted``."""
        ...


def tracker_of(text: str) -> Tracker:
    """The tracker that ``KIND`` or ``KIND:PLACE`` names; it writes nothing before its run begins.

    Raises:
        RecipeError: there is no tracker of that kind.
        MissingExtra: its library is not installed.
    """
    kind, colon, place = text.partition(":")
    if kind not in TRACKERS or bool(colon) != bool(place):
        known = ", ".join(TRACKERS)
        raise RecipeError(
            f"a tracker is one of {known}, or one of them with a place as in mlflow:DIR; got "
            f"{text!r}."
        )
    module, name = TRACKERS[kind]
    made: Tracker = getattr(importlib.import_module(module), name)(place)
    return made


def missing(extra: str, error: ImportError) -> MissingExtra:
    """What to raise where a tracker's library cannot be imported."""
    return MissingExtra(
        f"tracking with {extra} needs a library that is not installed ({error}); pip install "
        f"'compresskit[{extra}]'."
    )
