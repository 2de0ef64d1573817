"""Tracking: from the loop's events to series of numbers, for every tracker the same.

=================== =========== ===============================================================
series              steps       numbers
=================== =========== ===============================================================
``stages/LABEL``    epochs      losses and whatever else the stage reports of an epoch
``rows``            rows        seconds, parameters, multiply-accumulates
``targets/NAME``    rows        accuracy, latency, speed-up with their intervals, memory, bytes
=================== =========== ===============================================================

A row's numbers are sent once they are complete: those before the baseline come with it. What an
earlier run of the recipe had trained is sent again, so that every run's series are complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from compress.events import Resumed, RowDone, RunEnd, RunStart, StepEnd, parse_event
from compress.tracking.tracker import Fact, Tracker, tracker_of

__all__ = ["Tracking", "facts_of", "row_values", "target_values"]

_NO_SERIES = ("epoch", "epochs", "left_s")
_ROW = ("seconds", "parameters", "nonzero_parameters", "macs")
# By the name of a series, where the number is in a row's measurement.
_TARGET: Mapping[str, tuple[str | int, ...]] = {
    "accuracy": ("accuracy", "value"),
    "accuracy_ci95_low": ("accuracy", "ci95", 0),
    "accuracy_ci95_high": ("accuracy", "ci95", 1),
    "p50_s": ("latency", "p50_s"),
    "p50_ci95_low_s": ("latency", "ci95_p50_s", 0),
    "p50_ci95_high_s": ("latency", "ci95_p50_s", 1),
    "speedup": ("speedup", "value"),
    "speedup_ci95_low": ("speedup", "ci95", 0),
    "speedup_ci95_high": ("speedup", "ci95", 1),
    "peak_rss_bytes": ("memory", "peak_rss_bytes"),
    "model_peak_bytes": ("memory", "model_peak_bytes"),
    "artifact_bytes": ("artifact", "bytes"),
    "inference_j": ("energy", "inference_j"),
}


def _print_error(sentence: str) -> None:
    print(f"compresskit: {sentence}", file=sys.stderr)


class Tracking:
    """A callback that sends a run to trackers: ``recipe.run(..., observer=Tracking.of([...]))``.

    A tracker that fails is dropped with one sentence to ``notify``; the run continues.
    """

    def __init__(
        self, trackers: Iterable[Tracker], notify: Callable[[str], None] = _print_error
    ) -> None:
        self._trackers = list(trackers)
        self._notify = notify

    @classmethod
    def of(cls, names: Sequence[str], notify: Callable[[str], None] = _print_error) -> Tracking:
        """With the trackers of these names, such as ``mlflow`` or ``tensorboard:DIR``.

        Raises:
            RecipeError: a name that is none.
            MissingExtra: a tracker's library is not installed.
        """
        return cls([tracker_of(name) for name in names], notify)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Pass one event of a run on (``compress.events``)."""
        for tracker in tuple(self._trackers):
            try:
                _pass_on(tracker, event)
            except Exception as error:
                self._trackers.remove(tracker)
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                self._notify(
                    f"tracking with {tracker.name} ends here ({reason}); the run continues."
                )


def _pass_on(tracker: Tracker, event: Mapping[str, Any]) -> None:
    if "stage" in event:
        _pass_on_report(tracker, str(event["stage"]), event)
        return
    match parse_event(event):
        case RunStart() as start:
            tracker.begin(start.record["name"], facts_of(start))
        case RowDone(row=row):
            _add_row(tracker, row)
        case RunEnd(status=str(status)):
            tracker.end(status)


def _pass_on_report(tracker: Tracker, stage: str, report: Mapping[str, Any]) -> None:
    match parse_event(report):
        case StepEnd():
            return
        case Resumed(history=history):  # what an earlier process has done of this training
            for entry in history:
                _add_epoch(tracker, stage, entry)
        case _:  # a stage of the user's own may report any numbers with an epoch
            _add_epoch(tracker, stage, report)


def _add_epoch(tracker: Tracker, stage: str, report: Mapping[str, Any]) -> None:
    epoch = report.get("epoch")
    values = {name: value for name, value in _numbers(report) if name not in _NO_SERIES}
    if isinstance(epoch, int) and values:
        tracker.add(f"stages/{stage}", "epoch", epoch, values)


def _add_row(tracker: Tracker, row: Mapping[str, Any]) -> None:
    for report in row["history"] if row["cached"] else ():
        _add_epoch(tracker, row["stage"], report)
    tracker.add("rows", "row", row["index"], row_values(row))
    for measurement in row["measurements"]:
        values = target_values(measurement)
        tracker.add(f"targets/{measurement['target']}", "row", row["index"], values)


def facts_of(start: RunStart) -> dict[str, Fact]:
    """What a run is run with: the resolved recipe by the paths that ``--set`` takes, and rows."""
    record = start.record
    facts = dict(_leaves(record["recipe"]))
    facts |= {f"rows.{index}": label for index, label in enumerate(start.labels)}
    return {**facts, "run.folder": start.folder, "run.mode": record["environment"]["mode"]}


def row_values(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row that no target decides."""
    return {name: float(row[name]) for name in _ROW}


def target_values(measurement: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row on one target; what was not measured is left out."""
    found = {name: _at(measurement, path) for name, path in _TARGET.items()}
    for name, facts in measurement.get("quantities", {}).items():
        ends = dict(zip((f"{name}_ci95_low", f"{name}_ci95_high"), facts["ci95"], strict=True))
        found |= {name: facts["value"], **ends}
    return {name: float(value) for name, value in found.items() if value is not None}


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    # Others' records may lack what was added since.
    for part in path:
        if value is None:
            return None
        value = value.get(part) if isinstance(value, Mapping) else value[part]
    return value


def _numbers(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers at any depth; a mapping's name goes before those in it: ``losses/label``."""
    for name, value in report.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in _numbers(value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield str(name), float(value)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Fact]]:
    children = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, child in children:
        place = f"{path}.{key}" if path else str(key)
        if isinstance(child, (Mapping, list)):
            yield from _leaves(child, place)
        elif child is not None:
            yield place, child
