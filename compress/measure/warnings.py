"""Measurement warnings: what in a measurement's own data should make its reader careful.

They come from what workers returned and from nothing else. A warning is a sentence that is stored
with the numbers and printed beside them; it never stops a session.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compress.measure import stats

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import (
        CheckAnswer,
        ExecutionFacts,
        MachineState,
        TimeAnswer,
    )

__all__ = ["about_change", "about_checks", "about_machine", "about_model"]

_CPU_SHARE = 0.97
_PROBE_SPREAD = 0.10
_DRIFT = 0.05
_DENORMAL_RATIO = 1.05
# An error of 1 % of the outputs' magnitude; rounding to int8 itself costs some 30 to 40 dB.
_SATURATION_DB = 40.0
_CLOCK = 0.10
_WARMER_MC = 20_000  # below it, any machine that begins to work
# Of a Raspberry Pi's firmware: what is so now, and 16 bits higher what ever was, or since the last
# look, as the firmware likes.
_FLAGS = ("too low a voltage", "a capped clock", "throttling", "too much heat")


def about_machine(results: Sequence[TimeAnswer], *, threads: int, cores: int) -> list[str]:
    """Warnings about the machine during a session, from all its ``time`` results."""
    stated = [result for result in results if "state" in result]
    changes: list[str] = []
    if stated:
        first = min(stated, key=lambda result: result["at_ns"][0])
        later = sorted(stated, key=lambda result: result["at_ns"][1])
        changes = about_change([first["state"][0], *(result["state"][1] for result in later)])
    busy = [*_load(results, threads, cores), *_share(results, threads)]
    return [*busy, *_speed(results), *changes]


def _load(results: Sequence[TimeAnswer], threads: int, cores: int) -> list[str]:
    load = max((value for r in results for value in r["load"] if value is not None), default=0.0)
    if load - threads <= cores / 2:
        return []
    seen = f"its load average reached {load:.1f} on {cores} cores"
    return [f"the machine was busy: {seen}, of which this measurement used {threads}"]


def _share(results: Sequence[TimeAnswer], threads: int) -> list[str]:
    # With several threads, waiting threads spin or sleep: the share says nothing.
    share = float(np.median([r["cpu_ns"] / r["wall_ns"] for r in results]))
    if threads > 1 or share >= _CPU_SHARE:
        return []
    return [f"other programs took the CPU away: the model had it for {share:.0%} of the time"]


def _speed(results: Sequence[TimeAnswer]) -> list[str]:
    quickest_ms = np.array([min(r["probe_ns"]) for r in results]) / 1e6
    lo, middle, hi = np.quantile(quickest_ms, [0.1, 0.5, 0.9])
    if (hi - lo) / middle <= _PROBE_SPREAD:
        return []
    loop = f"a fixed loop took {lo:.2f} ms in some processes and {hi:.2f} ms in others"
    return [f"the machine's speed varied: {loop} (clock, heat or neighbors)"]


def about_change(states: Sequence[MachineState]) -> list[str]:
    """Warnings from the machine's states (the worker's) before, during and after a measurement."""
    before, *later = states
    found = []
    governors = ["/".join(state["governor"])[:40] for state in (before, later[-1])]
    if all(governors) and governors[0] != governors[1]:
        found.append(f"the CPU's governor changed meanwhile: {governors[0]}, then {governors[1]}")
    begin, end = (max(state["khz"], default=0) / 1e6 for state in (before, later[-1]))
    if begin and end and abs(end / begin - 1) > _CLOCK:
        found.append(f"the CPU's clock was {begin:.2f} GHz at first and {end:.2f} GHz at the end")
    cool, *warm = (max(state["temperatures_mc"], default=0) for state in states)
    if cool and max(warm) - cool > _WARMER_MC:
        found.append(f"the machine warmed up from {cool / 1e3:.0f} to {max(warm) / 1e3:.0f} °C")
    return [*found, *_throttled(before, later)]


def _throttled(before: MachineState, later: Sequence[MachineState]) -> list[str]:
    found = []
    times = later[-1]["throttle_count"] - before["throttle_count"]
    if times > 0:
        found.append(f"the CPU was slowed down against heat or power {times} times meanwhile")
    if any(state["cooling"] for state in later):
        found.append("the system slowed the CPU down against heat")
    old, *bits = (int(state["throttled"] or "0", 16) for state in (before, *later))
    new = functools.reduce(operator.or_, (each | each >> 16 & ~(old >> 16) for each in bits))
    flags = [text for place, text in enumerate(_FLAGS) if new >> place & 1]
    if flags:
        found.append(f"the board's firmware reported: {', '.join(flags)}")
    return found


def about_model(results: Sequence[TimeAnswer], *, batch: int) -> list[str]:
    """Warnings about one model, from the ``time`` results of its processes."""
    found = []
    unsteady = sum(not r["steady"] for r in results)
    if 2 * unsteady >= len(results):
        found.append(
            f"its time was still changing when the warm-up limit was reached, in {unsteady} of "
            f"{len(results)} processes"
        )
    drift = float(np.median([stats.drift(r["samples_ns"]) for r in results]))
    if abs(drift) > _DRIFT:
        change = "slowed down" if drift > 0 else "sped up"
        found.append(f"it {change} by {abs(drift):.0%} while it was timed")
    if not all(r["finite"] for r in results):
        found.append("some of its outputs are not finite (NaN or infinity)")
    found += _elsewhere(results[0].get("ran") or {})
    if results[0]["batch"] != batch:
        fixed = results[0]["batch"]
        found.append(f"it runs {fixed} samples per inference, where the target asks for {batch}")
    return found


def _elsewhere(ran: ExecutionFacts) -> list[str]:
    if "provider" not in ran:
        return []
    if ran["nodes"] is None:
        return ["this onnxruntime cannot tell which operators ran on its provider; 1.24 can"]
    if not ran["elsewhere"]:
        return []
    products = f"{ran['products_elsewhere']} of its {ran['products']} convolutions and products"
    text = (
        f"{ran['elsewhere']} of its {ran['nodes']} operators ran on {', '.join(ran['others'])} and "
        f"not on the provider {ran['provider']}, {products} of matrices among them"
    )
    return [text]


def about_checks(check: CheckAnswer) -> list[str]:
    """Warnings that a ``check`` result gives."""
    found = []
    if check["denormal_ratio"] > _DENORMAL_RATIO:
        found.append(
            f"denormal numbers make it {check['denormal_ratio'] - 1:.0%} slower; "
            "onnxruntime's session entry session.set_denormal_as_zero avoids that in your program"
        )
    sqnr_db = check["saturation_sqnr_db"]
    if sqnr_db is not None and sqnr_db < _SATURATION_DB:
        found.append(
            f"int8 sums saturate on this CPU: its outputs are only {sqnr_db:.0f} dB from exact "
            "ones; lower it with avoid_saturation"
        )
    if not check["repeatable"]:
        found.append("it gives different outputs for the same input")
    return found
