"""The Pareto front of a record on one target, knowing how sure each number is.

Row A *beats* row B when A is better in at least one objective, by intervals that do not overlap, is
worse in none by that test, and everywhere else is shown to be worse by no more than a small margin
(one point of a rate, 0.01 of R², 1 % of another baseline score; 5 % of time, 2 % of memory, nothing
for file sizes). Where the
intervals are too wide to show that, B stays on the front: few data never push a row off it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compress.measure.quantities import QUANTITIES
from compress.pareto.hypervolume import hypervolume, reference_point
from compress.pareto.objectives import (
    Objective,
    Reading,
    compare,
    contenders,
    no_worse,
    objectives,
    pairs,
)
from compress.record import FrontFacts, Record

__all__ = [
    "FRONT_OBJECTIVES",
    "FrontPoint",
    "beats",
    "front",
    "front_facts",
    "points_of",
    "ties",
    "unbeaten",
]

#: What a front is made of by default.
FRONT_OBJECTIVES = ("accuracy", *(quantity.name for quantity in QUANTITIES if quantity.on_front))


@dataclass(frozen=True)
class FrontPoint:
    """One row's readings, in the order of the objectives that it is compared in."""

    row: int
    readings: tuple[Reading, ...]

    @property
    def costs(self) -> tuple[float, ...]:
        """Coordinates to be minimized."""
        return tuple(reading.cost.value for reading in self.readings)


def beats(objectives: Sequence[Objective], a: FrontPoint, b: FrontPoint) -> bool:
    """Whether ``a`` is shown to be better than ``b`` somewhere and no worse anywhere."""
    pairs = list(zip(objectives, a.readings, b.readings, strict=True))
    return all(no_worse(*pair) for pair in pairs) and any(
        compare(*pair) == "better" for pair in pairs
    )


def front(objectives: Sequence[Objective], points: Sequence[FrontPoint]) -> list[int]:
    """Rows that no other row is shown to beat, in the order given."""
    by_row = {point.row: point for point in points}
    return unbeaten(list(by_row), lambda a, b: beats(objectives, by_row[a], by_row[b]))


def unbeaten(rows: Sequence[int], beats: Callable[[int, int], bool]) -> list[int]:
    """The rows that none of the others beats, in the order given.

    With margins, three rows can beat one another in a circle. Nothing outside beats them, so none
    of them is pushed off: a row leaves the front only through one that it does not itself reach.
    """
    beaten_by = {b: {a for a in rows if a != b and beats(a, b)} for b in rows}
    above = {row: _reachable(row, beaten_by) for row in rows}
    return [row for row in rows if all(row in above[better] for better in above[row])]


def _reachable(start: int, edges: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    todo = [start]
    while todo:
        fresh = edges[todo.pop()] - found
        found |= fresh
        todo.extend(fresh)
    return found


def ties(objectives: Sequence[Objective], points: Sequence[FrontPoint]) -> list[tuple[int, int]]:
    """Pairs of rows that the data cannot tell apart in any *measured* objective.

    File sizes are exact, hence no part of it: of two tied rows one may still be smaller.
    """
    measured = [number for number, kind in enumerate(objectives) if kind.uncertain]
    by_row = {point.row: point.readings for point in points}
    return [
        (a, b)
        for a, b in pairs(list(by_row))
        if measured
        and all(
            compare(objectives[k], by_row[a][k], by_row[b][k]) in ("equivalent", "unresolved")
            for k in measured
        )
    ]


def points_of(
    record: Record, target: str, names: Sequence[str] = FRONT_OBJECTIVES
) -> tuple[list[Objective], list[FrontPoint]]:
    """The objectives that some row was measured in, and the contenders measured in all of those."""
    rows = contenders(record, target)
    kinds = [
        k for k in objectives(record, target, names) if any(k.name in r for r in rows.values())
    ]
    return kinds, [
        FrontPoint(row, tuple(found[k.name] for k in kinds))
        for row, found in rows.items()
        if all(k.name in found for k in kinds)
    ]


def front_facts(record: Record, target: str, names: Sequence[str] = FRONT_OBJECTIVES) -> FrontFacts:
    """The front, its ties and its hypervolume, as ``record.pareto[target]`` stores them.

    The hypervolume is that of the front's values, times and sizes on a log2 scale (one unit is one
    halving) and the metric on its own; ``reference_point`` is in the objectives' own units.
    """
    kinds, points = points_of(record, target, names)
    if not points:
        return FrontFacts(objectives=[], front=[], hypervolume=0.0, reference_point=[])
    unbeaten = front(kinds, points)
    reference = reference_point([point.costs for point in points])
    return FrontFacts(
        objectives=[kind.name for kind in kinds],
        front=unbeaten,
        hypervolume=hypervolume([p.costs for p in points if p.row in unbeaten], reference),
        reference_point=[k.natural(cost) for k, cost in zip(kinds, reference, strict=True)],
        ties=ties(kinds, points),
        scales=[kind.scale for kind in kinds],
    )
