"""Round values along an axis, and how they are written. Knows no records; draws nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeVar

from compress.metrics import is_rate

__all__ = ["binary_ticks", "brief", "linear_ticks", "log_ticks", "thinned", "tick_score"]

Tick = TypeVar("Tick")

_TRAILING_ZEROS = re.compile(r"(\.\d*?)0+(?= |[kMG]|$)")
_DIGITS = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), tuple(d / 4 for d in range(4, 40)))


def tick_score(metric: str, value: float, span: float) -> str:
    """A metric's tick, with the decimals that an axis over ``span`` needs."""
    value = 0.0 if abs(value) < 1e-9 * span else value  # what arithmetic leaves of a zero
    if is_rate(metric):
        decimals = 0 if span > 0.05 else 1 if span > 0.006 else 2
        return f"{100 * value:.{decimals}f} %"
    return f"{value:.4g}"


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many multiples of 1, 2 or 5 times a power of ten between ``low`` and ``high``."""
    raw = (high - low) / most
    if not raw > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(d * power for d in (1, 2, 5, 10) if d * power >= raw)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between ``low`` and ``high``: 1-2-5, or every digit where that gives few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in _DIGITS:
        ticks = [d * 10.0**k for k in decades for d in digits if low <= d * 10.0**k <= high]
        if len(ticks) >= 3:
            break
    return ticks


def binary_ticks(low: float, high: float) -> list[float]:
    """Powers of two between ``low`` and ``high``, or parts of them, for sizes in binary units."""
    powers = range(math.floor(math.log2(low)), math.floor(math.log2(high)) + 1)
    parts = [[2.0**k * (1 + d / of) for k in powers for d in range(of)] for of in (1, 2, 4)]
    shown = [[tick for tick in ticks if low <= tick <= high] for ticks in parts]
    return next((ticks for ticks in shown if len(ticks) >= 2), shown[-1])


def thinned(ticks: Sequence[Tick], most: int) -> list[Tick]:
    """Every so many of ``ticks``, so that there are at most ``most``."""
    return list(ticks[:: max(1, math.ceil(len(ticks) / most))])


def brief(text: str) -> str:
    """``2.00 MiB`` as ``2 MiB``, ``1.50k`` as ``1.5k``."""
    return _TRAILING_ZEROS.sub(lambda found: found.group(1).rstrip("."), text)
