"""The measurements of a row: those of earlier runs where nothing changed, or new ones."""

from __future__ import annotations

from pydantic import ValidationError

from compress.cache import CacheEntry
from compress.events import MeasurementReused, MeasureStart, Redone
from compress.measure.target import Target
from compress.record import Measurement, Row
from compress.running.earlier_results import RowModel, before_of
from compress.running.evaluator import RowInput
from compress.running.keys import Dependencies
from compress.running.run_state import RunState

__all__ = ["fill_in"]


def fill_in(run: RunState, row: Row, row_input: RowInput) -> None:
    """Fill in a row's measurements on all targets.

    Raises:
        CompressError: lowering or measuring failed.
    """
    measured = [_measured(run, row, row_input, target) for target in run.job.targets]
    row.measurements = [measurement for measurement, _, _ in measured]
    row.macs = measured[0][1]
    row.measured_with = " ".join(key or "" for _, _, key in measured).strip()
    row.measurements += _merged(run, row)


def _measured(
    run: RunState, row: Row, row_input: RowInput, target: Target
) -> tuple[Measurement, int, str | None]:
    """A row on one target: its measurement, its multiply-accumulates, and the key of it."""
    evaluator = run.evaluator
    depends = evaluator.depends(row_input, target, run.digests)
    model = RowModel(row.index, row.stage, target.name, evaluator.model(row_input, target))
    kept, why = _kept(run, model, depends)
    if kept is not None and (stored := _stored(kept)) is not None:
        measurement, macs = stored
        # What could not be timed then is tried again now.
        if measurement.latency is not None or not evaluator.has_baseline:
            run.job.emit(MeasurementReused(row.index, row.stage))
            measurement.target = target.name
            measurement.artifact.path = run.job.folder.named(model.path)
            return measurement, macs, kept.key
    if why:
        run.job.emit_and_log(Redone(row.index, row.stage, why, "measured"))
    run.job.emit(MeasureStart(row.index, row.stage))
    measurement, macs = evaluator.measure(row_input, target), evaluator.macs(row_input, target)
    measured = {"measurement": measurement.model_dump(mode="json"), "macs": macs}
    run.results.keep_measurement(model, depends, measured)
    return measurement, macs, depends.key


def _stored(entry: CacheEntry) -> tuple[Measurement, int] | None:
    """What an entry says of a measurement; ``None`` where it was written by something else."""
    try:
        result = entry.facts["result"]
        return Measurement.model_validate(result["measurement"]), int(result["macs"])
    except (ValidationError, LookupError, TypeError, ValueError):
        return None


def _kept(run: RunState, model: RowModel, depends: Dependencies) -> tuple[CacheEntry | None, str]:
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
