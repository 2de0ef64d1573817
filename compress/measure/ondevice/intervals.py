"""The statistics that a session goes by: intervals of paired ratios, and Student's t."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compress.measure.ondevice.answers import TimeAnswer

__all__ = [
    "CONFIDENCE",
    "LogRatio",
    "TimedModel",
    "log_ratio",
    "log_ratios",
    "process_median_s",
    "student_cdf",
    "student_quantile",
    "turn_logs",
]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class TimedModel:
    """One thing that every round times, with one result per round. The baseline is two of them."""

    index: int
    label: str
    results: list[TimeAnswer]

    @property
    def medians_s(self) -> list[float]:
        """The median of one inference, of each round's process."""
        return [process_median_s(result) for result in self.results]


def student_cdf(t: float, df: int) -> float:
    """Student's distribution function for whole degrees of freedom (Abramowitz & Stegun 26.7.3)."""
    angle = math.atan2(t, math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(2 + odd, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    area = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 * (1 + area)


def student_quantile(probability: float, df: int) -> float:
    """Inverse of :func:`student_cdf` for probabilities of 0.5 and more, by bisection."""
    lo, hi = 0.0, 1.0
    while student_cdf(hi, df) < probability:
        lo, hi = hi, 2 * hi
    while hi - lo > 1e-12 * hi:
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if student_cdf(middle, df) < probability else (lo, middle)
    return hi


class LogRatio(NamedTuple):
    """Mean over rounds of the logarithm of a ratio, its standard error, and its 95 % half-width."""

    mean: float
    error: float
    half_width: float
    rounds: int


def log_ratio(logs: Sequence[float]) -> LogRatio:
    """Of the logarithms of one ratio from each round, with Student's interval.

    Raises:
        ValueError: fewer than two rounds.
    """
    rounds = len(logs)
    if rounds < 2:
        raise ValueError(f"a paired ratio needs at least 2 rounds; got {rounds}")
    error = statistics.stdev(logs) / math.sqrt(rounds)
    half_width = student_quantile((1 + CONFIDENCE) / 2, rounds - 1) * error
    return LogRatio(statistics.fmean(logs), error, half_width, rounds)


def log_ratios(timed: Sequence[TimedModel]) -> list[LogRatio]:
    """Of the baseline against itself, then of the baseline to each other model.

    The ratio of a round is the median over its turns, in each of which everything was timed within
    milliseconds. The baseline's time in a turn is the geometric mean of its two processes.

    Raises:
        ValueError: fewer than two rounds, or processes of a round that took other turns.
    """
    first, again, *others = ([turn_logs(r) for r in each.results] for each in timed)
    rounds = range(len(first))
    baseline = [[(a + b) / 2 for a, b in _pairs(first[i], again[i])] for i in rounds]
    pairs = [(first, again), *((baseline, other) for other in others)]
    return [log_ratio([_median_gap(one[i], two[i]) for i in rounds]) for one, two in pairs]


def process_median_s(result: TimeAnswer) -> float:
    """The median time of one inference in one process: the sample that intervals of times use."""
    return float(statistics.median(result["samples_ns"])) / int(result["runs_per_sample"]) / 1e9


def turn_logs(result: TimeAnswer) -> list[float]:
    """Of one process: for each of its turns the logarithm of the median of one inference in ns.

    Raises:
        ValueError: turns that are not those of the samples.
    """
    samples, runs = result["samples_ns"], int(result["runs_per_sample"])
    turns = result.get("turns", [len(samples)])
    if not turns or sum(turns) != len(samples):
        raise ValueError(f"turns of {sum(turns)} samples, where there are {len(samples)}")
    ends = list(itertools.accumulate(turns))
    parts = (samples[ends[i] - turns[i] : ends[i]] for i in range(len(turns)))
    return [math.log(statistics.median(part) / runs) for part in parts]


def _median_gap(first: Sequence[float], second: Sequence[float]) -> float:
    return statistics.median(a - b for a, b in _pairs(first, second))


def _pairs(first: Sequence[float], second: Sequence[float]) -> Iterator[tuple[float, float]]:
    # Python 3.9 has no zip(strict=True).
    if len(first) != len(second):
        raise ValueError(f"a turn is missing: {len(first)} and {len(second)} of one round")
    return ((first[i], second[i]) for i in range(len(first)))
