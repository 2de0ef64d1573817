"""A row of a finished run, with its recipe, its task and its model as a candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from compress.candidate import Architecture, Candidate
from compress.cli.outputs import run_folder_of
from compress.config.references import CodeReferences
from compress.errors import RecipeError, RecordError
from compress.models.build import build_module
from compress.recipe import Recipe
from compress.record import Record, Row
from compress.running.row_candidate import candidate_of
from compress.task import Task
from compress.training.data import head

__all__ = ["RunCandidate", "candidate_of_run"]

_SAMPLES = 5


@dataclass(frozen=True)
class RunCandidate:
    """What a run made.

    Args:
        record: of the run.
        row: of the record.
        recipe: of the run.
        task: of the recipe.
        candidate: the row's, with a few validation samples for its example.
    """

    record: Record
    row: Row
    recipe: Recipe
    task: Task
    candidate: Candidate


def candidate_of_run(given: Path, number: int, imports: Iterable[str]) -> RunCandidate:
    """The candidate of a row.

    Args:
        given: the run folder.
        number: of the row.
        imports: modules that the recipe may run code of.

    Raises:
        RecordError: no such row, or one whose candidate is gone or was changed.
        RecipeError: its model was given as an object, which no file says how to build.
    """
    imports = list(imports)
    record = Record.load(given)
    row = next((row for row in record.rows if row.index == number), None)
    if row is None:
        raise RecordError(
            f"--row {number}: the run {record.name!r} has rows 0 to {len(record.rows) - 1}."
        )
    references = CodeReferences.of(imports).imported()
    recipe = Recipe.of_record(record, imports=imports)
    task = recipe.make_task()
    example = head(task.validation, min(_SAMPLES, len(task.validation))).inputs

    def build(architecture: Architecture | None) -> nn.Module:
        if architecture is None:
            raise RecipeError(f"row {number} ({row.stage}): its model was given as an object.")
        return build_module(architecture, references)

    candidate = candidate_of(run_folder_of(given), row, example, build)
    return RunCandidate(record, row, recipe, task, candidate)
