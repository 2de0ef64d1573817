"""The candidates of a run's rows, read back from its folder as modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from compress.candidate import Architecture, Candidate, Inputs
from compress.errors import RecordError
from compress.record import Row
from compress.running.folder import RunFolder

__all__ = ["candidate_of", "check_candidate"]


def candidate_of(
    folder: Path, row: Row, example: Inputs, build: Callable[[Architecture | None], nn.Module]
) -> Candidate:
    """The candidate that a row of the run in ``folder`` is about; ``build`` makes its module.

    Raises:
        CheckpointError: a file is missing, damaged, or of another module.
        RecordError: it is not the one that the record describes.
    """
    place = RunFolder(folder).stage(row.index, row.stage) / "candidate"
    candidate = Candidate.load(place, example, build)
    check_candidate(candidate, row, place)
    return candidate


def check_candidate(candidate: Candidate, row: Row, place: Path) -> None:
    """See that a candidate that was read from ``place`` is the one that a row is about.

    Raises:
        RecordError: it is another.
    """
    if candidate.fingerprint != row.fingerprint:
        raise RecordError(
            f"{place}: it is not the candidate that the record describes; run the recipe again."
        )
