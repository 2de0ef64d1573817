"""What a session found, as a table for whoever waits at the device."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from compress.measure.ondevice.intervals import log_ratios
from compress.measure.ondevice.loop import peak_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compress.measure.ondevice.loop import SessionOutcome
    from compress.measure.ondevice.session_log import Line

__all__ = ["printable", "table"]


def table(outcome: SessionOutcome, lines: Sequence[Line]) -> str:
    """Plain text: a line for each model, then what went wrong."""
    models = lines[0]["session"]["models"]
    outputs = {line["index"]: line for line in lines if line.get("kind") == "outputs"}
    times = _times(outcome)
    rows = [("model", "p50 ms", "speed-up", "95 % interval", "score", "peak MiB")]
    notes = []
    for index, model in enumerate(models):
        found = outputs.get(index, {})
        cells = (*times.get(index, ("-", "-", "-")), _score(found), _peak(outcome, index))
        rows.append((model["name"], *cells))
        notes += [text for text in (outcome.failures.get(index), found.get("error")) if text]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = [
        "  ".join([row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in range(1, len(row)))])
        for row in rows
    ]
    return "\n".join(printable(line) for line in (*shown, *dict.fromkeys(notes))) + "\n"


def _times(outcome: SessionOutcome) -> dict[int, tuple[str, str, str]]:
    if not outcome.timed:
        return {}
    baseline, again, *others = outcome.timed
    ratios = log_ratios(outcome.timed)[1:]
    shown = {baseline.index: (_ms(baseline.medians_s + again.medians_s), "1", "baseline")}
    for place, each in enumerate(others):
        mean, half = ratios[place].mean, ratios[place].half_width
        interval = f"{math.exp(mean - half):.3f} to {math.exp(mean + half):.3f}"
        shown[each.index] = (_ms(each.medians_s), f"{math.exp(mean):.3f}", interval)
    return shown


def _ms(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.3f}"


def _score(line: Line) -> str:
    scores = line.get("scores")
    return f"{statistics.fmean(scores):.4f}" if scores else "-"


def _peak(outcome: SessionOutcome, index: int) -> str:
    preflight = outcome.preflights.get(index)
    if preflight is None or not preflight.memory:
        return "-"
    middle = preflight.memory[len(preflight.memory) // 2]
    return f"{max(0, peak_bytes(middle) - middle['runtime_bytes']) / 2**20:.1f}"


def printable(text: str) -> str:
    """``text`` without what could steer a terminal."""
    # A bundle's names are a stranger's: none may steer the terminal.
    return "".join(c if c.isprintable() else "?" for c in text)
