"""The budget's sliders: their stops, and what the page's script needs to choose a row by them.

The script knows the rule of :func:`~compress.pareto.recommend`; every number, comparison and word
that the rule uses is written here, so that both say the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from compress.formatting import plain
from compress.measure.quantity import Limit, Quantity
from compress.pareto import (
    LIMITS,
    ChoiceTable,
    choice_table,
    contenders,
    gains_words,
    loss_words,
    unlimited_words,
)
from compress.record import Record
from compress.report.page.axes import Axis
from compress.report.page.markup import text

__all__ = ["Slider", "Stop", "choice_data", "slider_form", "sliders_of"]

_STEPS = 36  # of a slider over times or sizes
_REACH = 1.3  # how far beyond the smallest and the largest value a slider goes
# In tenths of what may be lost where nobody says, which has a stop of its own.
_DROPS = (0, 1, 2, 3, 4, 5, 6, 8, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 1000)


@dataclass(frozen=True)
class Stop:
    """A place of a slider. ``value`` is in the budget's unit; ``None`` where nothing is asked."""

    value: float | None
    words: str


@dataclass(frozen=True)
class Slider:
    """One limit of a budget; ``start`` is the stop that the recipe's own budget asks for.

    ``field`` is the budget's name of the limit, ``unit`` how much of ours it counts in.
    """

    objective: str
    field: str
    unit: float
    what: str
    label: str
    stops: tuple[Stop, ...]
    start: int


def sliders_of(record: Record, target: str) -> list[Slider]:
    """A slider for every limit that something measured on ``target`` can be held against.

    None at all where the recipe's own budget limits what nothing was measured in: no slider could
    then be in its place.
    """
    table = choice_table(record, target)
    found = [
        _limit_slider(record, table, quantity, quantity.limit)
        for quantity in LIMITS
        if quantity.limit and any(table.values[quantity.name])
    ]
    if table.values["accuracy"] and any(drop is not None for drop in table.drops):
        found.append(_drop_slider(record, table))
    asked = record.budget.model_dump(exclude_none=True) if record.budget else {}
    return found if asked.keys() <= {slider.field for slider in found} else []


def _limit_slider(record: Record, table: ChoiceTable, quantity: Quantity, limit: Limit) -> Slider:
    values = [v / limit.unit for v in table.values[quantity.name] if v is not None and v > 0]
    asked = getattr(record.budget, limit.field, None)
    numbers = _with(_between(min(values) / _REACH, max(values) * _REACH), asked)
    stops = [
        *(Stop(number, quantity.unit.shown(number * limit.unit)) for number in numbers),
        Stop(None, "no limit"),
    ]
    return Slider(
        objective=quantity.name,
        field=limit.field,
        unit=limit.unit,
        what=quantity.title,
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


def _drop_slider(record: Record, table: ChoiceTable) -> Slider:
    """How much of the metric may be lost; one stop is what holds where nobody says."""
    asked = record.budget.accuracy_drop if record.budget else None
    worst = max((drop for drop in table.drops if drop is not None), default=0.0)
    default = table.default_drop
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
        objective="accuracy",
        field="accuracy_drop",
        unit=1.0,
        what=plain(record.task.metric, 40),
        label=f"Change of {plain(record.task.metric, 40)} from the baseline, no worse than",
        stops=tuple(stops),
        start=next(k for k, stop in enumerate(stops) if stop.value == asked),
    )


def choice_data(
    record: Record, target: str, sliders: list[Slider], axes: dict[str, Axis]
) -> dict[str, Any]:
    """The rule's table, its words, and where limits lie on the plot's axes."""
    table = choice_table(record, target)
    rows = {row.index: row for row in record.rows}
    named = contenders(record, target)
    return {
        "rows": list(table.rows),
        "values": {name: list(found) for name, found in table.values.items()},
        "costs": {name: list(found) for name, found in table.costs.items()},
        "versus": {name: list(found) for name, found in table.versus.items()},
        "drops": list(table.drops),
        "default": table.default_drop,
        "defaultWords": _words_of_default(record, table),
        "stages": [plain(rows[row].stage, 40) for row in table.rows],
        "shown": [_shown(record, table, position) for position in range(len(table.rows))],
        "gains": [
            gains_words(record, target, named, row) if row != record.baseline else ""
            for row in table.rows
        ],
        "baseline": record.baseline,
        "unlimited": unlimited_words(record, target),
        "sliders": [_slider_data(record, table, slider, axes) for slider in sliders],
    }


def _words_of_default(record: Record, table: ChoiceTable) -> str:
    return "" if table.default_drop is None else loss_words(record, table.default_drop)


def _shown(record: Record, table: ChoiceTable, position: int) -> dict[str, str]:
    """A row's values in the words that a missed limit is told in."""
    found = {
        quantity.name: quantity.unit.shown(value)
        for quantity in LIMITS
        if (value := table.values[quantity.name][position]) is not None
    }
    drop = table.drops[position]
    return found if drop is None else {**found, "accuracy": loss_words(record, drop)}


def _slider_data(
    record: Record, table: ChoiceTable, slider: Slider, axes: dict[str, Axis]
) -> dict[str, Any]:
    axis = axes.get(slider.objective)
    stops = []
    for stop in slider.stops:
        at = _place(record, table, slider, stop, axis)
        stops.append([stop.value, stop.words, None if at is None else round(at, 4)])
    return {
        "objective": slider.objective,
        "unit": slider.unit,
        "what": slider.what,
        "stops": stops,
        "start": slider.start,
    }


def _place(
    record: Record, table: ChoiceTable, slider: Slider, stop: Stop, axis: Axis | None
) -> float | None:
    """Where a limit lies on its axis, if it has one and the limit is in sight."""
    if stop.value is None or axis is None:
        return None
    value = stop.value * slider.unit
    if slider.objective == "accuracy":
        if record.baseline not in table.rows:
            return None
        start = table.values["accuracy"][table.rows.index(record.baseline)]
        if start is None:
            return None
        value = start - value if record.task.higher_is_better else start + value
    at = axis.at(value)
    return at if math.isfinite(at) and 0 <= at <= 1 else None


def slider_form(sliders: list[Slider], number: int) -> str:
    """The sliders, hidden until the page's script takes charge of them."""
    fields = []
    for k, slider in enumerate(sliders):
        label, stop = f"limit-{number}-{k}", slider.stops[slider.start]
        fields.append(
            f'<div class="slider"><label for="{label}">{text(slider.label, 80)}</label>'
            f'<input type="range" id="{label}" min="0" max="{len(slider.stops) - 1}" step="1" '
            f'value="{slider.start}" aria-valuetext="{text(stop.words)}" data-slider="{k}">'
            f'<output for="{label}">{text(stop.words)}</output></div>'
        )
    return (
        f'<form class="budget" hidden><fieldset><legend>Your budget</legend>{"".join(fields)}'
        '<button type="reset">Back to the recipe&#8217;s</button></fieldset></form>'
    )
