"""Intervals over seeds: by hand, by tables of Student's t, and by how often they hold."""

import math

import numpy as np
import pytest

from compress.report.repeat.compare import welch
from compress.report.repeat.summary import spread, student_half_width

T_2 = 4.302653  # Student's 97.5 % quantile of 2 degrees of freedom


def test_the_intervals_are_those_of_the_formulas():
    found = spread([0.90, 0.92, 0.94], [(0.88, 0.91), (0.90, 0.93), (0.92, 0.95)])
    half = T_2 * 0.02 / math.sqrt(3)
    assert found.mean == pytest.approx(0.92)
    assert found.sd_seeds == pytest.approx(0.02)
    assert found.ci95_seeds == pytest.approx((0.92 - half, 0.92 + half))
    assert found.ci95_sample == pytest.approx((0.90, 0.93))
    both = (0.92 - math.hypot(half, 0.02), 0.92 + math.hypot(half, 0.01))
    assert found.ci95 == pytest.approx(both)


def test_the_quantile_is_students_for_every_number_of_seeds():
    for count, quantile in ((2, 12.7062), (3, 4.30265), (5, 2.77645), (31, 2.04227)):
        values = [0.0, 1.0] * (count // 2) + [0.5] * (count % 2)
        error = np.std(values, ddof=1) / math.sqrt(count)
        assert student_half_width(values) == pytest.approx(quantile * error, rel=1e-5)


def test_seeds_that_change_nothing_leave_the_interval_of_the_test_sample():
    found = spread([0.9, 0.9], [(0.88, 0.91), (0.88, 0.91)])
    assert found.ci95_seeds == (0.9, 0.9)
    assert found.ci95 == pytest.approx(found.ci95_sample)


def test_without_the_runs_own_intervals_only_training_is_known():
    found = spread([0.9, 0.8, 0.7], None)
    assert found.ci95_sample is found.ci95 is None
    assert found.ci95_seeds[0] < 0.7


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("training", "common", "own"), [(1, 0.1, 0.1), (0.3, 1, 0.5), (1, 1, 1)])
def test_the_interval_of_both_covers_what_it_says_and_that_of_one_run_does_not(
    count, training, common, own
):
    # Score = 0 + training + what the shared test sample did + what it did to this net alone.
    draws = np.random.default_rng(count)
    z = 1.959964 * math.hypot(common, own)
    held = {"ci95": 0, "ci95_sample": 0, "ci95_seeds": 0}
    for _ in range(2000):
        shared = draws.normal(0, common)
        values = shared + draws.normal(0, math.hypot(training, own), count)
        found = spread(values.tolist(), [(v - z, v + z) for v in values])
        held["ci95"] += found.ci95[0] <= 0 <= found.ci95[1]
        held["ci95_sample"] += found.ci95_sample[0] <= 0 <= found.ci95_sample[1]
        # Another training, this test sample: what is estimated holds the sample's part.
        held["ci95_seeds"] += found.ci95_seeds[0] <= shared <= found.ci95_seeds[1]
    share = {name: times / 2000 for name, times in held.items()}
    assert share["ci95"] > 0.94
    assert 0.935 < share["ci95_seeds"] < 0.965
    if training > 5 * common:
        assert share["ci95_sample"] < 0.6


def test_welch_is_students_test_where_variances_and_numbers_are_equal():
    # Variance 1 and 3 seeds each: 4 degrees of freedom, quantile 2.776445.
    assert welch([0, 1, 2], [5, 6, 7]) == pytest.approx(2.776445 * math.sqrt(2 / 3), rel=1e-6)
    # All variance on one side: its own 2 degrees of freedom.
    assert welch([0, 1, 2], [3, 3, 3]) == pytest.approx(T_2 * math.sqrt(1 / 3), rel=1e-6)
    assert welch([1, 1], [2, 2]) == 0
