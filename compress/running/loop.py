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

from collections.abc import Callable
from contextlib import suppress

from compress.environment import environment
from compress.errors import CompressError, ProcessError
from compress.events import Notice, RowDone, RunEnd, RunStart
from compress.record import Record
from compress.running.earlier_results import Results
from compress.running.evaluator import Bench, Entry
from compress.running.job import Job, Progress, labels_of, located
from compress.running.lock import held
from compress.running.preflight import Preflight, preflight
from compress.running.ranks import follow, tell_end
from compress.running.row_measurements import fill_in
from compress.running.run_state import RunState
from compress.running.stage_runner import advance, check_rest
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

    def tell(text: str) -> None:
        job.tell_and_log(Notice(text))

    with held(job.folder.root, tell):
        return _carried_out(job, processes, found, tell, fresh=fresh)


def _carried_out(
    job: Job, processes: Processes, found: Preflight, tell: Callable[[str], None], *, fresh: bool
) -> Record:
    left = job.folder.prepare(job.name, fresh=fresh)
    earlier = left.record
    bench = Bench(
        job.task, found.scoring, job.targets, job.folder, job.mode, job.seed, job.references
    )
    words = {"recipe": job.name}
    run = RunState(
        job=job,
        progress=Progress.at_the_start(job, processes),
        content=job.content(),
        results=Results(job.folder, job.store, words, fresh=fresh, tell=tell),
        bench=bench,
        record=_new_record(job, earlier, found, bench),
        earlier=earlier,
    )
    told = run.record.model_dump(mode="json")
    job.tell(RunStart(labels_of(job.stages), str(job.folder.root), told))
    for note in (*left.notes, job.store.note, *job.store.take_notes()):
        if note:
            tell(note)
    record = run.record
    try:
        _take_all(run, found)
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
        job.tell(RunEnd(record.status))
    return record


def _take_all(run: RunState, found: Preflight) -> None:
    """All rows, in order."""
    job, record = run.job, run.record
    for index, label in enumerate(labels_of(job.stages)):
        with located(index, label):
            row = advance(run, index, label)
            row.notes.extend(found.notes if index == 0 else ())
            entry = Entry(index, label, run.progress.candidate)
            record.rows.append(row)
            run.entries.append(entry)
            if index == 0:
                # What is wrong with a later stage is said before anything is measured.
                _check_rest_if_new(run)
            if index == record.baseline:
                run.bench.set_baseline(entry)
            fill_in(run, row, entry)
        if index == record.baseline:
            # What came before the baseline could not be timed against it until now.
            for past, place in zip(record.rows[:index], run.entries, strict=False):
                with located(past.index, past.stage):
                    fill_in(run, past, place)
        job.folder.save(record, run.earlier)
        if index >= record.baseline:
            for whole in record.rows[0 if index == record.baseline else index :]:
                job.tell(RowDone(whole.index, whole.model_dump(mode="json")))


def _check_rest_if_new(run: RunState) -> None:
    """Rehearse all stages, unless the first has a result already."""
    index, label = 1, labels_of(run.job.stages)[1]
    depends = run.progress.depends(run.job, run.content, index)
    if not run.results.seem_to_have(index, label, depends):
        check_rest(run, index)


def _new_record(job: Job, earlier: Record | None, found: Preflight, bench: Bench) -> Record:
    # What devices told whose results were merged stays as long as their measurements do.
    targets = dict(earlier.environment.get("targets", {})) if earlier else {}
    targets |= bench.environments
    return Record(
        name=job.name,
        recipe=job.recipe,
        environment=environment() | {"targets": targets, "mode": job.mode},
        seed=job.seed,
        status="running",
        task=found.scoring.task_facts(job.task),
        baseline=1 if job.stages and job.stages[0].kind == "train" else 0,
    )
