"""The measurements of a row: those of earlier runs where nothing changed, or new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from compress.cache import CacheEntry
from compress.events import MeasurementReused, MeasureStart, Redone
from compress.measure.target import Target
from compress.record import Measurement, Row
from compress.running.earlier_results import MeasuredModel, before_of
from compress.running.evaluator import RowInput
from compress.running.keys import Dependencies
from compress.running.run_state import RunState

__all__ = ["fill_in"]


@dataclass(frozen=True)
class _Measured:
    """A row on one target, its multiply-accumulates, and the key of it all."""

    measurement: Measurement
    macs: int
    key: str | None


def fill_in(run: RunState, row: Row, row_input: RowInput, beside: Sequence[RowInput] = ()) -> None:
    """Fill in a row's measurements on all targets.

    Rows ``beside``, which have none yet, are timed along with it.

    Raises:
        CompressError: lowering or measuring failed.
    """
    measured = [_measured(run, row_input, target, beside) for target in run.job.targets]
    row.measurements = [each.measurement for each in measured]
    row.macs = measured[0].macs
    row.measured_with = " ".join(each.key or "" for each in measured).strip()
    row.measurements += _merged(run, row)


def _measured(
    run: RunState, row: RowInput, target: Target, beside: Sequence[RowInput]
) -> _Measured:
    evaluator = run.evaluator
    depends = evaluator.depends(row, target, run.digests)
    earlier, why = _earlier(run, row, target, depends)
    if earlier is not None:
        run.job.emit(MeasurementReused(row.index, row.label))
        earlier.measurement.target = target.name
        earlier.measurement.artifact.path = run.job.folder.named(evaluator.model(row, target))
        return earlier
    if why:
        run.job.emit_and_log(Redone(row.index, row.label, why, "measured"))
    run.job.emit(MeasureStart(row.index, row.label))
    waiting = [other for other in beside if _is_waiting(run, other, target)]
    measurement, macs = evaluator.measure(row, target, waiting), evaluator.macs(row, target)
    measured = {"measurement": measurement.model_dump(mode="json"), "macs": macs}
    run.results.keep_measurement(_place(run, row, target), depends, measured)
    return _Measured(measurement, macs, depends.key)


def _place(run: RunState, row: RowInput, target: Target) -> MeasuredModel:
    return MeasuredModel(row.index, row.label, target.name, run.evaluator.model(row, target))


def _is_waiting(run: RunState, row: RowInput, target: Target) -> bool:
    """Whether a row has no measurement that can be used."""
    return _earlier(run, row, target, run.evaluator.depends(row, target, run.digests))[0] is None


def _earlier(
    run: RunState, row: RowInput, target: Target, depends: Dependencies
) -> tuple[_Measured | None, str]:
    """What an earlier run measured, or why it is not used."""
    kept, why = _kept(run, _place(run, row, target), depends)
    if kept is None or (stored := _stored(kept)) is None:
        return None, why
    measurement, macs = stored
    # What could not be timed then is tried again now.
    if measurement.latency is None and run.evaluator.has_baseline:
        return None, why
    return _Measured(measurement, macs, kept.key), ""


def _stored(entry: CacheEntry) -> tuple[Measurement, int] | None:
    """What an entry says of a measurement; ``None`` where it was written by something else."""
    try:
        result = entry.facts["result"]
        return Measurement.model_validate(result["measurement"]), int(result["macs"])
    except (ValidationError, LookupError, TypeError, ValueError):
        return None


def _kept(
    run: RunState, model: MeasuredModel, depends: Dependencies
) -> tuple[CacheEntry | None, str]:
    """What is there of a measurement, or why it is not used."""
    if not run.evaluator.has_baseline:
        # Before there is a baseline, what is known of the same candidate will do for now.
        known = run.results.provisional(model)
        if known is not None and depends.is_but_for("baseline", before_of(known)):
            return known, ""
    found = run.results.measurement(model, depends)
    return found.entry, found.why


def _merged(run: RunState, row: Row) -> list[Measurement]:
    """What other devices measured of the very same files, merged into an earlier record."""
    old = run.earlier.rows if run.earlier is not None else []
    own, baseline = {target.name for target in run.job.targets}, run.record.baseline

    def is_of(measured: Measurement | None, rows: list[Row], index: int) -> bool:
        if measured is None or index >= len(rows):
            return True
        files = {m.artifact.sha256 for m in rows[index].measurements if m.target in own}
        return measured.artifact.sha256 in files

    return [
        measured
        for measured in (old[row.index].measurements if row.index < len(old) else [])
        if measured.target not in own
        and is_of(measured, run.record.rows, row.index)
        and is_of(old[baseline].on(measured.target), run.record.rows, baseline)
    ]
