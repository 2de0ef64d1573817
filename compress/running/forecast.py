"""Forecast: what a recipe would cost, found without running a stage.

Each model that the recipe will train is built, and trained on its first batch. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.candidate import Candidate, count_parameters
from compress.distillation.teachers import frozen_teacher
from compress.events import CacheSize, Event, Pace, StageWarning, parse_event
from compress.measure.target import Mode
from compress.modules.inputs import Inputs, batch_size_of
from compress.running.job import Job, Progress, context_of, labels_of, located
from compress.running.preflight import preflight
from compress.stage import carry_out
from compress.training.data import head
from compress.training.distributed import SINGLE_PROCESS
from compress.training.loop import isolated

__all__ = ["Forecast", "StageForecast", "forecast", "rehearsed"]

_PROBE_BATCH = 128
# Seconds for one row: export and encoding, scoring, and the rounds of the mode.
_MEASURE_S: dict[Mode, float] = {"quick": 12.0, "default": 32.0, "strict": 240.0}
_BYTES_PER_PARAMETER = 4
# The process with torch and onnxruntime in it, before any model or data.
_RUNTIME_BYTES = 700 << 20


@dataclass(frozen=True)
class StageForecast:
    """One line of the plan. ``seconds`` is for training only; measuring is counted apart.

    ``answer_bytes`` is what a teacher's answers take on disk.
    """

    index: int
    label: str
    sentence: str
    parameters: int
    seconds: float
    answer_bytes: int = 0


@dataclass(frozen=True)
class Forecast:
    """The whole plan. Times are rough: the machine may be busier, or quieter, when it runs.

    ``notes``: how rows are scored, and what there is to say about the data.
    """

    stages: tuple[StageForecast, ...]
    measuring_s: float
    memory_bytes: int
    disk_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Training and measuring together."""
        return self.measuring_s + sum(stage.seconds for stage in self.stages)


def forecast(job: Job) -> Forecast:
    """Rehearse every stage in order and add up what it would cost.

    Raises:
        CompressError: a stage that cannot work, with the message that a run would give.
    """
    batch = head(job.task.train, min(_PROBE_BATCH, len(job.task.train))).inputs
    with located(0, "input"):
        found = preflight(job)
    job.candidate.validate()
    lines = [_line(0, "input", "the model that comes in", job.candidate, [])]
    lines += rehearsed(job, Progress.at_the_start(job, SINGLE_PROCESS), 1)
    return Forecast(
        stages=tuple(lines),
        measuring_s=_MEASURE_S[job.mode] * len(lines) * len(job.targets),
        memory_bytes=_memory_bytes(job, lines, batch),
        disk_bytes=sum(map(_disk_bytes, lines)) + (1 << 20),
        notes=(found.scoring.words, *found.notes),
    )


def rehearsed(job: Job, progress: Progress, first: int) -> list[StageForecast]:
    """Rehearse the stages that make row ``first`` and all later ones, from ``progress`` on.

    Raises:
        CompressError: a stage that cannot work, with the message that a run would give.
    """
    lines = []
    for index, label in list(enumerate(labels_of(job.stages)))[first:]:
        with located(index, label), isolated(job.seed):
            lines.append(_rehearsed(job, progress, index, label))
    return lines


def _rehearsed(job: Job, progress: Progress, index: int, label: str) -> StageForecast:
    stage, before = job.stages[index - 1], progress.candidate
    told: list[Mapping[str, Any]] = []
    teacher = frozen_teacher(progress.teacher.fork().module, progress.teacher.example)
    context = context_of(job, teacher, progress.origin, index, told.append)
    after = carry_out(stage, before, context, rehearsing=True)
    progress.advance(stage, after)
    # A stage that rehearses nothing gives what came in, with the notes of the one before.
    notes = after.notes if after is not before else ()
    events = [parse_event(report) for report in told]
    warnings = [event.text for event in events if isinstance(event, StageWarning)]
    return _line(index, label, "; ".join([stage.explain(), *notes, *warnings]), after, events)


def _line(
    index: int,
    label: str,
    sentence: str,
    candidate: Candidate,
    events: Sequence[Event | None],
) -> StageForecast:
    seconds = sum(event.seconds for event in events if isinstance(event, Pace))
    kept = sum(event.bytes for event in events if isinstance(event, CacheSize))
    parameters = count_parameters(candidate.module)[0]
    return StageForecast(index, label, sentence, parameters, seconds, kept)


def _disk_bytes(line: StageForecast) -> int:
    # The candidate and its artifact.
    return 2 * _BYTES_PER_PARAMETER * line.parameters + line.answer_bytes


def _memory_bytes(job: Job, lines: Sequence[StageForecast], batch: Inputs) -> int:
    tensors = batch.values() if isinstance(batch, dict) else [batch]
    sample_bytes = sum(t.nbytes for t in tensors) / batch_size_of(batch)
    samples = len(job.task.train) + len(job.task.validation) + 2 * len(job.task.test)
    largest = max(line.parameters for line in lines)
    # Weights, gradients, two moments of the optimizer, and the copies that stages fork.
    return _RUNTIME_BYTES + round(samples * sample_bytes) + 8 * _BYTES_PER_PARAMETER * largest
