"""The budget's sliders: their stops, and the answer for every place that they can stand in.

Which row to ship is worked out here, by the rule of :mod:`compress.pareto.ship_rule`: the page's
script adds up penalties, looks answers up, and puts words beside one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.formatting import sanitize
from compress.measure.quantity import Limit, Quantity
from compress.pareto import LIMITS, ShipRule, loss_words, ship_answers
from compress.record import Record
from compress.report.figures.axes import PlotAxis

__all__ = ["Slider", "Stop", "choice_data", "sliders_of"]

_STEPS = 36  # of a slider over times or sizes
_REACH = 1.3  # how far beyond the smallest and the largest value a slider goes
# In tenths of what may be lost where nobody says, which has a stop of its own.
_DROPS = (0, 1, 2, 3, 4, 5, 6, 8, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 1000)
# ShipAnswers that a page may hold: ten rows have about a hundred, sixty have five thousand.
_MOST_ANSWERS = 10_000


@dataclass(frozen=True)
class Stop:
    """A place of a slider. ``value`` is in the budget's unit; ``None`` where nothing is asked."""

    value: float | None
    words: str


@dataclass(frozen=True)
class Slider:
    """One limit of a budget; ``start`` is the stop that the recipe's own budget asks for.

    ``field`` is the budget's name of the limit, ``unit`` how much of ours it counts in. Without a
    ``quantity`` it is the drop of the metric.
    """

    quantity: Quantity | None
    field: str
    unit: float
    label: str
    stops: tuple[Stop, ...]
    start: int

    @property
    def objective(self) -> str:
        """The name of what is limited."""
        return "accuracy" if self.quantity is None else self.quantity.name


def sliders_of(record: Record, target: str) -> list[Slider]:
    """A slider for every limit that something measured on ``target`` can be held against.

    None at all where the recipe's own budget limits what nothing was measured in: no slider could
    then be in its place.
    """
    rule = ShipRule(record, target)
    found = [
        _limit_slider(record, values, quantity, quantity.limit)
        for quantity in LIMITS
        if quantity.limit and (values := _values(rule, quantity))
    ]
    drops = [drop for drop in rule.drops.values() if drop is not None]
    if drops:
        drop = rule.resolved(record.budget).accuracy_drop if record.budget else None
        found.append(_drop_slider(record, drops, rule.default_drop, drop))
    budget = record.budget
    asked = budget.model_dump(exclude={"relative"}, exclude_none=True) if budget else {}
    return found if asked.keys() <= {slider.field for slider in found} else []


def _values(rule: ShipRule, quantity: Quantity) -> list[float]:
    """What rows have of a quantity, in its unit; nothing is no limit."""
    found = [readings.get(quantity.name) for readings in rule.table.values()]
    return [reading.value for reading in found if reading is not None and reading.value > 0]


def _limit_slider(
    record: Record, values: Sequence[float], quantity: Quantity, limit: Limit
) -> Slider:
    asked = getattr(record.budget, limit.field, None)
    low, high = min(values) / limit.unit / _REACH, max(values) / limit.unit * _REACH
    numbers = _with(_between(low, high), asked)
    stops = [
        *(Stop(number, quantity.unit.shown(number * limit.unit)) for number in numbers),
        Stop(None, "no limit"),
    ]
    return Slider(
        quantity=quantity,
        field=limit.field,
        unit=limit.unit,
        label=f"{quantity.title[0].upper()}{quantity.title[1:]}, at most",
        stops=tuple(stops),
        start=next(k for k, stop in enumerate(stops) if stop.value == asked),
    )


def _between(low: float, high: float) -> list[float]:
    """Numbers of three digits in equal ratios."""
    ratio = high / low
    return sorted({float(f"{low * ratio ** (k / _STEPS):.3g}") for k in range(_STEPS + 1)})


def _with(numbers: Iterable[float], asked: float | None) -> list[float]:
    return sorted({*numbers, *([] if asked is None else [asked])})


def _drop_slider(
    record: Record, drops: Sequence[float], default: float | None, asked: float | None
) -> Slider:
    """How much of the metric may be lost; one stop is what holds where nobody says."""
    worst = max(drops)
    # Where nothing holds, the drops that there are say what a small one is.
    unit = default or 0.1 * worst or asked or 1.0
    numbers = [float(f"{unit * drop / 10:.6g}") for drop in _DROPS]
    enough = next((k for k, number in enumerate(numbers) if number >= worst), len(numbers))
    numbers = numbers[: max(enough + 1, 12)]
    stops = []
    for number in _with([*numbers, *([] if default is None else [default])], asked):
        stops.append(Stop(number, loss_words(record, number)))
        if number == default:
            stops.append(Stop(None, loss_words(record, number)))
    if default is None:
        stops.append(Stop(None, "no limit"))
    return Slider(
        quantity=None,
        field="accuracy_drop",
        unit=1.0,
        label=f"Change of {sanitize(record.task.metric, 40)} from the baseline, no worse than",
        stops=tuple(stops),
        start=next(k for k, stop in enumerate(stops) if stop.value == asked),
    )


def choice_data(
    record: Record, target: str, sliders: Sequence[Slider], axes: Mapping[str, PlotAxis]
) -> dict[str, Any] | None:
    """What the page's script looks up when a slider moves; ``None`` where that would be too much.

    ``answers`` has, by a digit for each row that keeps the limits and what was limited, the row and
    its reason; of every stop of a slider there are its words, its place on the plot's axis, and by
    how much each row misses it.
    """
    rule = ShipRule(record, target)
    kept = {k: _kept(rule, slider) for k, slider in enumerate(sliders)}
    drop = next((k for k, slider in enumerate(sliders) if slider.quantity is None), None)
    found = ship_answers(
        record,
        target,
        [each for k, each in kept.items() if k != drop],
        set() if drop is None else kept[drop],
        _MOST_ANSWERS,
    )
    if found is None:
        return None
    return {
        "rows": list(found.rows),
        "answers": {key: list(answer) for key, answer in found.chosen.items()},
        "reasons": list(found.reasons),
        "nearest": found.nearest,
        "before": list(found.before),
        "after": [list(sentences) for sentences in found.after],
        "drop": drop,
        "sliders": [_slider_data(record, rule, slider, axes) for slider in sliders],
    }


def _penalties(rule: ShipRule, slider: Slider, stop: Stop) -> list[float | None] | None:
    """By how much each row misses a stop; ``None`` for a stop that asks for nothing."""
    if stop.value is None:
        return None
    allowed = stop.value * slider.unit
    return [rule.penalty(row, slider.quantity, allowed) for row in rule.table]


def _kept(rule: ShipRule, slider: Slider) -> set[tuple[bool, ...]]:
    """What the stops of a slider can leave of the rows."""
    found = (_penalties(rule, slider, stop) for stop in slider.stops)
    return {tuple(each is None for each in missed) for missed in found if missed is not None}


def _slider_data(
    record: Record, rule: ShipRule, slider: Slider, axes: Mapping[str, PlotAxis]
) -> dict[str, Any]:
    axis = axes.get(slider.objective)
    stops = []
    for stop in slider.stops:
        at = _place(record, rule, slider, stop, axis)
        place = None if at is None else round(at, 4)
        stops.append([stop.words, place, _penalties(rule, slider, stop)])
    texts = [rule.value_text(row, slider.quantity) for row in rule.table]
    return {
        "objective": slider.objective,
        "texts": [f"{words}, budget " if has_value else words for words, has_value in texts],
        "known": [has_value for _, has_value in texts],
        "stops": stops,
        "start": slider.start,
    }


def _place(
    record: Record, rule: ShipRule, slider: Slider, stop: Stop, axis: PlotAxis | None
) -> float | None:
    """Where a limit lies on its axis, if it has one and the limit is in sight."""
    if stop.value is None or axis is None:
        return None
    value = stop.value * slider.unit
    if slider.quantity is None:
        start = rule.table.get(record.baseline, {}).get("accuracy")
        if start is None:
            return None
        value = start.value - value if record.task.higher_is_better else start.value + value
    at = axis.at(value)
    return at if math.isfinite(at) and 0 <= at <= 1 else None
