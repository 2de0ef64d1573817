"""Rounds: a measuring session on this side: processes come in as a call, timings go out.

The loop itself, with its interleaved rounds and the rule for when to stop, is
:func:`compress.measure.ondevice.loop.measure`, which devices run too. Here its outcome becomes the
facts of a record, wherever it was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from compress.errors import MeasurementError
from compress.measure.modes import PLANS, Plan
from compress.measure.ondevice import loop
from compress.measure.ondevice.process import JobFailed
from compress.measure.ondevice.session_log import SessionLog
from compress.measure.raw_samples import RawLog
from compress.measure.runtime_errors import readable_error
from compress.measure.summary import ModelPreflight, energy_facts, memory_facts, summarize
from compress.measure.target import BenchmarkConfig, Failure, Timing
from compress.measure.warnings import about_checks, about_machine

__all__ = ["Device", "RunJob", "TimeInterleaved", "run_session", "timings_of"]

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import Answer
    from compress.measure.ondevice.loop import Settings


class RunJob(Protocol):
    """Runs one job of a worker (:data:`.ondevice.worker.JOBS`) in a fresh process."""

    def __call__(self, kind: str, model: Path, settings: Settings, /) -> Answer:
        """The worker's answer.

        Raises:
            MeasurementError: the job failed, or its process was killed or took too long.
        """
        ...


class TimeInterleaved(Protocol):
    """Times several models in fresh processes that take turns."""

    def __call__(self, jobs: Sequence[tuple[Path, Settings]], seed: int, /) -> Sequence[Answer]:
        """The worker's answers, ``{"error": "..."}`` for a model that failed."""
        ...


@dataclass(frozen=True)
class Device:
    """What a session needs to know of a target. Without ``interleaved``, no turns are taken."""

    run_job: RunJob
    threads: int
    batch: int
    cores: int
    interleaved: TimeInterleaved | None = None


def run_session(
    models: Sequence[Path], config: BenchmarkConfig, device: Device, log: RawLog
) -> list[Timing | Failure]:
    """Measure ``models``, one outcome each, in order.

    The first model that works is the baseline; where that is not the first one, every timing says
    so among its warnings.
    """

    def run_job(kind: str, index: int, settings: Settings) -> Answer:
        try:
            return device.run_job(kind, models[index], settings)
        except MeasurementError as error:
            raise JobFailed(str(error)) from error

    def interleaved(jobs: Sequence[tuple[int, Settings]], seed: int) -> Sequence[Answer]:
        assert device.interleaved is not None
        return device.interleaved([(models[index], settings) for index, settings in jobs], seed)

    plan, names = PLANS[config.mode], [str(model) for model in models]
    turns = interleaved if device.interleaved else None
    lines = SessionLog(write=log.write)
    outcome = loop.measure(names, plan, config.seed, run_job, lines, turns)
    return timings_of(
        outcome, names, plan, threads=device.threads, batch=device.batch, cores=device.cores
    )


def timings_of(
    outcome: loop.SessionOutcome,
    names: Sequence[str],
    plan: Plan,
    *,
    threads: int,
    batch: int,
    cores: int,
) -> list[Timing | Failure]:
    """The outcome of a session as one result for each model, with its warnings.

    ``cores`` are those that the session could use.
    """
    failures = {index: Failure(readable_error(error)) for index, error in outcome.failures.items()}
    if not outcome.timed:
        return [failures[index] for index in range(len(names))]
    preflights = {index: _preflight(found) for index, found in outcome.preflights.items()}
    timings = summarize(outcome.timed, preflights, plan, batch=batch)
    results = [result for timed in outcome.timed for result in timed.results]
    warnings = about_machine(results, threads=threads, cores=cores)
    notes = []
    if 0 in failures:
        notes = [_other_baseline(names, outcome.timed[0].index, failures[0])]
    timings = {
        index: replace(timing, warnings=(*notes, *timing.warnings, *warnings))
        for index, timing in timings.items()
    }
    return [failures.get(index) or timings[index] for index in range(len(names))]


def _other_baseline(names: Sequence[str], baseline: int, failure: Failure) -> str:
    return (
        f"the baseline {names[0]} could not be measured ({failure.error}); "
        f"speed-ups are against {names[baseline]}"
    )


def _preflight(found: loop.PreflightAnswers) -> ModelPreflight:
    facts: dict[str, object] = {}
    warnings = [found.unavailable] if found.unavailable else []
    if found.memory:
        facts["memory"] = found.memory
    if found.check:
        facts["check"] = found.check
        warnings += about_checks(found.check)
    if found.energy:
        facts["energy"] = found.energy
    return ModelPreflight(
        memory=memory_facts(found.memory[len(found.memory) // 2]) if found.memory else None,
        facts=facts,
        warnings=warnings,
        energy=energy_facts(found.energy) if found.energy else None,
    )
