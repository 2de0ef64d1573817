"""Merge: a device's result becomes a target of the run's record.

Every row's measurement is computed here from the raw samples, for the very bytes that the run made:
a result of other bytes is refused, and names the row.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

from compress.device.result import Result, ResultRow, load_result
from compress.errors import DataError, RecordError
from compress.io.atomic import write_atomically
from compress.measure.score import accuracy_facts
from compress.measure.session import PredictedOutputs
from compress.measure.target import Failure, Timing
from compress.pareto import front_facts
from compress.record import Accuracy, Measurement, Record

__all__ = ["merge"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_AGREES = 0.99


def merge(
    record: Record, folder: Path, path: Path, *, name: str | None = None, replace: bool = False
) -> str:
    """Take the result in ``path`` into the record, and save both; the new target's name.

    Args:
        record: of the run; gains a measurement for each row.
        folder: the run's; gains ``measurements/NAME.jsonl`` with the raw samples.
        path: the result.
        name: of the target; by default made from the device's board or CPU.
        replace: whether a target of this name may be replaced.

    Raises:
        RecordError: the result cannot be read, is of other models than the run's, or there is a
            target of this name; the record is as it was.
        StorageError: the disk refused.
    """
    result = load_result(path)
    sources = [_source(record, result, row) for row in result.rows]
    target = _name(record, result, name, replace=replace)
    measured = [
        _measurement(record, result, place, source, target) for place, source in enumerate(sources)
    ]
    write_atomically(folder / "measurements" / f"{target}.jsonl", result.text())
    for row in record.rows:
        row.measurements = [m for m in row.measurements if m.target != target]
    for facing, measurement in zip(result.rows, measured, strict=True):
        record.rows[facing.index].measurements.append(measurement)
    content = result.content
    facts = {
        "mode": content.mode,
        "bundle_sha256": content.bundle_sha256,
        "test_samples": content.samples.count,
        "merged": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    targets = {**record.environment.get("targets", {})}
    targets[target] = {**result.session.environment, **facts}
    record.environment["targets"] = targets
    record.pareto[target] = front_facts(record, target)
    record.save(folder)
    return target


def _source(record: Record, result: Result, row: ResultRow) -> Measurement:
    """The run's own measurement of a row, on the target whose models were bundled."""
    path, target = result.path, result.content.target
    if row.index >= len(record.rows):
        raise RecordError(
            f"{path}: it has a row {row.index} ({row.stage}), and this run has {len(record.rows)} "
            "rows; merge it into the run that was bundled."
        )
    found = record.rows[row.index].on(target)
    if found is None:
        raise RecordError(
            f"{path}: it is of the models for {target!r}, on which this run's row {row.index} "
            f"({record.rows[row.index].stage}) was not measured."
        )
    if found.artifact.sha256 != row.sha256:
        raise RecordError(
            f"{path}: row {row.index} ({row.stage}) was measured from other bytes (sha256 "
            f"{row.sha256[:12]}...) than this run's {found.artifact.path} "
            f"({found.artifact.sha256[:12]}...); bundle this run, and measure that."
        )
    if result.rows[0].index != record.baseline:
        raise RecordError(
            f"{path}: it is compared with row {result.rows[0].index}, and this run with row "
            f"{record.baseline}; bundle this run, and measure that."
        )
    return found


def _name(record: Record, result: Result, name: str | None, *, replace: bool) -> str:
    if name is None:
        device = result.session.environment["device"]
        words = re.findall(r"[a-z0-9]+", str(device.get("board") or device.get("cpu")).lower())
        name = "-".join(words)[:40].strip("-") or "device"
    if not _NAME.fullmatch(name):
        raise RecordError(
            f"the target's name {name!r} must begin with a letter or digit, and be made of up to "
            "64 of those, dots, dashes and underscores."
        )
    if name in record.targets and not replace:
        raise RecordError(
            f"{result.path}: this run has a target {name!r} already; give the new one another "
            "--name, or --replace to replace it."
        )
    if name == result.content.target:
        raise RecordError(
            f"{result.path}: {name!r} is the target whose models were measured, and they are its "
            "own; give another --name."
        )
    return name


def _measurement(
    record: Record, result: Result, place: int, source: Measurement, target: str
) -> Measurement:
    timing, outputs = result.session.timings[place], _outputs(result, place)
    measurement = Measurement(
        target=target,
        runtime="onnxruntime",
        artifact=source.artifact.model_copy(),
        accuracy=_accuracy(record, result, place),
        warnings=_notes(result, outputs),
    )
    if outputs.host is not None:
        # An addition to the schema: how far the device is from the machine that bundled.
        measurement = Measurement.model_validate(
            {**measurement.model_dump(), "versus_host": outputs.host}
        )
    if isinstance(timing, Failure):
        measurement.warnings.append(timing.error)
        return measurement
    timing.note_in(measurement)
    # Without the baseline's time there is nothing to be faster than.
    if isinstance(result.session.timings[0], Timing):
        measurement.speedup = timing.speedup
    measurement.warnings.extend(timing.warnings)
    return measurement


def _outputs(result: Result, place: int) -> PredictedOutputs:
    outputs = result.session.outputs
    return outputs[place] if outputs else PredictedOutputs()


def _accuracy(record: Record, result: Result, place: int) -> Accuracy | None:
    scores, baseline = _outputs(result, place).scores, _outputs(result, 0).scores
    if scores is None:
        return None
    try:
        return accuracy_facts(
            scores,
            None if place == 0 else baseline,
            higher_is_better=record.task.higher_is_better,
        )
    except DataError as error:
        raise RecordError(f"{result.path}: {error}") from error


def _notes(result: Result, outputs: PredictedOutputs) -> list[str]:
    notes = [] if outputs.error is None else [outputs.error]
    count, of = result.content.samples.count, result.content.samples.of
    if outputs.scores is None and outputs.error is None:
        notes.append("it was not scored there: the metric is code of the recipe's own")
    elif count < of:
        notes.append(f"its score is from {count:,} of {of:,} test samples")
    # A stranger's numbers: their types are looked at, not trusted.
    agreement = outputs.host.get("agreement") if outputs.host else None
    if outputs.host and isinstance(agreement, float) and agreement < _AGREES:
        notes.append(
            f"its outputs are those of the machine that bundled it for only {agreement:.1%} of "
            f"{outputs.host.get('samples')} samples"
        )
    return notes
