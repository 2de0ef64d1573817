"""Numbers in words: units, rounding and signs, the same in tables, figures and sentences.

Knows nothing of records. Text that came from outside passes through :func:`sanitize` before it is
shown anywhere.
"""

from __future__ import annotations

import math
import unicodedata

from compress.metrics import change_unit, has_absolute_drop, is_decibel, is_rate, metric_unit

__all__ = [
    "count",
    "decimals_for",
    "duration",
    "energy",
    "interval",
    "latency_unit",
    "ratio_words",
    "sanitize",
    "score",
    "score_cell",
    "score_cells",
    "score_change",
    "score_interval",
    "size",
    "times",
]


def sanitize(text: object, limit: int = 200) -> str:
    """One printable line: control and format characters become spaces, long text is cut."""
    shown = "".join(
        " " if unicodedata.category(char)[0] in "CZ" else char for char in str(text)
    ).strip()
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def score(metric: str, value: float) -> str:
    """A metric's value: ``91.96 %`` for a rate, ``24.31 dB``, ``0.9731`` for R².

    Of other metrics it has four significant digits.
    """
    unit = metric_unit(metric)
    return f"{_number(metric, value)} {unit}" if unit else _number(metric, value)


def score_cells(metric: str, value: float, low: float, high: float) -> tuple[str, str]:
    """A metric's value and its interval, both ends as they are: ``100.00``, ``[91.24, 100.00]``.

    Without the unit; with more digits than usual where the interval is narrower than these.
    """
    three = (value, low, high)
    if has_absolute_drop(metric) or is_decibel(metric):
        middle, *ends = (_number(metric, each) for each in three)
    else:
        middle, *ends = (_signed(format(each, _shared_format(*three))) for each in three)
    return middle, f"[{', '.join(ends)}]"


def score_cell(metric: str, value: float, low: float, high: float) -> str:
    """The same in one: ``100.00 [91.24, 100.00]``."""
    return " ".join(score_cells(metric, value, low, high))


def score_change(metric: str, change: float) -> str:
    """A signed change of a metric: ``−0.40 pt`` (percentage points) for a rate."""
    if is_rate(metric):
        return f"{_signed(f'{100 * change:+.2f}')} pt"
    if is_decibel(metric):
        return f"{_signed(f'{change:+.2f}')} dB"
    return _signed(f"{change:+.4f}" if has_absolute_drop(metric) else f"{change:+.3g}")


def score_interval(metric: str, low: float, high: float) -> str:
    """An interval of changes of a metric, without the unit: ``[−0.85, +0.10]``."""
    unit = f" {change_unit(metric)}"
    ends = (score_change(metric, end).removesuffix(unit) for end in (low, high))
    return f"[{', '.join(ends)}]"


def _number(metric: str, value: float) -> str:
    """A metric's value in its unit, a rate's in percent, without a name for that."""
    if is_rate(metric):
        return _signed(f"{100 * value:.2f}")
    if is_decibel(metric):
        return _signed(f"{value:.2f}")
    return _signed(f"{value:.4f}" if has_absolute_drop(metric) else f"{value:.4g}")


def _shared_format(value: float, low: float, high: float) -> str:
    """A format for all three: four significant digits, or as many as show the width with two.

    With the same decimals, where these are not too many.
    """
    width, largest = high - low, max(abs(value), abs(low), abs(high))
    if not (width > 0 and math.isfinite(width) and math.isfinite(largest)):
        return ".4g"
    place = math.floor(math.log10(largest))
    digits = min(9, max(4, place - math.floor(math.log10(width)) + 2))
    decimals = digits - 1 - place
    return f".{decimals}f" if 0 <= decimals <= 9 else f".{digits}g"


def _signed(number: str) -> str:
    """A number with a true minus sign, and with no sign where it was rounded to zero."""
    if number[0] in "+-" and float(number) == 0:
        return number[1:]
    return f"−{number[1:]}" if number[0] == "-" else number


def times(ratio: float) -> str:
    """A ratio with three significant digits at most: ``1.42x``, ``14.2x``, ``142x``."""
    return f"{ratio:.2g}x" if 0 < ratio < 0.01 else f"{ratio:.{decimals_for(ratio)}f}x"


def ratio_words(ratio: float, above: str, below: str) -> str:
    """A ratio as a comparison: ``2.00x faster``, or ``1.25x slower`` for 0.8."""
    return f"{times(ratio)} {above}" if ratio >= 1 else f"{times(1 / ratio)} {below}"


def decimals_for(value: float, digits: int = 3) -> int:
    """Decimals that give ``value`` so many significant digits; at most 2, so noise is not shown."""
    if value == 0 or not math.isfinite(value):
        return 0
    return min(2, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def interval(low: float, high: float) -> str:
    """An interval of ratios: ``[4.30, 4.42]``."""
    decimals = decimals_for(high)
    return f"[{low:.{decimals}f}, {high:.{decimals}f}]"


def latency_unit(seconds: float) -> tuple[str, float]:
    """A unit in which ``seconds`` is between 1 and 1000, and how many of it make a second."""
    for unit, per_second in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * per_second >= 1:
            return unit, per_second
    return "µs", 1e6


def duration(seconds: float) -> str:
    """``392 µs``, ``1.52 ms``, ``2.10 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    if seconds >= 60:
        return f"{seconds // 60:.0f} min {seconds % 60 // 1:02.0f} s"
    if seconds == 0:
        return "0 s"
    unit, per_second = latency_unit(seconds)
    value = seconds * per_second
    if 0 < value < 0.01:
        return f"under 0.01 {unit}"
    return f"{value:.{decimals_for(value)}f} {unit}"


def energy(joules: float) -> str:
    """``84.2 µJ``, ``1.52 mJ``, ``2.10 J``: three significant digits."""
    units = (("J", 1.0), ("mJ", 1e3), ("µJ", 1e6))
    unit, per_joule = next((each for each in units if abs(joules) * each[1] >= 1), units[-1])
    value = joules * per_joule
    return f"{value:.{decimals_for(value)}f} {unit}"


def size(amount_bytes: float) -> str:
    """``708 KiB``, ``1.52 MiB``: binary units with three significant digits."""
    value, unit = float(amount_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.{decimals_for(value)}f} {unit}"


def count(amount: float) -> str:
    """A count in short form: ``842``, ``13.9k``, ``1.24M``."""
    value, suffix = float(amount), ""
    for larger in ("k", "M", "G"):
        if abs(value) < 1000:
            break
        value, suffix = value / 1000, larger
    return f"{value:.0f}" if not suffix else f"{value:.{decimals_for(value)}f}{suffix}"
