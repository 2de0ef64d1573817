"""One option for each of several things, so that the sum of losses is least within limits.

A multiple-choice knapsack, solved by HiGHS through scipy. A cost may be that of two choices
together, as that of a layer is of the channels that come in and of those that go out. Knows no
models; no torch.

Source: Yao et al. 2021, "HAWQ-V3: dyadic neural network quantization", which chooses the bits of
layers this way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compress.errors import StageError

__all__ = ["Limit", "least_loss"]

Costs = np.ndarray[Any, np.dtype[np.float64]]

_GAP = 1e-4  # of the optimum: predictions are coarser than that
_SLACK = 1e-9
_MOST_S = 120.0  # what was found by then is taken, if it is not yet shown to be the best
_STOPPED = 1  # the status of scipy's solver at its limit of time


@dataclass(frozen=True)
class Limit:
    """What the choices may cost in all.

    Args:
        most: the sum of all costs is at most this.
        singles: of each thing the costs of its options, in any unit.
        pairs: by the numbers of two things, what their options cost together, shape ``(options of
            the first, options of the second)``, beside what is in ``singles``.
    """

    most: float
    singles: Sequence[Sequence[float]]
    pairs: Mapping[tuple[int, int], Costs] = field(default_factory=dict)

    def cost(self, chosen: Sequence[int]) -> float:
        """Of some choices."""
        single = sum(costs[one] for costs, one in zip(self.singles, chosen, strict=True))
        paired = sum(float(c[chosen[a], chosen[b]]) for (a, b), c in self.pairs.items())
        return float(single + paired)


def least_loss(losses: Sequence[Sequence[float]], limits: Sequence[Limit]) -> list[int] | None:
    """The number of the option that each thing gets; ``None`` where none keep all limits.

    Args:
        losses: of each thing what its options lose, none of them infinite.
        limits: which all have to hold.

    Raises:
        StageError: there are so many that none was found in two minutes.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = _Rows([len(options) for options in losses])
    for limit in limits:
        rows.add_limit(limit)
    objective = np.zeros(rows.columns)
    flat = np.concatenate([np.asarray(options, float) for options in losses])
    # Errors of layers lie decades apart, and the solver's tolerances are absolute.
    objective[: len(flat)] = flat / max(float(np.abs(flat).max()), np.finfo(float).tiny)
    integer = np.zeros(rows.columns)
    integer[: len(flat)] = 1
    found = milp(
        objective,
        integrality=integer,
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(rows.matrix(), rows.low, rows.high),
        options={"mip_rel_gap": _GAP, "time_limit": _MOST_S},
    )
    if found.x is None:
        if found.status == _STOPPED:
            raise StageError(
                f"no choice for {len(losses)} layers was found in {_MOST_S:g} s; choose among "
                "fewer layers, formats or ratios."
            )
        return None
    chosen, first = [], 0
    for options in losses:
        chosen.append(int(np.argmax(found.x[first : first + len(options)])))
        first += len(options)
    return chosen


class _Rows:
    """Rows of the program: a variable for each option, and one for each pair of options."""

    def __init__(self, options: Sequence[int]) -> None:
        self._options = options
        self._first = np.concatenate([[0], np.cumsum(options)])
        self.columns = int(self._first[-1])
        self._pairs: dict[tuple[int, int], int] = {}
        self._entries: list[dict[int, float]] = []
        self.low: list[float] = []
        self.high: list[float] = []
        for thing in range(len(options)):
            self._add(dict.fromkeys(self._of(thing), 1.0), 1.0, 1.0)

    def add_limit(self, limit: Limit) -> None:
        """The sum of costs is at most the limit."""
        row: dict[int, float] = {}
        for thing, costs in enumerate(limit.singles):
            row.update(zip(self._of(thing), costs, strict=True))
        for pair, together in limit.pairs.items():
            start = self._columns_of(pair)
            row.update(enumerate(np.asarray(together, float).ravel().tolist(), start))
        scale = max(1e-300, *map(abs, row.values()), abs(limit.most))
        scaled = {column: cost / scale for column, cost in row.items()}
        self._add(scaled, -np.inf, limit.most / scale + _SLACK)

    def matrix(self) -> Any:
        """The rows, as a sparse matrix."""
        from scipy.sparse import csr_array

        places = [
            (value, row, column)
            for row, entries in enumerate(self._entries)
            for column, value in entries.items()
        ]
        values, rows, columns = zip(*places, strict=True)
        return csr_array((values, (rows, columns)), shape=(len(self._entries), self.columns))

    def _of(self, thing: int) -> range:
        return range(int(self._first[thing]), int(self._first[thing + 1]))

    def _add(self, entries: dict[int, float], low: float, high: float) -> None:
        self._entries.append(entries)
        self.low.append(low)
        self.high.append(high)

    def _columns_of(self, pair: tuple[int, int]) -> int:
        """The first column of a pair's products, which sum to the options of each of the two."""
        if pair in self._pairs:
            return self._pairs[pair]
        start = self._pairs[pair] = self.columns
        one, other = (self._options[thing] for thing in pair)
        self.columns += one * other
        products = start + np.arange(one * other).reshape(one, other)
        for axis, thing in enumerate(pair):
            for column, own in zip(self._of(thing), np.moveaxis(products, axis, 0), strict=True):
                self._add({column: -1.0, **dict.fromkeys(own.tolist(), 1.0)}, 0.0, 0.0)
        return start
