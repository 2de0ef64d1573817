"""The ship rule: of the rows that a budget leaves, the fastest that loses no more than is allowed.

One owner: :func:`~compress.pareto.recommend` asks it for the recipe's budget, and the page of a
report has its answers for every place of the budget's sliders, as data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from compress.budget import Budget
from compress.errors import RecordError
from compress.formatting import sanitize, score_change
from compress.measure.quantities import QUANTITIES
from compress.measure.quantity import Quantity
from compress.metrics import allowance
from compress.pareto.front import FRONT_OBJECTIVES, unbeaten
from compress.pareto.objectives import Reading, compare, contenders, no_worse, objectives, readings
from compress.record import Record

__all__ = [
    "LIMITS",
    "Miss",
    "RowAndReason",
    "ShipRule",
    "allowed_drop",
    "baseline_score",
    "default_drop",
    "limit_of",
    "loss_words",
]

# A drop of exactly what is allowed is allowed, whatever the last bit of the subtraction.
_LAST_BIT = 1e-12
# Of two rows that miss limits the one that misses fewer comes first, then the one that was measured
# in them, then the nearer one: one number, of which the last part is below 2**16.
_ONE_MISS, _NOT_MEASURED = 2.0**20, 2.0**16

Table = Mapping[int, Mapping[str, Reading]]
#: A row, and why it is that one.
RowAndReason = tuple[int, str]

#: The quantities that a budget can limit, other than the metric.
LIMITS = tuple(quantity for quantity in QUANTITIES if quantity.limit is not None)


def limit_of(budget: Budget, quantity: Quantity) -> float | None:
    """What a budget allows of a quantity, in the quantity's unit; ``None`` for no limit."""
    asked = getattr(budget, quantity.limit.field) if quantity.limit else None
    return asked * quantity.limit.unit if quantity.limit and asked is not None else None


@dataclass(frozen=True)
class Miss:
    """One limit that a row does not keep, in words; ``penalty`` adds up over a row's limits."""

    sentence: str
    penalty: float


class ShipRule:
    """Which of the rows that could be shipped to ``target``, for any budget.

    Args:
        record: the run, or of several the one whose baseline counts.
        target: where rows are shipped to.
        table: rows of several runs, by numbers of the caller's; the run's own where not given.
        baseline: the number of the baseline in ``table``.

    Raises:
        RecordError: nothing was measured on ``target``.
    """

    def __init__(
        self,
        record: Record,
        target: str,
        *,
        table: Table | None = None,
        baseline: int | None = None,
    ) -> None:
        self.table: Table = contenders(record, target) if table is None else table
        self._baseline = record.baseline if baseline is None else baseline
        if not self.table:
            known = ", ".join(repr(name) for name in record.targets) or "none yet"
            raise RecordError(
                f"record {record.name!r}: nothing was measured on the target {target!r}; "
                f"targets with measurements: {known}."
            )
        self._record, self._target = record, target
        self.default_drop = default_drop(record, target)
        self.drops = {row: self._drop(row) for row in self.table}

    def _drop(self, row: int) -> float | None:
        baseline = self.table.get(self._baseline, {}).get("accuracy")
        mine = self.table[row].get("accuracy")
        return None if baseline is None or mine is None else mine.cost.value - baseline.cost.value

    def resolved(self, budget: Budget) -> Budget:
        """A budget with its drop in the unit of the metric, where it is a share of the score."""
        found = self.table.get(self._baseline, {}).get("accuracy")
        return budget.resolved(None if found is None else found.value)

    # -- limits -----------------------------------------------------------------------------------

    def value_text(self, row: int, quantity: Quantity | None) -> tuple[str, bool]:
        """A row's value of a quantity, or its drop of the metric, as text beside a limit.

        Also whether it has a value, which the text of the limit is appended to.
        """
        metric = sanitize(self._record.task.metric, 40)
        if quantity is None:
            drop = self.drops[row]
            if drop is None:
                return f"{metric} was not measured", False
            return f"{metric} {loss_words(self._record, drop)} against the baseline", True
        found = self.table[row].get(quantity.name)
        if found is None:
            return f"{quantity.title} was not measured", False
        return f"{quantity.title} {quantity.unit.shown(found.value)}", True

    def penalty(self, row: int, quantity: Quantity | None, allowed: float) -> float | None:
        """By how much a row misses a limit; ``None`` where it keeps it.

        ``allowed`` is in the quantity's unit; without a quantity it is the drop of the metric.
        """
        if quantity is None:
            value, most = self.drops[row], max(allowed, 1e-4)
            keeps = value is not None and value <= allowed + _LAST_BIT
        else:
            found = self.table[row].get(quantity.name)
            value, most = found.value if found else None, allowed
            keeps = value is not None and value <= allowed
        if keeps:
            return None
        return _ONE_MISS + (_NOT_MEASURED if value is None else math.log2(value / most))

    def misses(self, row: int, budget: Budget) -> list[Miss]:
        """The limits that ``row`` does not keep."""
        record, missed, budget = self._record, [], self.resolved(budget)
        asked = [(q, allowed) for q in LIMITS if (allowed := limit_of(budget, q)) is not None]
        limits = [(quantity, allowed, quantity.unit.shown(allowed)) for quantity, allowed in asked]
        drop = budget.accuracy_drop
        whole = [*limits, *([] if drop is None else [(None, drop, loss_words(record, drop))])]
        for quantity, allowed, words in whole:
            penalty = self.penalty(row, quantity, allowed)
            if penalty is not None:
                text, has_value = self.value_text(row, quantity)
                missed.append(Miss(f"{text}, budget {words}" if has_value else text, penalty))
        return missed

    # -- choosing ---------------------------------------------------------------------------------

    def nearest(self, penalties: Mapping[int, float]) -> RowAndReason:
        """Where no row keeps the budget: the one with the least penalties in all."""
        row = min(penalties, key=lambda row: penalties[row])
        return row, "no row meets the budget, and this one misses it by the least"

    def best(self, fit: Sequence[int], *, limited: bool, drop: float | None) -> RowAndReason:
        """The row to ship of those within the budget.

        Args:
            fit: rows that keep every limit; at least one.
            limited: whether the budget limits anything.
            drop: what the budget lets the metric lose; ``None`` where it does not say, and what is
                lost is limited all the same if that can be.
        """
        allowed = self.default_drop if drop is None else drop
        known = {row: lost for row in fit if (lost := self.drops[row]) is not None}
        scope = "within the budget" if limited else "measured"
        if allowed is None or not known:
            return self._fastest(fit, scope)
        within = [row for row, lost in known.items() if lost <= allowed + _LAST_BIT]
        loss = f"{loss_words(self._record, allowed)} of the baseline"
        if not within:
            row = min(known, key=lambda row: known[row])
            why = f"the most accurate row {scope}, though none of those is within {loss}"
            return row, why
        if not limited:
            scope = f"within {loss}"
        elif drop is None:
            scope = f"{scope} and {loss}"
        return self._fastest(within, scope)

    def _fastest(self, pool: Sequence[int], scope: str) -> RowAndReason:
        if len(pool) == 1:
            return pool[0], f"the only row {scope}"
        left = self._unbeaten(pool)
        if len(left) == 1:
            return left[0], f"the only one of {len(pool)} rows {scope} that none of them beats"
        words = []
        for name, superlative in (("latency_p50_s", "fastest"), ("accuracy", "most accurate")):
            known = [row for row in left if name in self.table[row]]
            if known and len(left) > 1:
                left = self._not_worse_than_best(name, known)
                words.append(superlative)
        if len(left) > 1:
            words.append("smallest")
        least = min(self.table[row]["artifact_bytes"].value for row in left)
        small = [row for row in left if self.table[row]["artifact_bytes"].value == least]
        # Nothing else tells rows of one size apart: what is likely better costs nothing.
        chosen = min(small, key=lambda row: (self._cost_of_score(row), row))
        *ties, last = words
        tied = f" of those tied for {' and '.join(ties)}, among" if ties else " of"
        return chosen, f"the {last}{tied} {len(pool)} rows {scope}"

    def _cost_of_score(self, row: int) -> float:
        found = self.table[row].get("accuracy")
        return math.inf if found is None else found.cost.value

    def _not_worse_than_best(self, name: str, rows: Sequence[int]) -> list[int]:
        best = min(rows, key=lambda row: self.table[row][name].cost.value)
        return [row for row in rows if row == best or self._comparisons[name, row, best] != "worse"]

    def _unbeaten(self, pool: Sequence[int]) -> list[int]:
        shared = [name for name in FRONT_OBJECTIVES if all(name in self.table[row] for row in pool)]

        def beats(a: int, b: int) -> bool:
            return all((name, a, b) in self._no_worse for name in shared) and any(
                self._comparisons[name, a, b] == "better" for name in shared
            )

        return unbeaten(pool, beats)

    @cached_property
    def _comparisons(self) -> Mapping[tuple[str, int, int], str]:
        """How each row compares with each other one, in the objectives that both have."""
        return {
            (kind.name, a, b): compare(kind, self.table[a][kind.name], self.table[b][kind.name])
            for kind in objectives(self._record, self._target, FRONT_OBJECTIVES)
            for a, b in self._pairs(kind.name)
        }

    @cached_property
    def _no_worse(self) -> set[tuple[str, int, int]]:
        return {
            (kind.name, a, b)
            for kind in objectives(self._record, self._target, FRONT_OBJECTIVES)
            for a, b in self._pairs(kind.name)
            if no_worse(kind, self.table[a][kind.name], self.table[b][kind.name])
        }

    def _pairs(self, name: str) -> Iterable[tuple[int, int]]:
        known = [row for row, found in self.table.items() if name in found]
        return ((a, b) for a in known for b in known if a != b)


# -- what the metric may lose -----------------------------------------------------------------


def allowed_drop(record: Record, target: str) -> float | None:
    """How much of the metric may be lost against the baseline; ``None`` where nothing limits it."""
    budget = record.budget
    score = baseline_score(record, target)
    if budget is None or budget.accuracy_drop is None or score is None:
        return default_drop(record, target)
    return budget.resolved(score).accuracy_drop


def default_drop(record: Record, target: str) -> float | None:
    """What may be lost where the budget does not say.

    ``None`` without the baseline's score, and where that is 0, of which no share can be taken.
    """
    start = baseline_score(record, target)
    return None if start is None else allowance(record.task.metric, start) or None


def baseline_score(record: Record, target: str) -> float | None:
    """The baseline's score on ``target``, if it has one."""
    baseline = readings(record, target).get(record.baseline, {}).get("accuracy")
    return None if baseline is None else baseline.value


def loss_words(record: Record, drop: float) -> str:
    """A loss as the change that it is: ``−1.00 pt`` of an accuracy."""
    return score_change(record.task.metric, 0.0 - drop if record.task.higher_is_better else drop)
