"""Statistics, against values worked out without them."""

import math
from itertools import product

import numpy as np
import pytest

from compress.measure import stats

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("df", "t"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (30, 2.04227)],
)
def test_student_quantile_is_that_of_the_tables(df, t):
    assert stats.student_quantile(0.975, df) == pytest.approx(t, abs=1e-5)


@pytest.mark.parametrize("t", [-3.0, -0.5, 0.0, 0.7, 10.0])
def test_student_cdf_has_closed_forms_for_one_and_two_degrees(t):
    assert stats.student_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi)
    assert stats.student_cdf(t, 2) == pytest.approx(0.5 * (1 + t / math.sqrt(2 + t * t)))


def test_paired_ratio_is_the_geometric_mean_of_the_rounds_with_students_interval():
    # Log ratios log 2 - d, log 2, log 2 + d: mean log 2, standard error d / sqrt 3.
    d = 0.03
    times = np.array([1.0, 2.0, 3.0])
    baseline = times * 2 * np.exp([-d, 0, d])
    ratio = stats.paired_ratio(baseline, times)
    half = 4.30265 * d / math.sqrt(3)
    assert ratio.value == pytest.approx(2)
    assert ratio.half_width == pytest.approx(half, rel=1e-5)
    assert ratio.ci95 == pytest.approx((2 * math.exp(-half), 2 * math.exp(half)), rel=1e-6)


def test_paired_ratio_p_value_meets_its_interval():
    # At the edge of the interval, p is 5 %.
    d = 0.02
    shift = 4.30265 * d / math.sqrt(3)
    ratio = stats.paired_ratio(np.exp([shift - d, shift, shift + d]), np.ones(3))
    assert ratio.p_value == pytest.approx(0.05, abs=1e-5)
    assert ratio.ci95.lo == pytest.approx(1, abs=1e-6)


def test_paired_ratio_of_exact_repeats_is_certain():
    assert stats.paired_ratio([2.0] * 3, [1.0] * 3) == (2.0, (2.0, 2.0), 0.0, 0.0)
    assert stats.paired_ratio([1.0] * 3, [1.0] * 3).p_value == 1.0


def test_paired_ratio_ignores_what_both_of_a_round_share():
    shared = np.array([1.0, 3.0, 0.5, 7.0])
    assert stats.paired_ratio(2 * shared, shared).half_width == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "interval", [lambda: stats.paired_ratio([1.0], [2.0]), lambda: stats.median_interval([1.0])]
)
def test_one_sample_has_no_interval(interval):
    with pytest.raises(ValueError, match="at least 2"):
        interval()


# Ranks from tables of the sign test: the widest pair that still covers 95 %.
@pytest.mark.parametrize(
    ("n", "lo", "hi"), [(6, 1, 6), (8, 1, 8), (9, 2, 8), (12, 3, 10), (20, 6, 15), (25, 8, 18)]
)
def test_median_interval_lies_between_order_statistics(n, lo, hi):
    assert stats.median_interval(np.random.default_rng(0).permutation(n) + 1.0) == (lo, hi)


def test_median_interval_of_few_processes_contains_the_median_and_grows_with_spread():
    tight, loose = (stats.median_interval([1.0, 1 + s, 1 - s]) for s in (0.01, 0.1))
    assert loose.lo < tight.lo < 1 < tight.hi < loose.hi


@pytest.mark.parametrize(("share", "fewest"), [(0.90, 29), (0.99, 299)])
def test_percentile_needs_enough_samples_to_be_bounded(share, fewest):
    # The largest sample lies above the percentile with 95 %: share ** n <= 0.05.
    assert share**fewest <= 0.05 < share ** (fewest - 1)
    assert stats.percentile(np.ones(fewest - 1), share) is None
    assert stats.percentile(np.ones(fewest), share) == 1.0


def test_drift_is_the_change_from_first_to_last_and_shrugs_off_spikes():
    series = np.linspace(1.0, 1.2, 50)
    series[[3, 17]] = 50.0
    assert stats.drift(series) == pytest.approx(0.2 / 1.1, rel=0.02)
    assert stats.drift(np.linspace(1.0, 1.2, 5000)) == pytest.approx(0.2 / 1.1, rel=0.02)
    assert stats.drift([1.0, 2.0]) == 0.0


def test_holm_on_holms_steps():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0]


def ratio(value, half, p=0.001):
    ci95 = stats.Interval(value * math.exp(-half), value * math.exp(half))
    return stats.Ratio(value, ci95, half, p)


@pytest.mark.parametrize(
    ("given", "floor", "expected"),
    [
        (ratio(1.5, 0.01), 0.0, "faster"),
        (ratio(0.7, 0.01), 0.0, "slower"),
        (ratio(2.0, 0.40), 0.0, "faster"),  # wide, but clear
        (ratio(1.008, 0.001), 0.0, "no difference shown"),  # certain, but below 1 %
        (ratio(1.02, 0.015), 0.0, "no difference shown"),  # not 1, but perhaps below 1 %
        (ratio(1.03, 0.01), 0.05, "no difference shown"),  # the baseline differs more from itself
        (ratio(1.03, 0.01, p=0.2), 0.0, "no difference shown"),
        (ratio(1.03, 0.10, p=0.5), 0.0, "noisy"),
        (ratio(1.0, 0.0, p=1.0), 0.0, "no difference shown"),
    ],
)
def test_verdict_needs_certainty_and_size(given, floor, expected):
    assert stats.verdict(given, noise_floor=floor, bound=0.02) == expected


def test_an_adjusted_p_value_replaces_the_ratios_own():
    clear = ratio(1.5, 0.01)
    assert stats.verdict(clear, noise_floor=0, bound=0.02, p_value=0.06) == "no difference shown"


def test_wilson_on_the_textbook_case():
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    assert stats.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert stats.wilson(20, 20).hi == 1.0


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (0, 6), (3, 9), (9, 3), (7, 7)])
def test_mcnemar_counts_coin_tosses(lost, gained):
    n, fewer = lost + gained, min(lost, gained)
    heads = [sum(toss) for toss in product((0, 1), repeat=n)]
    extreme = [count <= fewer or count >= n - fewer for count in heads]
    assert stats.mcnemar(lost, gained) == pytest.approx(np.mean(extreme))


def test_mcnemar_does_not_overflow():
    assert stats.mcnemar(40_000, 41_000) == pytest.approx(4.4e-4, rel=0.05)


def test_paired_difference_on_a_case_by_hand():
    # (1 + 1) / 10 down, (4 + 1) / 10 up: 0.3 and sqrt((0.7 - 0.09) / 10).
    half = 1.959964 * math.sqrt(0.061)
    assert stats.paired_difference(1, 4, 8) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-6)


def test_paired_difference_without_disagreements_still_has_width():
    lo, hi = stats.paired_difference(0, 0, 100)
    assert lo < 0 < hi


def test_bootstrap_mean_agrees_with_the_normal_interval_on_many_values():
    values = np.random.default_rng(1).standard_normal(4000) + 5
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    interval = stats.bootstrap_mean(values)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)
    assert interval == stats.bootstrap_mean(values, seed=0)
    assert interval != stats.bootstrap_mean(values, seed=1)


def test_sign_flip_agrees_with_enumerating_all_signs():
    differences = np.array([0.3, -0.1, 0.4, 0.2, 0.25, -0.05])
    means = [abs(np.mean(np.array(s) * differences)) for s in product((-1, 1), repeat=6)]
    exact = np.mean([m >= abs(differences.mean()) - 1e-12 for m in means])
    assert stats.sign_flip(differences, resamples=20_000) == pytest.approx(exact, abs=0.01)


def test_sign_flip_of_no_difference_is_one():
    assert stats.sign_flip(np.zeros(10)) == 1.0
