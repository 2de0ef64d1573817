"""TensorBoard: a folder of event files for each run, beside those of other runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.tracking.tracker import Fact, missing

__all__ = ["TensorBoardTracker"]

_FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes below ``place``, a folder; without one, below ``tensorboard`` here.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """

    name = "tensorboard"

    def __init__(self, place: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("tensorboard", error) from error
        self._open: Any = SummaryWriter
        self._folder = Path(place or _FOLDER)
        self._writer: Any = None

    def begin(self, name: str, facts: Mapping[str, Fact]) -> None:
        """Begin a folder of its own for the run; the facts are a table among its texts."""
        run = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        self._writer = self._open(str(self._folder / run))
        rows = "\n".join(f"| {key} | {_cell(value)} |" for key, value in facts.items())
        self._writer.add_text("recipe", f"| setting | value |\n|---|---|\n{rows}", 0)
        self._writer.flush()

    def add(self, group: str, axis: str, step: int, values: Mapping[str, float]) -> None:
        """One scalar for each number, named ``group/number``; on disk when this returns."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    def end(self, status: str) -> None:
        """Close the files."""
        self._writer.add_text("status", status, 0)
        self._writer.close()


def _cell(value: Fact) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
