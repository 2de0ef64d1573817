"""Rounds: a measuring session on this side: processes come in as a call, timings go out.

The loop itself, with its interleaved rounds and the rule for when to stop, is
:func:`compress.measure.ondevice.driver.measure`, which devices run too. Here its outcome becomes
the facts of a record, wherever it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from compress.errors import MeasurementError
from compress.measure.modes import PLANS, Plan
from compress.measure.ondevice import driver
from compress.measure.raw_samples import RawLog
from compress.measure.runtime_errors import plain_complaint
from compress.measure.summary import Survey, energy_facts, memory_facts, summarize
from compress.measure.target import Failure, Probe, Timing
from compress.measure.warnings import about_checks, about_machine

__all__ = ["Call", "Device", "Race", "run_session", "timings_of"]


class Call(Protocol):
    """Runs one job of ``measure/ondevice/worker.py`` in a fresh process."""

    def __call__(self, kind: str, model: Path, settings: Mapping[str, Any], /) -> dict[str, Any]:
        """The worker's answer.

        Raises:
            MeasurementError: the job failed, or its process was killed or took too long.
        """
        ...


class Race(Protocol):
    """Times several models in fresh processes that take turns."""

    def __call__(
        self, jobs: Sequence[tuple[Path, Mapping[str, Any]]], seed: int, /
    ) -> Sequence[Mapping[str, Any]]:
        """The worker's answers, ``{"error": "..."}`` for a model that failed."""
        ...


@dataclass(frozen=True)
class Device:
    """What a session needs to know of a target. Without ``race``, processes never take turns."""

    call: Call
    threads: int
    batch: int
    cores: int
    race: Race | None = None


def run_session(
    models: Sequence[Path], probe: Probe, device: Device, log: RawLog
) -> list[Timing | Failure]:
    """Measure ``models``, one outcome each, in order.

    The first model that works is the baseline; where that is not the first one, every timing says
    so among its warnings.
    """

    def call(kind: str, index: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return device.call(kind, models[index], settings)
        except MeasurementError as error:
            raise driver.JobFailed(str(error)) from error

    def race(
        jobs: Sequence[tuple[int, Mapping[str, Any]]], seed: int
    ) -> Sequence[Mapping[str, Any]]:
        assert device.race is not None
        return device.race([(models[index], settings) for index, settings in jobs], seed)

    plan, names = PLANS[probe.mode], [str(model) for model in models]
    journal = driver.Journal(write=log.write)
    turns = race if device.race else None
    outcome = driver.measure(names, plan, probe.seed, call, journal, turns)
    return timings_of(
        outcome, names, plan, threads=device.threads, batch=device.batch, cores=device.cores
    )


def timings_of(
    outcome: driver.Outcome,
    names: Sequence[str],
    plan: Plan,
    *,
    threads: int,
    batch: int,
    cores: int,
) -> list[Timing | Failure]:
    """The outcome of a session as one result for each model, with its doubts.

    ``cores`` are those that the session could use.
    """
    failures = {index: Failure(plain_complaint(error)) for index, error in outcome.failures.items()}
    if not outcome.configs:
        return [failures[index] for index in range(len(names))]
    surveys = {index: _survey(found) for index, found in outcome.surveys.items()}
    timings = summarize(outcome.configs, surveys, plan, batch=batch)
    results = [result for config in outcome.configs for result in config.results]
    doubts = about_machine(results, threads=threads, cores=cores)
    notes = []
    if 0 in failures:
        notes = [_other_baseline(names, outcome.configs[0].index, failures[0])]
    timings = {
        index: replace(timing, warnings=(*notes, *timing.warnings, *doubts))
        for index, timing in timings.items()
    }
    return [failures.get(index) or timings[index] for index in range(len(names))]


def _other_baseline(names: Sequence[str], baseline: int, failure: Failure) -> str:
    return (
        f"the baseline {names[0]} could not be measured ({failure.error}); "
        f"speed-ups are against {names[baseline]}"
    )


def _survey(found: Mapping[str, Any]) -> Survey:
    peaks, check, energy = found["memory"], found["check"], found["energy"]
    facts: dict[str, Any] = {}
    warnings = [found["unavailable"]] if found["unavailable"] else []
    if peaks:
        facts["memory"] = peaks
    if check:
        facts["check"] = check
        warnings += about_checks(check)
    if energy:
        facts["energy"] = energy
    return Survey(
        memory=memory_facts(peaks[len(peaks) // 2]) if peaks else None,
        facts=facts,
        warnings=warnings,
        energy=energy_facts(energy) if energy else None,
    )
