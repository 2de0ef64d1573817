"""Planned rows: the rows that a recipe will have, each with its index, its label and its stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compress.config.block_names import unique_name
from compress.errors import CompressError, StageError, in_words
from compress.stage import Stage

__all__ = ["INPUT", "PlannedRow", "PlannedStage", "located", "planned_stages"]

#: What errors and records say in place of a stage, of the model that comes in.
_INPUT_LABEL, _INPUT_POSITION = "input", -1


@dataclass(frozen=True)
class PlannedRow:
    """A row of the record before there is anything in it.

    Args:
        index: of the row; 0 is the model that comes in.
        label: of the row, unlike that of all others.
        position: of its stage in the recipe's list; -1 for the model that comes in.
    """

    index: int
    label: str
    position: int

    @property
    def kind(self) -> str:
        """As the record has it."""
        return _INPUT_LABEL


@dataclass(frozen=True)
class PlannedStage(PlannedRow):
    """The row that a stage makes."""

    stage: Stage

    @property
    def kind(self) -> str:
        """As in the recipe."""
        return self.stage.kind


#: Row 0: the model that comes in.
INPUT = PlannedRow(0, _INPUT_LABEL, _INPUT_POSITION)


def planned_stages(stages: Sequence[Stage]) -> tuple[PlannedStage, ...]:
    """The rows that follow row 0, one for each stage; labels are their own, or kind and number."""
    planned: list[PlannedStage] = []
    labels = [INPUT.label]
    for position, stage in enumerate(stages):
        labels.append(unique_name(stage.label or stage.kind.rpartition(":")[2], labels))
        index = INPUT.index + 1 + position  # row 0 has no stage
        planned.append(PlannedStage(index, labels[-1], position, stage))
    return tuple(planned)


@contextmanager
def located(row: PlannedRow) -> Iterator[None]:
    """Errors raised inside say that they belong to this row and its stage.

    Raises:
        CompressError: what was raised on purpose.
        StageError: anything else, such as what a teacher, a loss or a stage of the user's raised.
    """
    try:
        yield
    except CompressError as error:
        if error.index is None:
            error.index, error.label = row.position, row.label
        raise
    except BrokenPipeError:
        raise  # whoever reads the progress is gone: no stage's fault
    except (Exception, SystemExit) as error:  # of code that is not ours
        problem = StageError(f"failed with {in_words(error)} (--debug shows how it came to it).")
        problem.index, problem.label = row.position, row.label
        raise problem from error
