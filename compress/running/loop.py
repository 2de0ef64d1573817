"""The loop that every recipe goes through.

In words::

    row 0: the model that came in
    for each stage:
        re-use its result, or run it; where all is so already, the row says so
        check the contract: input untouched, output plain, promises kept
        for each target:
            lower -> artifact      loaded, run, compared with the module
            score                  the artifact's accuracy, on the target
            time                   in interleaved rounds with the baseline
        append a row, and rewrite the record

A failure leaves the rows before it on disk, and the next run of the same recipe goes on there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from compress.algorithms.fakequant import declared_formats
from compress.algorithms.processes import Processes, join
from compress.algorithms.sparsity import verify_zeros
from compress.candidate import Candidate, count_parameters
from compress.environment import environment
from compress.errors import CompressError, ContractViolation, ProcessError
from compress.record import LayerWidth, Record, Row
from compress.running.folder import DAMAGED, StageResult
from compress.running.followers import follow, tell_candidate, tell_end, tell_stage
from compress.running.job import (
    Job,
    Progress,
    labels_of,
    load_candidate,
    located,
    trains,
)
from compress.running.measuring import Bench, Entry
from compress.running.preflight import Preflight, preflight
from compress.stages.base import Context, Effect, Stage, carry_out

__all__ = ["check_effects", "run"]


def run(job: Job, *, fresh: bool = False) -> Record:
    """Run the job to its end and return the record, which is on disk after every row.

    Raises:
        StageError: a stage failed; carries its index and label.
        CompressError: lowering or measuring failed; the rows before are on disk.
    """
    processes = join()
    if not processes.is_first:
        return follow(job, processes)
    record, problem = None, "it was interrupted"
    try:
        record = _lead(job, processes, fresh)
        return record
    except Exception as error:
        problem = str(error)
        raise
    finally:
        with suppress(ProcessError):
            tell_end(processes, record, problem)


def _lead(job: Job, processes: Processes, fresh: bool) -> Record:
    with located(0, labels_of(job.stages)[0]):
        found = preflight(job)
    earlier = job.folder.prepare(job.name, fresh=fresh)
    record = _new_record(job, earlier, found)
    progress = Progress.at_the_start(job, processes)
    entries: list[Entry] = []
    bench = Bench(job.task, found.scoring, job.targets, job.folder, job.mode, job.seed)
    start = {"labels": labels_of(job.stages), "folder": str(job.folder.root)}
    job.observer({"event": "start", **start, "record": record.model_dump(mode="json")})
    try:
        for index, label in enumerate(labels_of(job.stages)):
            with located(index, label):
                row = _advance(job, progress, index, label)
                row.notes.extend(found.notes if index == 0 else ())
                entry = Entry(index, label, progress.candidate)
                record.rows.append(row)
                entries.append(entry)
                _measure(job, bench, record, row, entry, earlier)
            if index == record.baseline:
                # What came before the baseline could not be timed against it until now.
                for past, place in zip(record.rows[:index], entries, strict=False):
                    _measure(job, bench, record, past, place, earlier)
            job.folder.save(record, earlier)
            if index >= record.baseline:
                for whole in record.rows[0 if index == record.baseline else index :]:
                    told = whole.model_dump(mode="json")
                    job.observer({"event": "row", "index": whole.index, "row": told})
        record.status = "done"
    except KeyboardInterrupt:
        record.status, record.error = "interrupted", "interrupted by the user"
        raise
    except CompressError as error:
        record.status, record.error = "failed", str(error)
        raise
    except Exception as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        job.folder.save(record, earlier)
        job.observer({"event": "end", "status": record.status})
    return record


def _new_record(job: Job, earlier: Record | None, found: Preflight) -> Record:
    # What devices told whose results were merged stays as long as their measurements do.
    targets = dict(earlier.environment.get("targets", {})) if earlier else {}
    targets |= {target.name: target.environment() for target in job.targets}
    return Record(
        name=job.name,
        recipe=job.recipe,
        environment=environment() | {"targets": targets, "mode": job.mode},
        seed=job.seed,
        status="running",
        task=found.scoring.task_facts(job.task),
        baseline=1 if job.stages and job.stages[0].kind == "train" else 0,
    )


def _advance(job: Job, progress: Progress, index: int, label: str) -> Row:
    """Run one stage, or find its result; the row has no measurement yet."""
    parent = progress.candidate.fingerprint
    job.observer({"event": "stage", "index": index, "label": label, "of": len(job.stages)})
    if index == 0:
        job.candidate.validate()
        folder = job.folder.stage(0, label) / "candidate"
        job.candidate.save(folder)
        tell_candidate(progress.processes, 0, folder)
        result, cached = StageResult(parent, parent, 0.0, job.candidate.notes, ()), False
    else:
        result, cached = _take(job, progress, job.stages[index - 1], index, label)
    total, nonzero = count_parameters(progress.candidate.module)
    return Row(
        index=index,
        stage=label,
        kind=job.stages[index - 1].kind if index else "input",
        seconds=result.seconds,
        cached=cached,
        fingerprint=result.fingerprint,
        parent=parent if index else None,
        parameters=total,
        nonzero_parameters=nonzero,
        macs=0,
        notes=list(result.notes),
        history=list(result.history),
        widths=[LayerWidth.model_validate(width) for width in result.widths],
    )


def _take(
    job: Job, progress: Progress, stage: Stage, index: int, label: str
) -> tuple[StageResult, bool]:
    """Move the progress past one stage; whether its result was there already."""
    key, folder = progress.key(job, index), job.folder.stage(index, label)
    found = _earlier_result(job, index, label, key, progress.candidate)
    result, after = found or _run_stage(job, progress, stage, index, label, key)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    tell_candidate(progress.processes, index, folder / "candidate")
    progress.advance(stage, after)
    return result, found is not None


def _run_stage(
    job: Job,
    progress: Progress,
    stage: Stage,
    index: int,
    label: str,
    key: str,
) -> tuple[StageResult, Candidate]:
    before, folder = progress.candidate, job.folder.stage(index, label)
    history: list[dict[str, Any]] = []
    warnings: list[str] = []
    widths: list[dict[str, Any]] = []
    earlier_s: list[float] = []

    def report(event: Mapping[str, Any]) -> None:
        if event["event"] == "epoch":
            history.append({k: v for k, v in event.items() if k not in ("event", "left_s")})
        elif event["event"] == "resumed":
            history.extend(event["history"])
            earlier_s.append(event["seconds"])
        elif event["event"] == "widths":
            widths[:] = event["layers"]
        elif event["event"] == "warning":
            warnings.append(event["text"])
        if event["event"] != "step":
            job.folder.log({"stage": label, **event})
        job.observer({"stage": label, **event})

    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage.json").unlink(missing_ok=True)
    if trains(stage):
        tell_stage(progress.processes, index, key)
    after = _checked(stage, before, progress.context(job, index, key, report))
    after = replace(after, lineage=(*before.lineage, before.fingerprint))
    after.save(folder / "candidate")
    result = StageResult(
        key=key,
        fingerprint=after.fingerprint,
        seconds=time.perf_counter() - start + sum(earlier_s),
        notes=(*after.notes, *warnings),
        history=tuple(history),
        widths=tuple(widths),
    )
    job.folder.remember(index, label, result)
    return result, after


def _checked(stage: Stage, before: Candidate, context: Context) -> Candidate:
    """Run a stage and hold it to the contract."""
    fingerprint = before.fingerprint
    after = carry_out(stage, before, context)
    if before.fingerprint != fingerprint:
        raise ContractViolation(f"the stage {stage.kind!r} changed its input; it must fork it.")
    after.validate()
    check_effects(stage, before, after)
    if after.invariants:
        shared = [p for p in before.invariants if p in after.invariants]
        verify_zeros(before.module, after.module, shared)
    declared_formats(after.module, after.numerics, after.example)
    return after


def check_effects(stage: Stage, before: Candidate, after: Candidate) -> None:
    """Hold a stage to its declared effects.

    Raises:
        ContractViolation: it changed something that it does not declare.
    """
    old, new = before.module.state_dict(), after.module.state_dict()
    same_structure = {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}
    changed = {
        Effect.STRUCTURE: not same_structure,
        Effect.WEIGHTS: same_structure and any(not v.equal(new[k]) for k, v in old.items()),
        Effect.NUMERICS: before.numerics != after.numerics,
        Effect.INVARIANTS: before.invariants != after.invariants,
    }
    for effect, happened in changed.items():
        if happened and effect not in stage.effects:
            raise ContractViolation(
                f"the stage {stage.kind!r} changed {effect.value}, which is not among its declared "
                f"effects ({', '.join(sorted(e.value for e in stage.effects)) or 'none'})."
            )


def _earlier_result(
    job: Job, index: int, label: str, key: str, before: Candidate
) -> tuple[StageResult, Candidate] | None:
    result = job.folder.result(index, label)
    if result is None or result.key != key:
        return None
    try:
        after = load_candidate(job, job.folder.stage(index, label) / "candidate", before)
    except DAMAGED:
        return None
    return (result, after) if after.fingerprint == result.fingerprint else None


def _measure(
    job: Job, bench: Bench, record: Record, row: Row, entry: Entry, earlier: Record | None
) -> None:
    """Fill in a row's measurements: those of an earlier run where nothing changed, or new ones."""
    if row.index == record.baseline:
        bench.set_baseline(entry)
    key = bench.key(row.fingerprint)
    known = earlier.rows[row.index] if earlier and row.index < len(earlier.rows) else None
    if known is not None and known.measurements:
        # Before there is a baseline, what is known of the same candidate will do for now.
        unmoved = known.fingerprint == row.fingerprint and not bench.has_baseline
        # What could not be timed then is tried again now.
        own = {target.name for target in job.targets}
        whole = all(m.latency for m in known.measurements if m.target in own)
        if (known.measured_with == key and whole) or unmoved:
            job.observer({"event": "reuse", "index": row.index, "label": row.stage})
            row.measurements, row.macs = known.measurements, known.macs
            row.measured_with = known.measured_with
            return
    job.observer({"event": "measure", "index": row.index, "label": row.stage})
    row.measurements = bench.compared(entry) if bench.has_baseline else bench.scored(entry)
    row.macs, row.measured_with = bench.macs(entry), key
