"""Rounds: the protocol of a measuring session, given a way to run one worker process.

::

    each model alone         memory (fresh processes), checks
    until precise enough     one round: every model once and the baseline twice, in random order,
                             each in a fresh process
    at the end               paired ratios over rounds, verdicts, doubts

Blocks of one model after the other call identical models different in a fifth of trials; rounds
cancel what drifts. Knows jobs and results, not how processes are started: this machine, a remote
shell and a replay all come in as a :class:`Call`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from compress.errors import MeasurementError
from compress.measure.doubts import about_checks, about_machine
from compress.measure.plan import PLANS, Plan
from compress.measure.rawlog import RawLog
from compress.measure.summary import Config, Survey, memory_facts, ratios, summarise
from compress.measure.target import Failure, Probe, Timing

__all__ = ["Call", "Device", "run_session"]

_MEMORY_AGREES = 0.02


class Call(Protocol):
    """Runs one job of ``measure/worker.py`` in a fresh process."""

    def __call__(self, kind: str, model: Path, settings: Mapping[str, Any], /) -> dict[str, Any]:
        """The worker's answer.

        Raises:
            MeasurementError: the job failed, or its process was killed or took too long.
        """
        ...


@dataclass(frozen=True)
class Device:
    """What a session needs to know of a target."""

    call: Call
    threads: int
    batch: int
    cores: int


def run_session(
    models: Sequence[Path], probe: Probe, device: Device, log: RawLog
) -> list[Timing | Failure]:
    """Measure ``models``, one outcome each, in order.

    The first model that works is the baseline; where that is not the first one, every timing says
    so among its warnings.
    """
    session = _Session(models, PLANS[probe.mode], probe.seed, device, log)
    surveys: dict[int, Survey] = {}
    failures: dict[int, Failure] = {}
    for index in range(len(models)):
        try:
            surveys[index] = session.survey(index)
        except MeasurementError as error:
            failures[index] = Failure(str(error))
    timings: dict[int, Timing] = {}
    while working := [index for index in range(len(models)) if index not in failures]:
        configs, failed = session.rounds(working)
        failures |= failed
        # Without its baseline a session has no ratios: begin again with the next one.
        if working[0] not in failed:
            timings = session.summary(configs, surveys)
            break
    if timings and 0 in failures:
        timings = _with_note(timings, _other_baseline(models, working[0], failures[0]))
    return [failures.get(index) or timings[index] for index in range(len(models))]


def _other_baseline(models: Sequence[Path], baseline: int, failure: Failure) -> str:
    return (
        f"the baseline {models[0]} could not be measured ({failure.error}); "
        f"speed-ups are against {models[baseline]}"
    )


def _with_note(timings: Mapping[int, Timing], note: str) -> dict[int, Timing]:
    return {
        index: replace(timing, warnings=(note, *timing.warnings))
        for index, timing in timings.items()
    }


@dataclass(frozen=True)
class _Session:
    models: Sequence[Path]
    plan: Plan
    seed: int
    device: Device
    log: RawLog

    def run(
        self, kind: str, index: int, settings: Mapping[str, Any], place: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One process, with its line in the log."""
        line = {"kind": kind, "index": index, "model": str(self.models[index]), **place}
        try:
            result = self.device.call(kind, self.models[index], settings)
        except MeasurementError as error:
            self.log.write({**line, "error": str(error)})
            raise
        self.log.write({**line, **result})
        return result

    def survey(self, index: int) -> Survey:
        """Memory and checks of one model; raises for a model that does not load or run."""
        peaks = [self.run("memory", index, {}, {}) for _ in range(self.plan.memory_processes)]
        missing = peaks[0].get("unavailable")
        facts: dict[str, Any] = {}
        if not missing:
            if _spread([memory_facts(peak).peak_rss_bytes for peak in peaks]) > _MEMORY_AGREES:
                peaks.append(self.run("memory", index, {}, {}))
            peaks.sort(key=lambda peak: memory_facts(peak).peak_rss_bytes)
            facts["memory"] = peaks
        warnings = [missing] if missing else []
        if self.plan.checks:
            facts["check"] = self.run("check", index, {}, {})
            warnings += about_checks(facts["check"])
        memory = None if missing else memory_facts(peaks[len(peaks) // 2])
        return Survey(memory, facts, warnings)

    def rounds(self, working: Sequence[int]) -> tuple[list[Config], dict[int, Failure]]:
        """Time the models with these indices in interleaved rounds, until precise enough.

        A model that fails leaves the rounds; if it is the baseline, they end there.
        """
        again = Config(working[0], self.models[working[0]], "baseline again")
        configs = [Config(index, self.models[index], self.models[index].name) for index in working]
        configs.insert(1, again)
        failed: dict[int, Failure] = {}
        shuffled = random.Random(self.seed)
        begin = time.monotonic()
        for number in range(self.plan.max_rounds):
            for config in shuffled.sample(configs, len(configs)):
                if config.index not in failed:
                    try:
                        self._time(config, number)
                    except MeasurementError as error:
                        failed[config.index] = Failure(str(error))
            configs = [config for config in configs if config.index not in failed]
            if working[0] in failed or self._enough(configs, number + 1, time.monotonic() - begin):
                break
        return configs, failed

    def _time(self, config: Config, number: int) -> None:
        settings = dict(self.plan.timing)
        if config.results:
            # Every process of a model groups its runs alike, or their medians would not compare.
            settings["runs_per_sample"] = config.results[0]["runs_per_sample"]
        place = {"round": number, "label": config.label}
        config.results.append(self.run("time", config.index, settings, place))

    def _enough(self, configs: Sequence[Config], rounds: int, elapsed_s: float) -> bool:
        if rounds < self.plan.min_rounds:
            return False
        # The baseline against itself counts too: an interval that is narrow by luck would stop the
        # rounds early and be wrong more often than it says; two at once rarely are.
        widest = max(ratio.half_width for ratio in ratios(configs))
        return widest <= self.plan.bound or elapsed_s > self.plan.budget_s

    def summary(
        self, configs: Sequence[Config], surveys: Mapping[int, Survey]
    ) -> dict[int, Timing]:
        """The timings, each with the doubts about the machine added."""
        timings = summarise(configs, surveys, self.plan, batch=self.device.batch)
        results = [result for config in configs for result in config.results]
        doubts = about_machine(results, threads=self.device.threads, cores=self.device.cores)
        return {
            index: replace(timing, warnings=(*timing.warnings, *doubts))
            for index, timing in timings.items()
        }


def _spread(values: Sequence[int]) -> float:
    return (max(values) - min(values)) / max(values)
