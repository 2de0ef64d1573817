"""How sure a front is: a joint bootstrap of all rows at once.

The record keeps intervals, not samples, so that a draw is made from those: one value for every row
in every objective, from normal distributions whose 95 % intervals are the recorded ones, each side
by itself. Intervals of differences to the baseline are used where there are any. Rows are drawn
independently, although they share test samples and a baseline, which makes the answers less sure
than they could be, never surer. No interval counts as narrower than the noise floor of its row.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compress.pareto.front import FRONT_OBJECTIVES, FrontPoint, points_of
from compress.pareto.hypervolume import hypervolume
from compress.pareto.objectives import Reading
from compress.record import Record

__all__ = ["Volume", "front_probabilities", "front_probabilities_on", "volume"]

_DRAWS = 1000
_VOLUME_DRAWS = 400  # a volume takes longer, and its interval needs no third digit
_DEVIATIONS = 1.959964  # from the middle of a normal distribution to the end of its 95 % interval

Costs = tuple[float, ...]


@dataclass(frozen=True)
class Volume:
    """A hypervolume with its 95 % interval, which is widened to hold the value where it does not.

    Noise can only add to the best of several rows, so the draws lie a little above the value.
    """

    value: float
    lo: float
    hi: float


def front_probabilities(points: Sequence[FrontPoint], *, draws: int = _DRAWS) -> dict[int, float]:
    """For every row the share of draws in which no other row dominates it."""
    found = dict.fromkeys((point.row for point in points), 0)
    for costs in _draws(points, draws):
        for position in _undominated(costs):
            found[points[position].row] += 1
    return {row: count / draws for row, count in found.items()}


def front_probabilities_on(record: Record, target: str) -> dict[int, float]:
    """:func:`front_probabilities` of the rows that compete on ``target``, on its front."""
    return front_probabilities(points_of(record, target, FRONT_OBJECTIVES)[1])


def volume(
    points: Sequence[FrontPoint], reference: Sequence[float], *, draws: int = _VOLUME_DRAWS
) -> Volume:
    """The hypervolume of ``points`` up to ``reference``, in costs, and its interval."""
    value = hypervolume([point.costs for point in points], reference)
    found = sorted(
        hypervolume([costs[k] for k in _undominated(costs)], reference)
        for costs in _draws(points, draws)
    )
    low, high = found[int(0.025 * draws)], found[min(draws - 1, int(0.975 * draws))]
    return Volume(value, min(low, value), max(high, value))


def _draws(points: Sequence[FrontPoint], count: int) -> Iterator[list[Costs]]:
    source = random.Random(0)
    spreads = [[_spread(reading) for reading in point.readings] for point in points]
    for _ in range(count):
        yield [tuple(_draw(source, *spread) for spread in row) for row in spreads]


def _draw(source: random.Random, middle: float, down: float, up: float) -> float:
    step = source.gauss(0.0, 1.0)
    return middle + step * (up if step > 0 else down)


def _spread(reading: Reading) -> tuple[float, float, float]:
    """Middle of a reading's cost, and a standard deviation below and above it."""
    side = reading.paired or reading.cost
    down, up = max(0.0, side.value - side.lo), max(0.0, side.hi - side.value)
    if down or up:  # otherwise it is exact, or the baseline that the others are compared with
        down, up = max(down, reading.resolution), max(up, reading.resolution)
    return reading.cost.value, down / _DEVIATIONS, up / _DEVIATIONS


def _undominated(costs: Sequence[Costs]) -> list[int]:
    """Positions that no other dominates: none is as good everywhere and better somewhere."""
    kept: list[int] = []
    # In this order whatever dominates a point comes before it.
    for position in sorted(range(len(costs)), key=costs.__getitem__):
        mine = costs[position]
        if not any(_dominates(costs[other], mine) for other in kept):
            kept.append(position)
    return kept


def _dominates(a: Costs, b: Costs) -> bool:
    # A loop, because this is asked some million times and nearly always ends at once.
    for x, y in zip(a, b, strict=True):
        if x > y:
            return False
    return a != b
