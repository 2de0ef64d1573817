"""The table as CSV: every number of the record's rows, in seconds, bytes and shares.

``p50_s`` is as it was timed; ``p50_paired_s`` is the one of tables and figures. Quantities that
were declared since (see :mod:`compress.measure.quantities`) have their columns at the end, where
some row of the runs has a value of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compress.formatting import sanitize
from compress.measure.quantities import recorded_quantities
from compress.measure.quantity import Quantity
from compress.pareto import Reading, front_facts, front_probabilities_on, readings, recommend
from compress.record import Accuracy, Measurement, Record, Row, Speedup

__all__ = ["csv_text"]


@dataclass(frozen=True)
class _Line:
    """One row on one target, and what its run says of it there."""

    run: str
    record: Record
    row: Row
    found: Measurement
    ship: bool
    on_front: bool
    front_probability: float | None
    readings: Mapping[str, Reading]


def csv_text(runs: Sequence[tuple[str, Record]]) -> str:
    """Every row of every named run on every target, one line each, unrounded."""
    lines = [line for name, record in runs for line in _lines(name, record)]
    declared = _declared(lines)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(_safe(name) for each in declared for name in _names(each))])
    for line in lines:
        values = [read(line) for read in _COLUMNS.values()]
        values += [value for each in declared for value in _values(each, line)]
        writer.writerow([_safe(value) for value in values])
    return stream.getvalue()


def _lines(name: str, record: Record) -> Iterator[_Line]:
    for target in record.targets:
        ship = recommend(record, target).index
        sure, unbeaten = front_probabilities_on(record, target), front_facts(record, target).front
        table = readings(record, target)
        for row in record.rows:
            if (found := row.on(target)) is not None:
                k = row.index
                yield _Line(
                    *(name, record, row, found, k == ship, k in unbeaten, sure.get(k), table[k])
                )


def _quantity(name: str, end: int = 0) -> Callable[[_Line], object]:
    """The value of a quantity as it was measured, or the low or high end of its interval."""

    def read(line: _Line) -> object:
        known = {quantity.name: quantity for quantity in recorded_quantities(line.record.task)}
        found = known[name].read(line.row, line.found)
        return None if found is None else (found.value, found.lo, found.hi)[end]

    return read


def _score(read: Callable[[Accuracy], object]) -> Callable[[_Line], object]:
    return lambda line: None if line.found.accuracy is None else read(line.found.accuracy)


def _speedup(read: Callable[[Speedup], object]) -> Callable[[_Line], object]:
    return lambda line: None if line.found.speedup is None else read(line.found.speedup)


def _paired(line: _Line) -> object:
    latency = line.readings.get("latency_p50_s")
    return None if latency is None else latency.value


#: The columns that are always there. Readers of such files go by names and places: add at the end.
_COLUMNS: Mapping[str, Callable[[_Line], object]] = {
    "run": lambda line: line.run,
    "target": lambda line: line.found.target,
    "row": lambda line: line.row.index,
    "stage": lambda line: line.row.stage,
    "kind": lambda line: line.row.kind,
    "baseline": lambda line: line.row.index == line.record.baseline,
    "ship": lambda line: line.ship,
    "metric": lambda line: line.record.task.metric,
    "score": _quantity("accuracy"),
    "score_low": _quantity("accuracy", 1),
    "score_high": _quantity("accuracy", 2),
    "test_samples": _score(lambda accuracy: accuracy.n),
    "p50_s": _quantity("latency_p50_s"),
    "p50_low_s": _quantity("latency_p50_s", 1),
    "p50_high_s": _quantity("latency_p50_s", 2),
    "p90_s": _quantity("latency_p90_s"),
    "p99_s": _quantity("latency_p99_s"),
    "speedup": _speedup(lambda speedup: speedup.value),
    "speedup_low": _speedup(lambda speedup: speedup.ci95[0]),
    "speedup_high": _speedup(lambda speedup: speedup.ci95[1]),
    "verdict": _speedup(lambda speedup: speedup.verdict),
    "model_peak_bytes": _quantity("model_peak_bytes"),
    "artifact_bytes": _quantity("artifact_bytes"),
    "int8_mac_fraction": _quantity("int8_mac_fraction"),
    "parameters": _quantity("parameters"),
    "nonzero_parameters": lambda line: line.row.nonzero_parameters,
    "macs": _quantity("macs"),
    "fingerprint": lambda line: line.row.fingerprint,
    "sha256": lambda line: line.found.artifact.sha256,
    "on_front": lambda line: line.on_front,
    "not_dominated": lambda line: line.front_probability,
    "p50_paired_s": _paired,
}


def _declared(lines: Sequence[_Line]) -> list[Quantity]:
    """The quantities without a column above that some line has a value of."""
    return [
        quantity
        for quantity in (recorded_quantities(lines[0].record.task) if lines else ())
        if quantity.csv_names[0] not in _COLUMNS
        and any(quantity.read(line.row, line.found) is not None for line in lines)
    ]


def _names(quantity: Quantity) -> Sequence[str]:
    return quantity.csv_names[:1] if quantity.exact else quantity.csv_names


def _values(quantity: Quantity, line: _Line) -> Sequence[object]:
    found = quantity.read(line.row, line.found)
    known = (None, None, None) if found is None else (found.value, found.lo, found.hi)
    return known[:1] if quantity.exact else known


def _safe(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if isinstance(value, str):
        text = sanitize(value)
        return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
    return "" if value is None else value
