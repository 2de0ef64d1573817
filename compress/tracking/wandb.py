"""Weights & Biases: a run on disk, for `wandb sync` to send; nothing is sent by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.tracking.tracker import Fact, missing

__all__ = ["WandbTracker"]

_PROJECT = "compresskit"


class WandbTracker:
    """Writes below ``place``, a folder; without one, where the library does (``wandb`` here).

    Offline, unless ``WANDB_MODE`` says otherwise.

    Raises:
        MissingExtra: wandb is not installed.
    """

    name = "wandb"

    def __init__(self, place: str) -> None:
        self._mode = os.environ.get("WANDB_MODE", "offline")
        if self._mode == "offline":
            # Else the library reports its own errors to its makers, offline or not.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb", error) from error
        self._wandb: Any = wandb
        self._folder = place or None
        self._run: Any = None
        self._groups: set[str] = set()

    def begin(self, name: str, facts: Mapping[str, Fact]) -> None:
        """Begin a run named after the recipe, with the facts as its configuration."""
        if self._folder is not None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=name,
            dir=self._folder,
            config=dict(facts),
            mode=self._mode,
            # What it would watch by itself would disturb what is measured, and is not asked for.
            settings=self._wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True
            ),
        )

    def add(self, group: str, axis: str, step: int, values: Mapping[str, float]) -> None:
        """One number for each, named ``group/number``, over the group's own axis."""
        if group not in self._groups:
            self._groups.add(group)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/{axis}")
        named = {f"{group}/{name}": value for name, value in values.items()}
        self._run.log({**named, f"{group}/{axis}": step})

    def end(self, status: str) -> None:
        """Finish the run, with an exit code that says whether it was done."""
        self._run.finish(exit_code=0 if status == "done" else 1)
