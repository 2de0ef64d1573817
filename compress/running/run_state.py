"""What rank 0 carries through a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.record import Record
from compress.running.digests import ContentDigests
from compress.running.earlier_results import EarlierResults
from compress.running.evaluator import Evaluator, RowInput
from compress.running.job import CurrentModels, Job
from compress.running.keys import Dependencies
from compress.running.planned_rows import PlannedStage

__all__ = ["RunState"]


@dataclass
class RunState:
    """One run, in rank 0.

    Args:
        job: what is run.
        models: of the last row.
        digests: of the task and the model that comes in.
        results: of earlier runs.
        evaluator: measures rows.
        record: with the rows so far.
        earlier: the record that an earlier run left in the folder.
        inputs: what was measured for each row so far.
        is_dry_run_done: whether the stages were tried out before the first of them was run.
    """

    job: Job
    models: CurrentModels
    digests: ContentDigests
    results: EarlierResults
    evaluator: Evaluator
    record: Record
    earlier: Record | None
    inputs: list[RowInput] = field(default_factory=list)
    is_dry_run_done: bool = False

    def depends(self, planned: PlannedStage) -> Dependencies:
        """All that the result of the next stage depends on."""
        return self.models.depends(self.job, self.digests, planned, self.evaluator.first_target)
