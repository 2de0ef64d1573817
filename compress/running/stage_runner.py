"""One stage of a run: found among earlier results, or carried out and held to its contract."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from compress.candidate import Candidate, count_parameters
from compress.errors import CheckpointError, ContractViolation
from compress.events import (
    EpochEnd,
    Expected,
    Redone,
    Rehearsal,
    Resumed,
    StageStart,
    StageWarning,
    StepEnd,
    Widths,
    parse_event,
)
from compress.pruning.invariants import shared_by
from compress.pruning.sparsity import verify_zeros
from compress.quantization.fakequant import declared_formats
from compress.record import LayerWidth, Row
from compress.running.earlier_results import FoundResult, StageResult
from compress.running.forecast import dry_run, measuring_s
from compress.running.job import Job, ResumeKeys, load_candidate, trains
from compress.running.keys import Dependencies, seed_of
from compress.running.planned_rows import PlannedRow, PlannedStage
from compress.running.ranks import broadcast_candidate, broadcast_stage
from compress.running.run_state import RunState
from compress.stage import CandidateEvaluator, Context, Effect, NoEvaluator, Stage, apply_stage
from compress.training.distributed import SINGLE_PROCESS

__all__ = ["advance", "check_effects", "try_remaining"]

#: What makes a saved candidate unusable; such a stage is simply run again.
_DAMAGED = (CheckpointError, OSError)


def advance(run: RunState, planned: PlannedRow) -> Row:
    """Run one stage, or find its result; the row has no measurement yet."""
    job, models = run.job, run.models
    parent = models.candidate.fingerprint
    job.emit(StageStart(planned.index, planned.label, len(job.stages)))
    if isinstance(planned, PlannedStage):
        result, cached, why = _take(run, planned)
    else:
        result, cached, why = _take_input(run, planned), False, ""
    total, nonzero = count_parameters(models.candidate.module)
    return Row(
        index=planned.index,
        stage=planned.label,
        kind=planned.kind,
        seconds=result.seconds,
        cached=cached,
        reason=why,
        fingerprint=result.fingerprint,
        parent=parent if isinstance(planned, PlannedStage) else None,
        parameters=total,
        nonzero_parameters=nonzero,
        macs=0,
        notes=list(result.notes),
        history=list(result.history),
        widths=[LayerWidth.model_validate(width) for width in result.widths],
    )


def _take_input(run: RunState, planned: PlannedRow) -> StageResult:
    """Save the model that comes in, and give it to the other ranks."""
    job = run.job
    job.candidate.validate()
    folder = job.stage_folder(planned) / "candidate"
    job.candidate.save(folder)
    broadcast_candidate(run.models.processes, planned.position, folder)
    return StageResult(job.candidate.fingerprint, 0.0, job.candidate.notes, ())


def _take(run: RunState, planned: PlannedStage) -> tuple[StageResult, bool, str]:
    """Move past one stage; its result, whether it was there already, and why it was not used."""
    job, models = run.job, run.models
    depends, folder = run.depends(planned), job.stage_folder(planned)
    found = run.results.stage(planned, depends)
    known = _earlier_result(run, planned, found)
    if known is None:
        try_remaining(run, planned)
        if found.why:
            job.emit_and_log(Redone(planned.index, planned.label, found.why))
    result, after = known or _run_stage(run, planned, depends)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    broadcast_candidate(models.processes, planned.position, folder / "candidate")
    models.advance(planned.stage, after)
    return result, known is not None, "" if known else found.why


@dataclass
class _Reports:
    """What a stage reports while it works: logged, given to the callback, and kept for its row."""

    job: Job
    label: str
    history: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    widths: list[dict[str, Any]] = field(default_factory=list)
    earlier_s: float = 0.0

    def take(self, report: Mapping[str, Any]) -> None:
        """Take one event, or a mapping of a stage of the user's own."""
        if report["event"] == EpochEnd.event:
            # With whatever numbers a stage of the user's own adds.
            self.history.append({k: v for k, v in report.items() if k not in ("event", "left_s")})
        match parse_event(report):
            case Resumed(seconds=seconds, history=history):
                self.history.extend(map(dict, history))
                self.earlier_s += seconds
            case Widths(layers=layers):
                self.widths = list(map(dict, layers))
            case StageWarning(text=text):
                self.warnings.append(text)
        event = {"stage": self.label, **report}
        if report["event"] != StepEnd.event:
            self.job.folder.log(event)
        self.job.callback(event)


def _run_stage(
    run: RunState, planned: PlannedStage, depends: Dependencies
) -> tuple[StageResult, Candidate]:
    job, models, stage = run.job, run.models, planned.stage
    before, folder = models.candidate, job.stage_folder(planned)
    reports, keys = _Reports(job, planned.label), ResumeKeys.of(depends)
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    if trains(stage):
        broadcast_stage(models.processes, planned, keys)
    with _evaluator_of(run, planned, reports, keys) as evaluator:
        context = models.context(job, planned, keys, reports.take, evaluator)
        after = _checked(stage, before, context)
    after = replace(after, lineage=(*before.lineage, before.fingerprint))
    (folder / "stage.json").unlink(missing_ok=True)
    after.save(folder / "candidate")
    result = StageResult(
        fingerprint=after.fingerprint,
        seconds=time.perf_counter() - start + reports.earlier_s,
        notes=(*after.notes, *reports.warnings),
        history=tuple(reports.history),
        widths=tuple(reports.widths),
    )
    run.results.keep_stage(planned, depends, result)
    return result, after


def _evaluator_of(
    run: RunState, planned: PlannedStage, reports: _Reports, keys: ResumeKeys
) -> AbstractContextManager[CandidateEvaluator]:
    stage = planned.stage
    if not stage.uses_evaluator():
        # Its result would be re-used on other targets.
        why = f"the class of {stage.kind!r} does not declare `measures = True`"
        return nullcontext(NoEvaluator(why))
    workdir, seed = run.job.stage_folder(planned), seed_of(run.job.seed, planned.index)
    kept = keys.checkpoint_in(workdir)
    return run.evaluator.for_stage(run.models.candidate, workdir, seed, reports.take, kept)


def _checked(stage: Stage, before: Candidate, context: Context) -> Candidate:
    """Run a stage and hold it to the contract."""
    fingerprint = before.fingerprint
    after = apply_stage(stage, before, context)
    if before.fingerprint != fingerprint:
        raise ContractViolation(f"the stage {stage.kind!r} changed its input; it must fork it.")
    after.validate()
    check_effects(stage, before, after)
    if after.invariants:
        kept = shared_by(before.invariants, after.invariants)
        verify_zeros(before.module, after.module, kept)
    declared_formats(after.module, after.numerics, after.example)
    return after


def check_effects(stage: Stage, before: Candidate, after: Candidate) -> None:
    """Hold a stage to its declared effects.

    Raises:
        ContractViolation: it changed something that it does not declare.
    """
    old, new = before.module.state_dict(), after.module.state_dict()
    same_structure = {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}
    # A clip is learned with the weights, and ends with them: it declares no format.
    same_clips = before.numerics.clip_rules == after.numerics.clip_rules
    same_weights = same_structure and all(v.equal(new[k]) for k, v in old.items())
    changed = {
        Effect.STRUCTURE: not same_structure,
        Effect.WEIGHTS: same_structure and not (same_weights and same_clips),
        Effect.NUMERICS: before.numerics.without_clips() != after.numerics.without_clips(),
        Effect.INVARIANTS: before.invariants != after.invariants,
    }
    for effect, happened in changed.items():
        if happened and effect not in stage.effects:
            raise ContractViolation(
                f"the stage {stage.kind!r} changed {effect.value}, which is not among its declared "
                f"effects ({', '.join(sorted(e.value for e in stage.effects)) or 'none'})."
            )


def _earlier_result(
    run: RunState, planned: PlannedStage, found: FoundResult
) -> tuple[StageResult, Candidate] | None:
    if found.entry is None:
        return None
    folder = run.job.stage_folder(planned) / "candidate"
    try:
        result = StageResult.of(found.entry.facts["result"])
        after = load_candidate(run.job, folder, run.models.candidate)
    except (*_DAMAGED, LookupError, TypeError, ValueError):
        return None
    return (result, after) if after.fingerprint == result.fingerprint else None


def try_remaining(run: RunState, first: PlannedStage) -> None:
    """Try a stage and all after it in a dry run, before the first of them is run; once a run.

    Raises:
        CompressError: what a stage would fail with.
    """
    if not run.is_dry_run_done:
        run.is_dry_run_done = True
        job = run.job
        job.emit(Rehearsal())
        tried = dry_run(job, replace(run.models, processes=SINGLE_PROCESS), first)
        job.emit(Expected({line.index: line.seconds for line in tried}, measuring_s(job)))
