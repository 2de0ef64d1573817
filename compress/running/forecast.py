"""Forecast: what a recipe would cost, found without running a stage.

Each model that the recipe will train is built, and trained on its first batch. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from compress.artifact import Lowering
from compress.backends import check_formats, check_open
from compress.candidate import Candidate, count_parameters
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError
from compress.events import CacheSize, Event, Pace, StageWarning, parse_event
from compress.io.scratch import scratch
from compress.measure.open_sizes import open_axes
from compress.measure.target import Mode, backend_of, refused_formats
from compress.modules.inputs import Inputs, batch_size_of, forward
from compress.modules.outputs import by_name
from compress.quantization.numerics import Numerics
from compress.running.job import CurrentModels, Job, context_of
from compress.running.planned_rows import INPUT, PlannedRow, PlannedStage, located
from compress.running.preflight import preflight
from compress.running.reach import reach_of
from compress.stage import apply_stage, formats_of
from compress.training.data import head
from compress.training.distributed import SINGLE_PROCESS
from compress.training.loop import isolated

__all__ = ["Forecast", "StageForecast", "dry_run", "forecast", "measuring_s"]

_PROBE_BATCH = 128
_LOWERED_SAMPLES = 32
# Seconds for one row: export and encoding, scoring, and the rounds of the mode.
_MEASURE_S: dict[Mode, float] = {"quick": 12.0, "default": 32.0, "strict": 240.0}
_BYTES_PER_PARAMETER = 4
# The process with torch and onnxruntime in it, before any model or data.
_RUNTIME_BYTES = 700 << 20


@dataclass(frozen=True)
class StageForecast:
    """One line of the plan. ``seconds`` is for training only; measuring is counted apart.

    ``teacher_cache_bytes`` is what cached teacher outputs take on disk.
    """

    index: int
    label: str
    sentence: str
    parameters: int
    seconds: float
    teacher_cache_bytes: int = 0


@dataclass(frozen=True)
class Forecast:
    """The plan of a run. Times are rough: the machine may be busier, or quieter, when it runs.

    ``notes``: how rows are scored, and what there is to say about the data. ``mode`` is how hard
    rows are measured. ``measuring_s`` and the times of stages are of one seed, and the rest of
    all ``seeds``.
    """

    stages: tuple[StageForecast, ...]
    measuring_s: float
    memory_bytes: int
    disk_bytes: int
    notes: tuple[str, ...] = ()
    mode: Mode = "default"
    seeds: int = 1

    @property
    def seconds(self) -> float:
        """Training and measuring together, with every seed."""
        return self.seeds * (self.measuring_s + sum(stage.seconds for stage in self.stages))

    def repeated(self, seeds: int) -> Forecast:
        """The same with so many seeds, one after another."""
        return replace(self, seeds=seeds, disk_bytes=seeds * self.disk_bytes)


def forecast(job: Job, *, reach: bool = False) -> Forecast:
    """Try every stage in order and add up what it would cost.

    Args:
        job: whose stages are tried.
        reach: whether to note what quantizing and pruning reach of its budget, for which files are
            made and timed.

    Raises:
        CompressError: a stage that cannot work, with the message that a run would give.
    """
    batch = head(job.task.train, min(_PROBE_BATCH, len(job.task.train))).inputs
    with located(INPUT):
        found = preflight(job)
        job.candidate.validate()
        _check_targets(job, job.candidate)
    lines = [_line(INPUT, "the model that comes in", job.candidate, [])]
    lines += dry_run(job, CurrentModels.at_the_start(job, SINGLE_PROCESS), job.planned[0])
    return Forecast(
        stages=tuple(lines),
        measuring_s=measuring_s(job) * len(lines),
        memory_bytes=_memory_bytes(job, lines, batch),
        disk_bytes=sum(map(_disk_bytes, lines)) + (1 << 20),
        notes=(found.scoring.sentence, *found.notes, *(reach_of(job) if reach else ())),
        mode=job.mode,
    )


def measuring_s(job: Job) -> float:
    """About how long one row takes to be lowered, scored and timed on all targets, in seconds."""
    return _MEASURE_S[job.mode] * len(job.targets)


def dry_run(job: Job, models: CurrentModels, first: PlannedStage) -> list[StageForecast]:
    """Try the stage ``first`` and all after it, from ``models`` on, without training.

    What each stage declares is held to what the targets take; no device is contacted for that,
    since the targets of this package know it by their runtime. A new model is lowered as it is
    before it learns: one that cannot be is found now, and not when it has been trained.

    Raises:
        CompressError: a stage that cannot work, with the message that a run would give.
    """
    lines = []
    for planned in job.planned[first.position :]:
        with located(planned), isolated(job.seed):
            lines.append(_dry_run_of(job, models, planned))
    return lines


def _dry_run_of(job: Job, models: CurrentModels, planned: PlannedStage) -> StageForecast:
    stage, before = planned.stage, models.candidate
    reports: list[Mapping[str, Any]] = []
    teacher = frozen_teacher(models.teacher.fork().module, models.teacher.example)
    context = context_of(job, teacher, models.origin, planned, reports.append)
    after = apply_stage(stage, before, context, dry_run=True)
    _check_targets(job, after)
    if (after.architecture, after.edits) != (before.architecture, before.edits):
        _check_names(before, after)
        _check_lowering(job, after)
    models.advance(stage, after)
    # A stage that tries nothing gives what came in, with the notes of the one before.
    notes = after.notes if after is not before else ()
    events = [parse_event(report) for report in reports]
    warnings = [event.text for event in events if isinstance(event, StageWarning)]
    line = _line(planned, "; ".join([stage.explain(), *notes, *warnings]), after, events)
    timing_s = stage.timed_candidates() * _MEASURE_S[job.mode]
    return replace(line, seconds=line.seconds + timing_s)


def _check_targets(job: Job, candidate: Candidate) -> None:
    """See that every target takes the candidate's formats, as lowering will.

    Raises:
        LoweringError: one does not.
    """
    for target in job.targets:
        if refused := refused_formats(target):
            check_formats(formats_of(candidate), refused)
        check_open(formats_of(candidate), candidate.example, open_axes(target))


@torch.no_grad()
def _check_names(before: Candidate, after: Candidate) -> None:
    """See that a new model has the outputs by whose names rows are scored.

    Raises:
        DataError: one is missing, where there were several.
    """
    had, has = (by_name(one.shipped(forward(one.module, one.example))) for one in (before, after))
    if len(had) > 1 and (missing := [name for name in had if name not in has]):
        raise DataError(
            f"the new model has the outputs {', '.join(has)}, and the one before it has "
            f"{', '.join(had)}: {missing[0]!r} is missing, and rows are scored by their names; "
            "return the same ones."
        )


def _check_lowering(job: Job, candidate: Candidate) -> None:
    """See that a model which no row has had so far becomes a file.

    Raises:
        LoweringError: it does not.
    """
    backend = backend_of(job.targets[0])
    check = head(job.task.validation, min(_LOWERED_SAMPLES, len(job.task.validation))).inputs
    as_float = replace(candidate, numerics=Numerics())
    with scratch() as folder:
        path = Path(folder) / f"model{backend.suffix}"
        backend.lower(as_float, Lowering(), calibration=(), check=check, path=path)


def _line(
    planned: PlannedRow, sentence: str, candidate: Candidate, events: Sequence[Event | None]
) -> StageForecast:
    seconds = sum(event.seconds for event in events if isinstance(event, Pace))
    kept = sum(event.bytes for event in events if isinstance(event, CacheSize))
    parameters = count_parameters(candidate.module)[0]
    return StageForecast(planned.index, planned.label, sentence, parameters, seconds, kept)


def _disk_bytes(line: StageForecast) -> int:
    # The candidate and its artifact.
    return 2 * _BYTES_PER_PARAMETER * line.parameters + line.teacher_cache_bytes


def _memory_bytes(job: Job, lines: Sequence[StageForecast], batch: Inputs) -> int:
    tensors = batch.values() if isinstance(batch, dict) else [batch]
    sample_bytes = sum(t.nbytes for t in tensors) / batch_size_of(batch)
    scored = len(job.task.test) + sum(len(dataset) for dataset in job.task.served.values())
    samples = len(job.task.train) + len(job.task.validation) + 2 * scored
    largest = max(line.parameters for line in lines)
    # Weights, gradients, two moments of the optimizer, and the copies that stages fork.
    return _RUNTIME_BYTES + round(samples * sample_bytes) + 8 * _BYTES_PER_PARAMETER * largest
