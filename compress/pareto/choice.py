"""What :func:`~compress.pareto.recommend` looks at, as plain numbers and digits.

The page's sliders choose by the same rule from this table. Comparisons, which need intervals,
margins and noise floors, are made here; what is left is to look them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.pareto.advice import default_drop, drop_of
from compress.pareto.front import FRONT_OBJECTIVES
from compress.pareto.objectives import (
    OBJECTIVES,
    Objective,
    Reading,
    compare,
    contenders,
    no_worse,
    objectives,
)
from compress.record import Record

__all__ = ["NO_WORSE", "SHOWN_BETTER", "SHOWN_WORSE", "ChoiceTable", "choice_table"]

# Bits of a digit of ``versus``.
NO_WORSE, SHOWN_BETTER, SHOWN_WORSE = 1, 2, 4

PerRow = tuple[float | None, ...]


@dataclass(frozen=True)
class ChoiceTable:
    """The contenders on one target; everything is in the order of ``rows``.

    ``values`` are in seconds and bytes, by objective; ``costs`` order rows in the objectives of the
    front. ``versus[name][i][j]`` is a digit: how row i compares with row j. ``drops`` are losses of
    the metric against the baseline; ``default_drop`` is what may be lost where nobody says.
    """

    rows: tuple[int, ...]
    values: Mapping[str, PerRow]
    costs: Mapping[str, PerRow]
    versus: Mapping[str, tuple[str, ...]]
    drops: PerRow
    default_drop: float | None


def choice_table(record: Record, target: str) -> ChoiceTable:
    """The table of the rows that could be shipped to ``target``."""
    table = contenders(record, target)
    rows = tuple(table)
    kinds = objectives(record, target, FRONT_OBJECTIVES)
    by_name = {name: [table[row].get(name) for row in rows] for name in OBJECTIVES}
    return ChoiceTable(
        rows=rows,
        values={
            name: tuple(reading.value if reading else None for reading in found)
            for name, found in by_name.items()
        },
        costs={
            name: tuple(reading.cost.value if reading else None for reading in by_name[name])
            for name in FRONT_OBJECTIVES
        },
        versus={kind.name: _versus(kind, by_name[kind.name]) for kind in kinds},
        drops=tuple(drop_of(record, table, row) for row in rows),
        default_drop=default_drop(record, target),
    )


def _versus(kind: Objective, found: Sequence[Reading | None]) -> tuple[str, ...]:
    return tuple("".join(_digit(kind, mine, other) for other in found) for mine in found)


def _digit(kind: Objective, mine: Reading | None, other: Reading | None) -> str:
    if mine is None or other is None:
        return "0"
    outcome = compare(kind, mine, other)
    digit = NO_WORSE * no_worse(kind, mine, other)
    digit += SHOWN_BETTER * (outcome == "better") + SHOWN_WORSE * (outcome == "worse")
    return str(digit)
