"""Two recipes over seeds: whether one is better, by more than seeds and test samples explain.

The runs of two recipes are not paired by their seeds: equal seeds train different nets. So the
interval over trainings is Welch's (1947) for means of unequal variances, with Satterthwaite's
degrees of freedom (1946) rounded down, which is the safe side. A record does not keep which samples
were right, so the test sample is counted as if each recipe had had one of its own: too wide where
both got the same samples right, as they mostly do. Both parts are put together as in
:mod:`.repeat`. No torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from compress.errors import RecordError
from compress.formatting import sanitize, score, score_change, score_interval
from compress.report.repeat.facts import Ends, Repeat, RepeatedRow, Spread
from compress.report.repeat.summary import outside, student_975

__all__ = ["Gap", "compare", "comparison", "welch"]


class Gap(NamedTuple):
    """The last row of one recipe less that of another on one target, in the metric's unit.

    ``ci95_seeds`` is about other trainings on this test sample, ``ci95`` about another test sample
    as well (``None`` where a run has no interval). ``verdict`` goes by the wider one there is:
    ``better``, ``worse`` or ``not shown to differ``.
    """

    target: str
    rows: tuple[str, str]
    value: float
    ci95_seeds: Ends
    ci95: Ends | None
    verdict: str


def compare(first: Repeat, other: Repeat) -> list[Gap]:
    """How much better ``other`` is than ``first``, on each target that both have a score on.

    Raises:
        RecordError: they were scored on different tasks or test samples, or have no target in
            common.
    """
    if first.task != other.task:
        raise RecordError(
            f"{first.name!r} was scored by {_task(first)}, {other.name!r} by {_task(other)}: such "
            "scores do not compare; give runs of one task."
        )
    gaps = []
    for target in first.targets:
        (row, mine), (other_row, theirs) = _last(first, target), _last(other, target)
        if mine is not None and theirs is not None:
            gaps.append(_gap(target, (row, other_row), mine, theirs, first.task.higher_is_better))
    if not gaps:
        raise RecordError(
            f"{first.name!r} has scores on {', '.join(first.targets) or 'no target'}, "
            f"{other.name!r} on {', '.join(other.targets) or 'no target'}: nothing to compare."
        )
    return gaps


def _task(repeat: Repeat) -> str:
    return f"{repeat.task.metric} on {repeat.task.test_samples} samples of {repeat.task.name}"


def _last(repeat: Repeat, target: str) -> tuple[str, Spread | None]:
    row: RepeatedRow = repeat.rows[-1]
    found = row.on(target)
    return f"{row.index} ({sanitize(row.stage, 24)})", found.score if found else None


def _gap(
    target: str, rows: tuple[str, str], first: Spread, other: Spread, higher_is_better: bool
) -> Gap:
    value, half = other.mean - first.mean, welch(first.values, other.values)
    seeds, both = (value - half, value + half), None
    if first.ci95_sample and other.ci95_sample:
        # Of a difference, the low end is where one is low and the other high.
        below = (other.mean - other.ci95_sample[0], first.ci95_sample[1] - first.mean)
        above = (other.ci95_sample[1] - other.mean, first.mean - first.ci95_sample[0])
        both = (value - math.hypot(half, *below), value + math.hypot(half, *above))
    side = outside(both or seeds) * (1 if higher_is_better else -1)
    verdict = {1: "better", -1: "worse", 0: "not shown to differ"}[side]
    return Gap(target, rows, value, seeds, both, verdict)


def welch(first: Sequence[float], other: Sequence[float]) -> float:
    """Half of Welch's 95 % interval of the difference of two means, each of two values or more."""
    parts = [statistics.variance(values) / len(values) for values in (first, other)]
    if sum(parts) == 0:
        return 0.0
    weights = [p**2 / (len(v) - 1) for p, v in zip(parts, (first, other), strict=True)]
    df = max(1, math.floor(sum(parts) ** 2 / sum(weights)))
    return student_975(df) * math.sqrt(sum(parts))


def comparison(repeats: Sequence[Repeat]) -> list[str]:
    """The others against the first one in sentences, one for each target.

    Raises:
        RecordError: as in :func:`compare`.
    """
    first, *others = repeats
    said = []
    for other in others:
        said += [_sentence(first, other, gap) for gap in compare(first, other)]
    said.append(
        "The first interval is over trainings (Welch's t over the seeds); the second adds the test "
        "sample, as if each recipe had had its own, which is rather too wide."
    )
    return said


def _sentence(first: Repeat, other: Repeat, gap: Gap) -> str:
    metric = first.task.metric
    ends = " ".join(score_interval(metric, *e) for e in (gap.ci95_seeds, gap.ci95) if e)
    means = [
        f"{sanitize(repeat.name, 60)}, row {row}: {score(metric, s.mean)} "
        f"over {len(s.values)} seeds"
        for repeat, row in ((first, gap.rows[0]), (other, gap.rows[1]))
        if (s := _last(repeat, gap.target)[1]) is not None
    ]
    verdict = f"{gap.verdict} than" if gap.verdict in ("better", "worse") else f"{gap.verdict} from"
    return (
        f"On {sanitize(gap.target, 30)}: {'; '.join(means)}. {sanitize(other.name, 60)} is "
        f"{verdict} {sanitize(first.name, 60)}: {score_change(metric, gap.value)} {ends}."
    )
