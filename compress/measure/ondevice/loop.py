"""The loop of a session: preflights of each model, then rounds of fresh processes side by side."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from compress.measure.ondevice.intervals import TimedModel, log_ratios
from compress.measure.ondevice.process import JobFailed, or_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from compress.measure.ondevice.answers import (
        Answer,
        CheckAnswer,
        EnergyAnswer,
        MemoryAnswer,
        TimeAnswer,
        Unavailable,
    )
    from compress.measure.ondevice.plan import Plan
    from compress.measure.ondevice.session_log import Line, SessionLog

    #: What a job has beside its kind and its model: keys of :class:`.jobs.WorkerJob`.
    Settings = Mapping[str, object]
    #: Runs one job of the worker on the model with an index: (kind, index, settings) -> answer.
    RunJob = Callable[[str, int, Settings], Answer]
    #: Times several models side by side: (index and settings of each, seed) -> an answer for
    #: each, which is ``{"error": "..."}`` where there is none.
    TimeInterleaved = Callable[[Sequence[tuple[int, Settings]], int], Sequence[Answer]]

__all__ = ["PreflightAnswers", "SessionOutcome", "measure", "peak_bytes"]

_MEMORY_AGREES = 0.02
_MEMORY_SHARE = 0.5  # of what is free may be taken by models that are timed side by side


@dataclass(frozen=True)
class PreflightAnswers:
    """What is found out of a model before it is timed.

    ``memory`` has answers in the order of their peaks, none where ``unavailable`` says why not.
    """

    memory: Sequence[MemoryAnswer] = ()
    unavailable: str | None = None
    check: CheckAnswer | None = None
    energy: EnergyAnswer | Unavailable | None = None


@dataclass(frozen=True)
class SessionOutcome:
    """What a session found out, by the index of a model.

    Of ``timed`` the first two are the baseline; there are none if nothing could be timed.
    """

    preflights: Mapping[int, PreflightAnswers] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    timed: Sequence[TimedModel] = ()


def measure(
    names: Sequence[str],
    plan: Plan,
    seed: int,
    run_job: RunJob,
    log: SessionLog,
    interleaved: TimeInterleaved | None = None,
) -> SessionOutcome:
    """Measure models side by side, in fresh processes.

    ::

        each model alone         memory, checks, energy where the device tells it
        until precise enough     one round: every model once and the baseline twice, in random order

    Blocks of one model after the other call identical models different in a fifth of trials;
    rounds cancel what drifts. Within a round the processes take turns of about a millisecond (by
    ``interleaved``; one after the other without it, or where the models do not fit into memory
    together), which cancels what drifts faster. The first model that works is the baseline.

    Raises:
        SessionError: the log's lines are not those of this session.
    """
    session = _SessionLoop(names, plan, seed, run_job, log, interleaved)
    preflights: dict[int, PreflightAnswers] = {}
    failures: dict[int, str] = {}
    for index in range(len(names)):
        try:
            preflights[index] = session.preflight(index)
        except JobFailed as error:
            failures[index] = str(error)
    while True:
        working = [index for index in range(len(names)) if index not in failures]
        if not working:
            return SessionOutcome(preflights, failures)
        timed, failed = session.rounds(working, preflights)
        failures.update(failed)
        # Without its baseline a session has no ratios: begin again with the next one.
        if working[0] not in failed:
            return SessionOutcome(preflights, failures, timed)


class _SessionLoop(NamedTuple):
    names: Sequence[str]
    plan: Plan
    seed: int
    run_job: RunJob
    log: SessionLog
    interleaved: TimeInterleaved | None

    def run(self, kind: str, index: int, settings: Settings) -> Line:
        """One process and its line."""
        place = {"kind": kind, "index": index, "model": self.names[index]}
        line = self.log.line(place, lambda: or_error(lambda: self.run_job(kind, index, settings)))
        if "error" in line:
            raise JobFailed(line["error"])
        return line

    def preflight(self, index: int) -> PreflightAnswers:
        """Memory, checks and energy of one model; raises for a model that does not load or run."""
        peaks = [self.run("memory", index, {}) for _ in range(self.plan.memory_processes)]
        unavailable = peaks[0].get("unavailable")
        if not unavailable:
            sizes = [peak_bytes(cast("MemoryAnswer", peak)) for peak in peaks]
            if (max(sizes) - min(sizes)) / max(sizes) > _MEMORY_AGREES:
                peaks.append(self.run("memory", index, {}))
        check = self.run("check", index, {}) if self.plan.checks else None
        energy = None
        if self.plan.energy_s and peaks[0].get("energy_source"):
            settings = {**self.plan.timing, "energy_s": self.plan.energy_s}
            energy = self.run("energy", index, settings)
        return PreflightAnswers(
            memory=() if unavailable else sorted(cast("list[MemoryAnswer]", peaks), key=peak_bytes),
            unavailable=unavailable,
            check=cast("CheckAnswer | None", check),
            energy=cast("EnergyAnswer | Unavailable | None", energy),
        )

    def rounds(
        self, working: Sequence[int], preflights: Mapping[int, PreflightAnswers]
    ) -> tuple[list[TimedModel], dict[int, str]]:
        """Time the models with these indices in interleaved rounds, until precise enough.

        A model that fails leaves the rounds; if it is the baseline, they end there.
        """
        timed = [TimedModel(index, Path(self.names[index]).name, []) for index in working]
        timed.insert(1, TimedModel(working[0], "baseline again", []))
        together = _fit_together([preflights[each.index] for each in timed])
        run = self.interleaved if self.interleaved and together else self._one_after_the_other
        failed: dict[int, str] = {}
        chance = random.Random(self.seed)
        begin_s = time.monotonic()
        for number in range(self.plan.max_rounds):
            # random() is the one method whose sequence no version of Python may change.
            order = sorted(timed, key=lambda _: chance.random())
            failed.update(self._round(order, number, run))
            timed = [each for each in timed if each.index not in failed]
            if working[0] in failed:
                break
            verdict = self._verdict(timed, number, begin_s)
            begin_s = min(begin_s, time.monotonic() - verdict["elapsed_s"])
            if verdict["enough"]:
                break
        return timed, failed

    def _round(
        self, order: Sequence[TimedModel], number: int, run: TimeInterleaved
    ) -> dict[int, str]:
        """Each model gets its next result; returns the failures, by index."""
        jobs = [(each.index, self._settings(each)) for each in order]
        places = [
            {
                "kind": "time",
                "index": each.index,
                "model": self.names[each.index],
                "round": number,
                "label": each.label,
            }
            for each in order
        ]
        lines = self.log.lines(places, lambda: run(jobs, 1000 * self.seed + number))
        failed = {}
        for place, line in enumerate(lines):
            if "error" in line:
                failed[order[place].index] = str(line["error"])
            else:
                order[place].results.append(cast("TimeAnswer", line))
        return failed

    def _settings(self, timed: TimedModel) -> Settings:
        settings = dict(self.plan.timing)
        if timed.results:
            # Every process of a model groups its runs alike, or their medians would not compare.
            settings["runs_per_sample"] = timed.results[0]["runs_per_sample"]
        return settings

    def _one_after_the_other(self, jobs: Sequence[tuple[int, Settings]], _: int) -> list[Answer]:
        return [
            or_error(partial(self.run_job, "time", index, settings)) for index, settings in jobs
        ]

    def _verdict(self, timed: Sequence[TimedModel], number: int, begin_s: float) -> Line:
        """The line that ends a round, and says whether it was the last."""

        def make() -> Line:
            elapsed_s = time.monotonic() - begin_s
            # The baseline against itself counts too: an interval that is narrow by luck would stop
            # the rounds early and be wrong more often than it says; two at once rarely are.
            widths = [r.half_width for r in log_ratios(timed)] if number else []
            precise = bool(widths) and max(widths) <= self.plan.bound
            enough = number + 1 >= self.plan.min_rounds and (
                precise or elapsed_s > self.plan.budget_s
            )
            return {
                "half_width": max(widths) if widths else None,
                "elapsed_s": elapsed_s,
                "enough": enough,
            }

        return self.log.line({"kind": "round", "round": number}, make)


def peak_bytes(result: MemoryAnswer) -> int:
    """The higher of the peaks of loading and of running."""
    return max(int(result["load_peak_bytes"]), int(result["run_peak_bytes"]))


def _fit_together(preflights: Iterable[PreflightAnswers]) -> bool:
    """Whether models fit into memory together, as far as their systems tell."""
    peaks = [each.memory[-1] for each in preflights if each.memory]
    free_bytes = [peak.get("free_bytes") for peak in peaks]
    free = [each for each in free_bytes if each is not None]
    return not free or sum(map(peak_bytes, peaks)) <= _MEMORY_SHARE * min(free)
