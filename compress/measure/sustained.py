"""Sustained: what becomes of a model's throughput when it runs back to back for long.

::

    each model, one after the other    one process, in slots of a second at most: inferences, and
                                       how hot, how fast and how throttled the machine then is
    at the end                         the first minute against the last one, and a sentence

No rounds and no baseline: heat takes minutes to build up, and is what is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import MeasurementError
from compress.formatting import duration
from compress.measure import stats
from compress.measure.arrays import on_disk
from compress.measure.compare import short_names
from compress.measure.input_sizes import Given, fits
from compress.measure.profile.profiler import Profiles
from compress.measure.target import Failure, Shapes, Target
from compress.measure.warnings import about_change

__all__ = ["LEAST_S", "Slot", "Sustained", "sustain"]

#: Less than this says nothing about heat.
LEAST_S = 5.0

_END_S = 60.0  # of the beginning and the end that are compared, or a third of a shorter run
_SLOTS = 60  # at least, where a slot is not a second
_BLOCKS = 5  # of the beginning and of the end; within a block, slots are alike
_CAP_S = 5.0  # of the first runs
_NOW = 0xF  # flags of a Raspberry Pi's firmware that are about the present

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Slot:
    """A piece of the run. What the system does not tell is ``None``; ``busy_s`` excludes looks."""

    begin_s: float
    end_s: float
    busy_s: float
    inferences: int
    clock_khz: int | None
    temperature_mc: int | None
    throttled: bool
    energy_j: float | None

    @property
    def per_s(self) -> float:
        """Inferences in a second."""
        return self.inferences / self.busy_s

    @classmethod
    def joined(cls, slots: Sequence[Slot]) -> Slot:
        """Slots that follow each other as one: the last clock, the highest temperature."""
        heat = [slot.temperature_mc for slot in slots if slot.temperature_mc is not None]
        energies = [slot.energy_j for slot in slots if slot.energy_j is not None]
        return cls(
            begin_s=slots[0].begin_s,
            end_s=slots[-1].end_s,
            busy_s=sum(slot.busy_s for slot in slots),
            inferences=sum(slot.inferences for slot in slots),
            clock_khz=slots[-1].clock_khz,
            temperature_mc=max(heat, default=None),
            throttled=any(slot.throttled for slot in slots),
            energy_j=sum(energies) if energies else None,
        )


@dataclass(frozen=True)
class Sustained:
    """One model. ``ratio`` is the throughput of the last ``end_s`` over that of the first.

    ``verdict`` is ``slowed down``, ``sped up`` or ``no change shown``; ``changed_after_s`` is where
    one step describes the throughput best, ``None`` where no change is shown. ``inference_j`` is
    what the machine took for an inference, by the sensor ``energy_source``, if it has one.
    ``shapes`` are those of the inputs, and ``notes`` what a reader should know of them.
    """

    name: str
    seconds: float
    batch: int
    end_s: float
    first_per_s: float
    last_per_s: float
    ratio: float
    ci95_ratio: tuple[float, float]
    verdict: str
    changed_after_s: float | None
    summary: str
    inference_j: float | None
    energy_source: str
    slots: tuple[Slot, ...]
    warnings: tuple[str, ...]
    shapes: Shapes = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def sustain(
    models: Sequence[Path],
    target: Target,
    seconds: float,
    *,
    given: Given | None = None,
    seed: int = 0,
) -> list[Sustained | Failure]:
    """Run each of ``models`` back to back for ``seconds``, one result each, in order.

    Inputs are drawn from ``seed`` to each model's own signature, less what is ``given`` of them. A
    model that cannot be run is a :class:`Failure` in its place.

    Raises:
        RecipeError: something is ``given`` of inputs that no model has.
        MeasurementError: the target cannot be given single jobs.
    """
    if not isinstance(target, Profiles):
        raise MeasurementError(
            f"target {target.name!r} cannot be watched from here: copy the files to the device, "
            "and run `compresskit bench --sustained` there."
        )
    settings = {
        "sustain_s": seconds,
        "interval_s": min(1.0, seconds / _SLOTS),
        "cap_s": _CAP_S,
        "seed": seed,
    }
    given = given or Given()
    fitted = fits(models, target, given)
    found: list[Sustained | Failure] = []
    with on_disk(given.values) as values:
        for name, model in zip(short_names(models), models, strict=True):
            fit = fitted.get(model)
            fed = {"shapes": fit.shapes if fit else given.shapes, "values": values}
            try:
                answer = target.work("sustain", model, {**settings, **fed})
                own = described(name, answer, seconds)
                found.append(replace(own, notes=tuple(fit.notes(given)) if fit else ()))
            except MeasurementError as error:
                reason = fit.error if fit and fit.error else str(error).removeprefix(f"{model}: ")
                found.append(Failure(reason))
    return found


def described(name: str, answer: Answer, seconds: float) -> Sustained:
    """What one ``sustain`` answer of the worker says.

    Raises:
        MeasurementError: the model is so slow that there is nothing to compare.
    """
    slots = _slots(answer)
    end_s = min(_END_S, seconds / 3)
    first = [slot for slot in slots if slot.end_s <= end_s]
    last = [slot for slot in slots if slot.begin_s >= slots[-1].end_s - end_s]
    if min(len(first), len(last)) < 2:
        raise MeasurementError(
            f"a run takes {duration(1 / slots[-1].per_s)}, too long for a beginning and an end of "
            f"{duration(end_s)} to be compared; give --sustained more seconds."
        )
    ratio, interval = _ratio(first, last)
    verdict = _verdict(interval)
    after_s = None if verdict == "no change shown" else _changed_after_s(slots)
    warnings = tuple(about_change([answer["before"], *answer["slots"]]))
    energies = [slot.energy_j for slot in slots if slot.energy_j is not None]
    return Sustained(
        name=name,
        seconds=slots[-1].end_s,
        batch=answer["batch"],
        end_s=end_s,
        first_per_s=Slot.joined(first).per_s,
        last_per_s=Slot.joined(last).per_s,
        ratio=ratio,
        ci95_ratio=interval,
        verdict=verdict,
        changed_after_s=after_s,
        summary=_sentence(name, ratio, interval, verdict, after_s, end_s, warnings),
        inference_j=sum(energies) / sum(s.inferences for s in slots) if energies else None,
        energy_source=answer["source"],
        slots=tuple(slots),
        warnings=warnings,
        shapes={name: tuple(sizes) for name, sizes in answer.get("shapes", {}).items()},
    )


def _slots(answer: Answer) -> list[Slot]:
    found = []
    count, uj = answer["before"]["throttle_count"], 0.0
    for slot in answer["slots"]:
        flags = int(slot["throttled"] or "0", 16) & _NOW
        found.append(
            Slot(
                begin_s=slot["begin_ns"] / 1e9,
                end_s=slot["end_ns"] / 1e9,
                busy_s=(slot["end_ns"] - slot["begin_ns"]) / 1e9,
                inferences=slot["runs"],
                clock_khz=max(slot["khz"], default=None),
                temperature_mc=max(slot["temperatures_mc"], default=None),
                throttled=bool(flags or slot["cooling"] or slot["throttle_count"] > count),
                energy_j=(slot["uj"] - uj) / 1e6 if answer["source"] else None,
            )
        )
        count, uj = slot["throttle_count"], slot["uj"]
    return found


def _ratio(first: Sequence[Slot], last: Sequence[Slot]) -> tuple[float, tuple[float, float]]:
    """Of two throughputs, with Welch's interval over blocks of slots.

    Neighboring slots are alike, so that an interval over slots would be too narrow. The degrees of
    freedom are those of the smaller side, which makes it rather too wide.
    """
    before, after = (_block_logs(slots) for slots in (first, last))
    error = math.sqrt(sum(np.var(logs, ddof=1) / len(logs) for logs in (before, after)))
    gap = float(np.mean(after) - np.mean(before))
    half = stats.student_quantile(0.975, min(len(before), len(after)) - 1) * error
    return math.exp(gap), (math.exp(gap - half), math.exp(gap + half))


def _block_logs(slots: Sequence[Slot]) -> list[float]:
    blocks = np.array_split(np.arange(len(slots)), min(_BLOCKS, len(slots)))
    return [math.log(Slot.joined(slots[block[0] : block[-1] + 1]).per_s) for block in blocks]


def _verdict(interval: tuple[float, float]) -> str:
    if interval[1] < 1 - stats.SMALLEST_EFFECT:
        return "slowed down"
    return "sped up" if interval[0] > 1 + stats.SMALLEST_EFFECT else "no change shown"


def _changed_after_s(slots: Sequence[Slot]) -> float:
    """When the throughput changed, if it changed once: the step of least squares."""
    logs = np.log([slot.per_s for slot in slots])
    sizes = np.arange(1, len(logs))
    sums = np.cumsum(logs)[:-1]
    gaps = sums / sizes - (logs.sum() - sums) / (len(logs) - sizes)
    explained = gaps**2 * sizes * (len(logs) - sizes)
    return slots[int(np.argmax(explained)) + 1].begin_s


def _sentence(
    name: str,
    ratio: float,
    interval: tuple[float, float],
    verdict: str,
    after_s: float | None,
    end_s: float,
    warnings: Sequence[str],
) -> str:
    ends = f"95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
    if after_s is None:
        return (
            f"{name}: no slow-down shown: the last {duration(end_s)} ran at {100 * ratio:.1f} % of "
            f"the first ({ends})."
        )
    why = "; ".join(warnings) or "the system reports no cause"
    return (
        f"{name} {verdict} by {100 * abs(ratio - 1):.1f} % after about {duration(after_s)}: the "
        f"last {duration(end_s)} ran at {100 * ratio:.1f} % of the first ({ends}); {why}."
    )
