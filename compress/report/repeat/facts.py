"""Repeat: a recipe over seeds, the content of ``repeat.json``.

The names are fixed (schema 1), as those of a record are. What the numbers mean and how they come
about is in :mod:`.repeat`. No torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from compress.errors import RecordError
from compress.io.atomic import write_atomically
from compress.record import TaskFacts

__all__ = [
    "FEWEST_SEEDS",
    "REPEAT_NAME",
    "Choice",
    "Ends",
    "FailedSeed",
    "Range",
    "Repeat",
    "RepeatedMeasurement",
    "RepeatedRow",
    "Spread",
]

REPEAT_NAME = "repeat.json"
#: One run has no spread.
FEWEST_SEEDS = 2
Ends = tuple[float, float]


class _RepeatFacts(BaseModel):
    # Readers of newer files must not fail on names that were added since.
    model_config = ConfigDict(extra="allow", populate_by_name=True)


class Spread(_RepeatFacts):
    """A score, or a change of it, over the seeds, in the metric's own unit.

    ``values`` and ``own_ci95`` are the runs' own, in the order of the seeds. The three intervals
    are those of :mod:`.repeat`; the two about the test sample are ``None`` where a run has none.
    Student's may reach beyond what a rate can be.
    """

    values: list[float]
    own_ci95: list[Ends] | None
    mean: float
    sd_seeds: float
    ci95_seeds: Ends
    ci95_sample: Ends | None
    ci95: Ends | None


class Range(_RepeatFacts):
    """A quantity over the seeds, in its own unit: of each run, the median, least and most."""

    values: list[float]
    median: float
    low: float
    high: float


class RepeatedMeasurement(_RepeatFacts):
    """One row on one target; ``None`` is what a run lacks. ``change`` is to the baseline row.

    ``speedup`` is the baseline's time over this row's; bytes and seconds are as in a record, and so
    are the names of ``quantities``, a key that is absent without any.
    """

    target: str
    score: Spread | None = None
    change: Spread | None = None
    speedup: Range | None = None
    p50_s: Range | None = None
    artifact_bytes: Range | None = None
    model_peak_bytes: Range | None = None
    quantities: dict[str, Range] = {}

    @model_serializer(mode="wrap")
    def _without_empty_quantities(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        if not self.quantities:
            del content["quantities"]
        return content


class RepeatedRow(_RepeatFacts):
    """One row over the seeds. ``same_model``: no seed changed anything in it."""

    index: int
    stage: str
    kind: str
    same_model: bool
    measurements: list[RepeatedMeasurement] = []

    def on(self, target: str) -> RepeatedMeasurement | None:
        """The measurement on ``target``, if there is one."""
        return next((m for m in self.measurements if m.target == target), None)


class Choice(_RepeatFacts):
    """The row to ship to ``target`` by each run, and whether it meets the budget."""

    target: str
    rows: list[int]
    meets_budget: list[bool]


class FailedSeed(_RepeatFacts):
    """A run that is not in the numbers, and why."""

    seed: int
    error: str


class Repeat(_RepeatFacts):
    """The content of ``repeat.json``. ``recipe`` is the resolved one, without its seed."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: str
    recipe: dict[str, Any]
    seeds: list[int] = Field(min_length=FEWEST_SEEDS)
    failed: list[FailedSeed] = []
    task: TaskFacts
    baseline: int
    rows: list[RepeatedRow]
    choices: list[Choice] = []

    @property
    def targets(self) -> list[str]:
        """Names of the targets measured, in order of appearance."""
        return list(dict.fromkeys(m.target for row in self.rows for m in row.measurements))

    @property
    def misses_budget(self) -> bool:
        """Whether any run misses the budget on any target."""
        return not all(met for choice in self.choices for met in choice.meets_budget)

    def dumps(self) -> str:
        """JSON text with fixed names and a trailing newline."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"

    def save(self, folder: Path) -> None:
        """Write ``repeat.json`` in one step.

        Raises:
            StorageError: the disk refused; the previous file is intact.
        """
        write_atomically(folder / REPEAT_NAME, self.dumps())

    @classmethod
    def load(cls, folder: Path) -> Repeat:
        """Read ``repeat.json``.

        Raises:
            RecordError: it is missing, cannot be read, or is not of schema 1.
        """
        file = folder / REPEAT_NAME
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"{file}: the repeated run cannot be read ({error}).") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RecordError(
                f"{file}: not a repeated run of schema 1: {where}: {first['msg']}."
            ) from error
