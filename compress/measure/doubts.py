"""Doubts: what in a measurement's own data should make its reader careful, as sentences.

Looks at what workers returned and at nothing else. A doubt is data: it is stored with the numbers
and printed beside them, and it never stops a session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.measure import stats

__all__ = ["about_checks", "about_machine", "about_model"]

Result = Mapping[str, Any]

_CPU_SHARE = 0.97
_PROBE_SPREAD = 0.10
_DRIFT = 0.05
_DENORMAL_RATIO = 1.05
# An error of 1 % of the outputs' magnitude; rounding to int8 itself costs some 30 to 40 dB.
_SATURATION_DB = 40.0


def about_machine(results: Sequence[Result], *, threads: int, cores: int) -> list[str]:
    """Doubts about the machine during a session, from the ``time`` results of all its processes."""
    return [*_load(results, threads, cores), *_share(results, threads), *_speed(results)]


def _load(results: Sequence[Result], threads: int, cores: int) -> list[str]:
    load = max((value for r in results for value in r["load"] if value is not None), default=0.0)
    if load - threads <= cores / 2:
        return []
    seen = f"its load average reached {load:.1f} on {cores} cores"
    return [f"the machine was busy: {seen}, of which this measurement used {threads}"]


def _share(results: Sequence[Result], threads: int) -> list[str]:
    # With several threads, waiting threads spin or sleep: the share says nothing.
    share = float(np.median([r["cpu_ns"] / r["wall_ns"] for r in results]))
    if threads > 1 or share >= _CPU_SHARE:
        return []
    return [f"other programs took the CPU away: the model had it for {share:.0%} of the time"]


def _speed(results: Sequence[Result]) -> list[str]:
    quickest_ms = np.array([min(r["probe_ns"]) for r in results]) / 1e6
    lo, middle, hi = np.quantile(quickest_ms, [0.1, 0.5, 0.9])
    if (hi - lo) / middle <= _PROBE_SPREAD:
        return []
    loop = f"a fixed loop took {lo:.2f} ms in some processes and {hi:.2f} ms in others"
    return [f"the machine's speed varied: {loop} (clock, heat or neighbours)"]


def about_model(results: Sequence[Result], *, batch: int) -> list[str]:
    """Doubts about one model, from the ``time`` results of its processes."""
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


def _elsewhere(ran: Result) -> list[str]:
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


def about_checks(check: Result) -> list[str]:
    """Doubts that a ``check`` result gives."""
    found = []
    if check["denormal_ratio"] > _DENORMAL_RATIO:
        found.append(
            f"denormal numbers make it {check['denormal_ratio'] - 1:.0%} slower; "
            "session.set_denormal_as_zero avoids that"
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
