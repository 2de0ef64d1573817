"""The loop that every recipe goes through.

In short::

    row 0: the model that came in
    for each stage:
        re-use its result, or run it; where all is so already, the row says so
        check the contract: input untouched, output plain, invariants kept
        for each target:
            lower -> artifact      loaded, run, compared with the module
            score                  the artifact's accuracy, on the target
            time                   in interleaved rounds with the baseline
        append a row, and rewrite the record
    where rows make images: a sheet of some

A failure leaves the rows before it on disk, and the next run of the same recipe resumes there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from compress.environment import environment
from compress.errors import CompressError, ProcessError
from compress.events import Notice, RowDone, RunEnd, RunStart
from compress.record import Record, Row
from compress.running.contact_sheet import add_contact_sheet
from compress.running.earlier_results import EarlierResults
from compress.running.evaluator import Evaluator, RowInput
from compress.running.job import CurrentModels, Job
from compress.running.lock import held
from compress.running.planned_rows import INPUT, PlannedRow, located
from compress.running.preflight import Preflight, preflight
from compress.running.ranks import broadcast_end, run_other_rank
from compress.running.row_measurements import fill_in
from compress.running.run_state import RunState
from compress.running.stage_runner import advance, try_remaining
from compress.training.distributed import Processes, join

__all__ = ["run"]


def run(job: Job, *, fresh: bool = False) -> Record:
    """Run the job to its end and return the record, which is on disk after every row.

    Raises:
        StageError: a stage failed; carries its index and label.
        CompressError: lowering or measuring failed; the rows before are on disk.
    """
    processes = join()
    if not processes.is_rank_zero:
        return run_other_rank(job, processes)
    record, problem = None, "it was interrupted"
    try:
        record = _run_rank_zero(job, processes, fresh)
        return record
    except Exception as error:
        problem = str(error)
        raise
    finally:
        with suppress(ProcessError):
            broadcast_end(processes, record, problem)


def _run_rank_zero(job: Job, processes: Processes, fresh: bool) -> Record:
    with located(INPUT):
        found = preflight(job)

    def notify(text: str) -> None:
        job.emit_and_log(Notice(text))

    with held(job.folder.root, notify):
        return _carried_out(job, processes, found, notify, fresh=fresh)


def _carried_out(
    job: Job, processes: Processes, found: Preflight, notify: Callable[[str], None], *, fresh: bool
) -> Record:
    left = job.folder.prepare(job.name, fresh=fresh)
    earlier = left.record
    evaluator = Evaluator(
        job.task,
        found.scoring,
        job.targets,
        job.folder,
        job.mode,
        job.seed,
        job.references,
        found.served,
    )
    run = RunState(
        job=job,
        models=CurrentModels.at_the_start(job, processes),
        digests=job.digests(),
        results=EarlierResults(
            job.folder, job.store, {"recipe": job.name}, fresh=fresh, notify=notify
        ),
        evaluator=evaluator,
        record=_new_record(job, earlier, found, evaluator),
        earlier=earlier,
    )
    facts = run.record.model_dump(mode="json")
    job.emit(RunStart(job.labels, str(job.folder.root), facts))
    for note in (*left.notes, job.store.note, *job.store.take_notes()):
        if note:
            notify(note)
    record = run.record
    try:
        _take_all(run, found)
        add_contact_sheet(run)
        record.status = "done"
    except KeyboardInterrupt as error:
        by = str(error) if str(error) not in ("", "SIGINT") else "the user"
        record.status, record.error = "interrupted", f"interrupted by {by}"
        raise
    except CompressError as error:
        record.status, record.error = "failed", str(error)
        raise
    except Exception as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        job.folder.save(record, earlier)
        job.emit(RunEnd(record.status))
    return record


def _take_all(run: RunState, found: Preflight) -> None:
    """All rows, in order."""
    job, record = run.job, run.record
    for planned in job.rows:
        with located(planned):
            row = advance(run, planned)
            row_input = RowInput(planned.index, planned.label, run.models.candidate)
            record.rows.append(row)
            run.inputs.append(row_input)
            if planned == INPUT:
                row.notes.extend(found.notes)
                # What is wrong with a later stage is reported before anything is measured.
                _try_all_if_new(run)
            if planned == job.baseline:
                run.evaluator.set_baseline(row_input)
            # What came before the baseline waits to be timed beside it.
            beside = run.inputs[:-1] if planned == job.baseline else ()
            fill_in(run, row, row_input, beside)
        if planned == job.baseline:
            _fill_in_before_baseline(run)
        job.folder.save(record, run.earlier)
        for complete in _rows_now_complete(run, planned):
            job.emit(RowDone(complete.index, complete.model_dump(mode="json")))


def _fill_in_before_baseline(run: RunState) -> None:
    """What came before the baseline could not be timed against it until now."""
    baseline = run.job.baseline
    for planned, row, row_input in zip(run.job.rows, run.record.rows, run.inputs, strict=False):
        if planned == baseline:
            return
        with located(planned):
            fill_in(run, row, row_input)


def _rows_now_complete(run: RunState, planned: PlannedRow) -> list[Row]:
    """The rows that wait for nothing more since this one was measured."""
    rows, baseline = run.record.rows, run.job.baseline
    if planned == baseline:
        return rows
    return rows[-1:] if planned.index > baseline.index else []


def _try_all_if_new(run: RunState) -> None:
    """Try all stages in a dry run, unless the first has a result already."""
    first = run.job.planned[0]
    if not run.results.seem_to_have(first, run.depends(first)):
        try_remaining(run, first)


def _new_record(job: Job, earlier: Record | None, found: Preflight, evaluator: Evaluator) -> Record:
    # What merged results report of their devices stays as long as their measurements do.
    targets = dict(earlier.environment.get("targets", {})) if earlier else {}
    targets |= evaluator.environments
    return Record(
        name=job.name,
        recipe=job.recipe,
        environment=environment() | {"targets": targets, "mode": job.mode},
        seed=job.seed,
        status="running",
        task=found.task_facts(job.task),
        baseline=job.baseline.index,
    )
