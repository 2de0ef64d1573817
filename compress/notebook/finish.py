"""What is done with a run that has come to its end."""

from __future__ import annotations

from pathlib import Path

from compress import record as facts
from compress.environment import process_index
from compress.notebook.record import Record
from compress.overwriting import check_report
from compress.running.job import Job
from compress.ship import ship_advised

__all__ = ["check_place", "finish"]


def check_place(folder: Path, *, report: bool) -> None:
    """See, before the work, that nothing of somebody else's is in the way of what is written.

    Raises:
        RecipeError: a file of a report's name is there that this tool did not write.
    """
    if report and process_index() == 0:  # which alone writes
        check_report(folder, "workdir")


def finish(record: facts.Record, job: Job, *, report: bool, ship: bool) -> Record:
    """The record of a run as its user gets it, once what goes with it is written.

    Raises:
        StorageError: the disk refused; the run itself is on disk.
    """
    finished = Record.of_run(record, job.folder.root, job.candidate.module, job.references)
    if process_index() > 0:
        return finished
    if ship:  # before the report, which says where it is
        ship_advised(record, job)
    if report:
        finished.report()
    return finished
