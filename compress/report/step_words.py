"""What each stage bought over the row before it, and what in the model accounts for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from compress.formatting import (
    count,
    interval,
    ratio_words,
    sanitize,
    score_change,
    score_interval,
    times,
)
from compress.pareto import MeasuredChange, StageEffects, int8_slowdowns, stage_effects
from compress.record import Record, Row

__all__ = ["step_words"]

_SAME = 1.005  # ratios nearer to 1 are shown as 1.00
_LABEL = 40


def step_words(record: Record, target: str) -> Iterator[str]:
    """A sentence for each stage after the baseline: its row against the row measured before it.

    Rows that int8 made slower have a sentence of their own, which
    :func:`~compress.pareto.int8_slowdowns` makes.
    """
    slower = int8_slowdowns(record, target)
    rows = {row.index: row for row in record.rows}
    effects = stage_effects(record, target)
    for before, step in pairwise(effects):
        if step.row > record.baseline and step.row not in slower:
            yield _sentence(record, target, rows[before.row], rows[step.row], step)


def _sentence(record: Record, target: str, before: Row, row: Row, step: StageEffects) -> str:
    bought = ", ".join(_bought(record.task.metric, step)) or "was not timed or scored"
    reasons = "; ".join(_reasons(target, before, row))
    return (
        f"Row {row.index} ({sanitize(row.stage, _LABEL)}) against row {before.index}: {bought}"
        f"{f' ({reasons})' if reasons else ''}."
    )


def _bought(metric: str, step: StageEffects) -> Iterator[str]:
    speed = _change(step, "latency_p50_s")
    if speed is not None:
        yield _speed_words(speed)
    size = _change(step, "artifact_bytes")
    if size is not None:
        same = 1 / _SAME < size.value < _SAME
        yield "as large" if same else ratio_words(size.value, "smaller", "larger")
    score = _change(step, "accuracy")
    if score is not None:
        change, ends = score_change(metric, score.value), score_interval(metric, *score.ci95)
        yield f"{sanitize(metric, _LABEL)} {change} {ends}"


def _speed_words(found: MeasuredChange) -> str:
    low, high = found.ci95
    if found.verdict == "worse":
        return f"{times(1 / found.value)} slower {interval(1 / high, 1 / low)}"
    words = f"{times(found.value)} as fast {interval(low, high)}"
    if found.verdict == "better":
        return words
    if low > 1 or high < 1:  # of many pairs in one record some would do that by chance
        return f"{words}, too near to the noise of both rows to tell"
    return f"{words}, not shown to be faster or slower"


def _reasons(target: str, before: Row, row: Row) -> Iterator[str]:
    """What of the model changed that time and size depend on."""
    if before.macs and row.macs and before.macs != row.macs:
        ratio = ratio_words(before.macs / row.macs, "fewer", "more")
        yield f"{count(row.macs)} multiply-accumulates, {ratio}"
    old, new = before.on(target), row.on(target)
    if old is None or new is None:
        return
    shares = [100 * found.artifact.int8_mac_fraction for found in (old, new)]
    if abs(shares[1] - shares[0]) >= 1:
        yield f"{shares[1]:.0f} % of multiply-accumulates in int8, {shares[0]:.0f} % before"


def _change(step: StageEffects, name: str) -> MeasuredChange | None:
    effect = step.effects.get(name)
    return effect.from_previous if effect is not None else None
