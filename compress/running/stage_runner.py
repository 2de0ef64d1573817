"""One stage of a run: found among earlier results, or carried out and held to its contract."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from compress.candidate import Candidate, count_parameters
from compress.errors import CheckpointError, ContractViolation
from compress.events import (
    EpochEnd,
    Redone,
    Resumed,
    StageStart,
    StageWarning,
    StepEnd,
    Widths,
    parse_event,
)
from compress.pruning.sparsity import verify_zeros
from compress.quantization.fakequant import declared_formats
from compress.record import LayerWidth, Row
from compress.running.earlier_results import Found, StageResult
from compress.running.forecast import rehearsed
from compress.running.job import Job, Work, load_candidate, trains
from compress.running.keys import Dependencies
from compress.running.ranks import tell_candidate, tell_stage
from compress.running.run_state import RunState
from compress.stage import Context, Effect, Stage, carry_out
from compress.training.distributed import SINGLE_PROCESS

__all__ = ["advance", "check_effects", "check_rest"]

#: What makes a saved candidate unusable; such a stage is simply run again.
_DAMAGED = (CheckpointError, OSError)


def advance(run: RunState, index: int, label: str) -> Row:
    """Run one stage, or find its result; the row has no measurement yet."""
    job, progress = run.job, run.progress
    parent = progress.candidate.fingerprint
    job.tell(StageStart(index, label, len(job.stages)))
    why = ""
    if index == 0:
        job.candidate.validate()
        folder = job.folder.stage(0, label) / "candidate"
        job.candidate.save(folder)
        tell_candidate(progress.processes, 0, folder)
        result, cached = StageResult(parent, 0.0, job.candidate.notes, ()), False
    else:
        result, cached, why = _take(run, job.stages[index - 1], index, label)
    total, nonzero = count_parameters(progress.candidate.module)
    return Row(
        index=index,
        stage=label,
        kind=job.stages[index - 1].kind if index else "input",
        seconds=result.seconds,
        cached=cached,
        reason=why,
        fingerprint=result.fingerprint,
        parent=parent if index else None,
        parameters=total,
        nonzero_parameters=nonzero,
        macs=0,
        notes=list(result.notes),
        history=list(result.history),
        widths=[LayerWidth.model_validate(width) for width in result.widths],
    )


def _take(run: RunState, stage: Stage, index: int, label: str) -> tuple[StageResult, bool, str]:
    """Move past one stage; its result, whether it was there already, and why it was not used."""
    job, progress = run.job, run.progress
    depends, folder = progress.depends(job, run.content, index), job.folder.stage(index, label)
    found = run.results.stage(index, label, depends)
    known = _earlier_result(run, index, label, found)
    if known is None:
        check_rest(run, index)
        if found.why:
            job.tell_and_log(Redone(index, label, found.why))
    result, after = known or _run_stage(run, stage, index, label, depends)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    tell_candidate(progress.processes, index, folder / "candidate")
    progress.advance(stage, after)
    return result, known is not None, "" if known else found.why


@dataclass
class _Reports:
    """What a stage reports while it works: logged, told, and kept for its row."""

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
        told = {"stage": self.label, **report}
        if report["event"] != StepEnd.event:
            self.job.folder.log(told)
        self.job.callback(told)


def _run_stage(
    run: RunState, stage: Stage, index: int, label: str, depends: Dependencies
) -> tuple[StageResult, Candidate]:
    job, progress = run.job, run.progress
    before, folder = progress.candidate, job.folder.stage(index, label)
    reports = _Reports(job, label)
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    work = Work.of(depends)
    if trains(stage):
        tell_stage(progress.processes, index, work)
    after = _checked(stage, before, progress.context(job, index, work, reports.take))
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
    run.results.keep_stage(index, label, depends, result)
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
    run: RunState, index: int, label: str, found: Found
) -> tuple[StageResult, Candidate] | None:
    if found.entry is None:
        return None
    folder = run.job.folder.stage(index, label) / "candidate"
    try:
        result = StageResult.of(found.entry.facts["result"])
        after = load_candidate(run.job, folder, run.progress.candidate)
    except (*_DAMAGED, LookupError, TypeError, ValueError):
        return None
    return (result, after) if after.fingerprint == result.fingerprint else None


def check_rest(run: RunState, index: int) -> None:
    """Rehearse the stages from ``index`` on before the first of them is worked for, once a run.

    Raises:
        CompressError: what a stage would fail with.
    """
    if not run.is_rehearsed:
        run.is_rehearsed = True
        rehearsed(run.job, replace(run.progress, processes=SINGLE_PROCESS), index)
