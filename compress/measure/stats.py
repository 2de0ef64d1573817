"""Statistics of measurements: pure functions on numpy arrays, which know nothing of processes.

The unit of replication is a fresh process. Iterations inside one are correlated, so no interval
here is computed from iterations: intervals of times come from process medians, those of ratios
from the paired differences of rounds, those of scores from samples of a data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from compress.measure.ondevice.intervals import (
    CONFIDENCE,
    LogRatio,
    log_ratio,
    student_cdf,
    student_quantile,
)

__all__ = [
    "Interval",
    "Ratio",
    "bootstrap_mean",
    "drift",
    "holm",
    "mcnemar",
    "median_interval",
    "paired_difference",
    "paired_ratio",
    "percentile",
    "ratio_of",
    "resampled_interval",
    "resampled_p_value",
    "sign_flip",
    "student_cdf",
    "student_quantile",
    "verdict",
    "wilson",
]

Array = np.ndarray[Any, Any]

#: Fewest samples whose order statistics bound a percentile on both sides at 95 % (binomial).
FEWEST_SAMPLES = {0.90: 29, 0.99: 299}
#: An effect that may be smaller than this is not called a difference, however narrow its interval.
SMALLEST_EFFECT = 0.01

_NORMAL_975 = 1.959963984540054
_PERCENTILE_RESAMPLES = 1000


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    lo: float
    hi: float


class Ratio(NamedTuple):
    """A ratio of paired times, its 95 % interval, and the p-value of its being 1.

    ``half_width`` is that of the interval of the logarithm: about the relative precision.
    """

    value: float
    ci95: Interval
    half_width: float
    p_value: float


# -- times ------------------------------------------------------------------------------------


def paired_ratio(baseline_s: ArrayLike, times_s: ArrayLike) -> Ratio:
    """Baseline time over time, from one pair per round: above 1 is faster than the baseline.

    The geometric mean of the rounds' ratios, with Student's interval on the logarithms. A
    bootstrap over so few rounds is narrower than it says.

    Raises:
        ValueError: fewer than two rounds.
    """
    logs = np.log(np.asarray(baseline_s, float)) - np.log(np.asarray(times_s, float))
    return ratio_of(log_ratio(logs.tolist()))


def ratio_of(log: LogRatio) -> Ratio:
    """A ratio from its logarithm, with the test of its being 1."""
    if log.error == 0:
        p_value = 1.0 if log.mean == 0 else 0.0
    else:
        p_value = 2 * (1 - student_cdf(abs(log.mean) / log.error, log.rounds - 1))
    ci95 = Interval(math.exp(log.mean - log.half_width), math.exp(log.mean + log.half_width))
    return Ratio(math.exp(log.mean), ci95, log.half_width, p_value)


def median_interval(times_s: ArrayLike) -> Interval:
    """95 % interval of the median over processes.

    From six processes on it lies between order statistics, whatever the distribution. Fewer
    cannot reach 95 % that way, and the interval assumes logarithms that are about normal, whose
    median has 1.2533 times the standard error of their mean.

    Raises:
        ValueError: fewer than two processes.
    """
    ordered = np.sort(np.asarray(times_s, float))
    n = len(ordered)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 processes; got {n}")
    if n < 6:
        logs = np.log(ordered)
        error = math.sqrt(math.pi / 2) * float(logs.std(ddof=1)) / math.sqrt(n)
        half = student_quantile((1 + CONFIDENCE) / 2, n - 1) * error
        middle = float(np.median(ordered))
        return Interval(middle * math.exp(-half), middle * math.exp(half))
    tail, rank = 0.0, 0
    while True:
        tail += math.comb(n, rank) / 2**n
        if tail > (1 - CONFIDENCE) / 2:
            return Interval(float(ordered[rank - 1]), float(ordered[n - rank]))
        rank += 1


def percentile(samples_s: ArrayLike, share: float) -> float | None:
    """A high percentile of pooled iterations; ``None`` where there are too few to bound it.

    p90 needs 29 samples, p99 needs 299.
    """
    samples = np.asarray(samples_s, float)
    if len(samples) < FEWEST_SAMPLES[share]:
        return None
    return float(np.quantile(samples, share))


def drift(samples: ArrayLike) -> float:
    """Relative change from the first to the last sample along the Theil-Sen line.

    Long series are thinned to 100 block medians first: the line needs all pairs.
    """
    series = np.asarray(samples, float)
    if len(series) > 100:
        series = np.array([np.median(block) for block in np.array_split(series, 100)])
    if len(series) < 3:
        return 0.0
    first, second = np.triu_indices(len(series), k=1)
    slope = np.median((series[second] - series[first]) / (second - first))
    return float(slope * (len(series) - 1) / np.median(series))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: each p-value as if it had been the only test."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(ratio: Ratio, *, noise_floor: float, bound: float, p_value: float | None = None) -> str:
    """What may be said of a speed-up.

    Args:
        ratio: of the baseline's time to this one's.
        noise_floor: relative difference that the baseline shows against itself.
        bound: half-width that the interval was to reach.
        p_value: in place of the ratio's own, where it was adjusted for several tests.

    Returns:
        ``faster`` or ``slower`` where the test rejects equality at 5 %, the whole interval is
        beyond 1 %, and the effect exceeds the noise floor; ``noisy`` where the interval is wider
        than ``bound`` and so could hide an effect; ``no difference shown`` otherwise. An interval
        beyond 1 and not beyond 1 % is no difference: rounds that stop when they are precise have
        intervals that miss a little more often than they say.
    """
    p = ratio.p_value if p_value is None else p_value
    effect = abs(math.log(ratio.value))
    beyond = effect - ratio.half_width > math.log1p(SMALLEST_EFFECT)
    if p < 1 - CONFIDENCE and beyond and effect > math.log1p(noise_floor):
        return "faster" if ratio.value > 1 else "slower"
    return "noisy" if ratio.half_width > bound else "no difference shown"


# -- scores -----------------------------------------------------------------------------------


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval (1927) of a rate: right also near 0 and 1."""
    z2 = _NORMAL_975**2
    rate = successes / n
    center = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_975 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return Interval(max(0.0, center - half), min(1.0, center + half))


def _resample(
    values: Array, statistic: Callable[[np.random.Generator, int], Array], seed: int, times: int
) -> Array:
    # In blocks of about 10 MB: a data set may have a million samples.
    rng = np.random.default_rng(seed)
    block = max(1, 1_000_000 // len(values))
    sizes = [min(block, times - start) for start in range(0, times, block)]
    return np.concatenate([statistic(rng, size) for size in sizes])


def bootstrap_mean(values: ArrayLike, *, seed: int = 0, resamples: int = 2000) -> Interval:
    """Percentile bootstrap interval of a mean (Efron 1979)."""
    data = np.asarray(values, float)
    n = len(data)
    means = _resample(
        data, lambda rng, size: data[rng.integers(0, n, (size, n))].mean(1), seed, resamples
    )
    return _percentiles(means)


def _percentiles(draws: Array) -> Interval:
    """The 95 % interval of a statistic from its values over resamples; NaN are left out."""
    lo, hi = np.nanquantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(lo), float(hi))


def resampled_interval(value: float, draws: Array) -> Interval:
    """The 95 % interval of a statistic that is ``value``, from its values over resamples.

    From 1,000 resamples on their percentiles. Of fewer the percentiles are a matter of chance, and
    the standard deviation is not: then it is the normal interval with it (Efron & Tibshirani 1993,
    chapters 6 and 13). NaN are left out.
    """
    if len(draws) >= _PERCENTILE_RESAMPLES:
        return _percentiles(draws)
    half = _NORMAL_975 * float(np.nanstd(draws, ddof=1))
    return Interval(value - half, value + half)


def resampled_p_value(change: float, draws: Array) -> float:
    """Two-sided p-value of ``change`` being 0, from its values over resamples; NaN are left out.

    Twice the share of resamples on the rarer side of 0, with one more counted there (Davison &
    Hinkley 1997, section 4.4); of fewer than 1,000 that of the normal distribution.
    """
    known = draws[~np.isnan(draws)]
    if len(draws) >= _PERCENTILE_RESAMPLES:
        rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
        return min(1.0, 2 * (1 + rarer) / (1 + len(known)))
    deviation = float(known.std(ddof=1))
    return math.erfc(abs(change) / deviation / math.sqrt(2)) if deviation else float(change == 0)


def sign_flip(differences: ArrayLike, *, seed: int = 0, resamples: int = 2000) -> float:
    """Two-sided p-value of a mean of paired differences being 0, by random sign flips (Fisher)."""
    data = np.asarray(differences, float)
    observed = abs(float(data.mean()))

    def flipped(rng: np.random.Generator, size: int) -> Array:
        signs = rng.integers(0, 2, (size, len(data)), dtype=np.int8) * 2 - 1
        means: Array = np.abs((signs * data).mean(1))
        return means

    # Equal means may differ in their last bits, by the order of summation.
    as_large = int((_resample(data, flipped, seed, resamples) >= observed * (1 - 1e-12)).sum())
    return (1 + as_large) / (1 + resamples)


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test: samples right in one model only are fair coin tosses."""
    n, fewer = lost + gained, min(lost, gained)
    if n == 0:
        return 1.0
    log_terms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, log_terms)))


def paired_difference(lost: int, gained: int, n: int) -> Interval:
    """95 % interval of the difference of two rates on the same ``n`` samples.

    Wald's interval with one sample added to each kind of disagreement (Bonett & Price 2012): its
    coverage holds for few disagreements too.
    """
    down, up = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = _NORMAL_975 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Interval(max(-1.0, up - down - half), min(1.0, up - down + half))
