"""What a run carries with it, in the process that leads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.record import Record
from compress.running.digests import Content
from compress.running.earlier_results import Results
from compress.running.evaluator import Bench, Entry
from compress.running.job import Job, Progress

__all__ = ["RunState"]


@dataclass
class RunState:
    """One run by the process that leads it."""

    job: Job
    progress: Progress
    content: Content
    results: Results
    bench: Bench
    record: Record
    earlier: Record | None
    entries: list[Entry] = field(default_factory=list)
    is_rehearsed: bool = False
