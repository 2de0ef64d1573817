"""What a run deploys: one of its rows, the file that was measured, and what it was made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.cache import CacheEntry, DamagedEntry
from compress.errors import RecordError
from compress.io.files import named
from compress.measure.named_arrays import Array
from compress.record import Measurement, Record, Row
from compress.running.earlier_results import before_of, measured_manifest
from compress.ship import ShipRequest
from compress.ship.model_file import ModelFile
from compress.ship.request import choose

__all__ = ["Deployed"]

_DATA = ("train", "validation", "test", "calibration")


@dataclass(frozen=True)
class Deployed:
    """A row of a run.

    Args:
        folder: of the run.
        record: of the run.
        row: of the record.
        found: what was measured of it.
        model: the measured file, as the record describes it.
    """

    folder: Path
    record: Record
    row: Row
    found: Measurement
    model: Path

    @classmethod
    def of(
        cls, record: Record, folder: Path, row: int | None = None, target: str | None = None
    ) -> Deployed:
        """A row of a run, by its number; the one that is advised where there is none.

        Raises:
            RecordError: nothing was measured, no such row, or one whose file is gone or changed.
            RecipeError: no such target, or one whose files onnxruntime does not run.
        """
        choice = choose(record, folder, ShipRequest(row=row, target=target))
        return cls(folder, record, choice.row, choice.found, choice.model)

    @property
    def is_advised(self) -> bool:
        """Whether it is the row that would ship."""
        return choose(self.record, self.folder, ShipRequest(target=self.target)).row == self.row

    @property
    def target(self) -> str:
        """Where it was measured."""
        return self.found.target

    def is_same_file(self, other: Deployed) -> bool:
        """Whether the two rows are one file, bit for bit."""
        return self.found.artifact.sha256 == other.found.artifact.sha256

    def is_same_row(self, other: Deployed) -> bool:
        """Whether the two are one row of one run."""
        folders = [os.path.realpath(each.folder) for each in (self, other)]
        return folders[0] == folders[1] and self.row.index == other.row.index

    @property
    def data(self) -> dict[str, str]:
        """Digests of the splits that it was made and measured with, by name, as the run kept them.

        Those that a run did not keep, or that have no stable content, are absent.
        """
        path = measured_manifest(self.folder, self.row.index, self.row.stage, self.target)
        try:
            depends = before_of(CacheEntry.loads(path.read_bytes()))
        except (OSError, DamagedEntry):
            return {}
        return {name: digest for name in _DATA if isinstance(digest := depends.get(name), str)}

    def outputs(self, inputs: Mapping[str, Array]) -> list[Array]:
        """What the file gives for all samples, run by onnxruntime on this machine.

        Args:
            inputs: by name; a single tensor under the empty name. Samples are on axis 0.

        Raises:
            RecordError: it takes other inputs.
            LoweringError: onnxruntime cannot run it.
        """
        sizes = self.found.sizes
        model = ModelFile(self.model, sizes[0].batch if sizes else 1)
        names = [port.name for port in model.inputs]
        given = {names[0]: inputs[""]} if list(inputs) == [""] else dict(inputs)
        wanted = {port.name: port.shape[1:] for port in model.inputs}
        fits = set(wanted) <= set(given) and all(
            _fits(given[name].shape[1:], shape) for name, shape in wanted.items()
        )
        if not fits:
            takes, got = (
                ", ".join(f"{name} {('n', *map(str, shape))}" for name, shape in each.items())
                for each in (wanted, {name: array.shape[1:] for name, array in given.items()})
            )
            raise RecordError(
                f"{named(self.folder)}, row {self.row.index}: its file takes {_plain(takes)}, and "
                f"the task gives {_plain(got)}; runs that are compared have inputs of one form."
            )
        return model.predict(model.fitted({name: np.asarray(given[name]) for name in wanted}))


def _fits(given: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(given) == len(wanted) and all(
        isinstance(size, str) or own == size for own, size in zip(given, wanted, strict=True)
    )


def _plain(text: str) -> str:
    return text.replace("'", "")
