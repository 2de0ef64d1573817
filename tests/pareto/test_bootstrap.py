"""How sure a front and its hypervolume are."""

import pytest

from compress.measure.quantity import Estimate
from compress.pareto import (
    FrontPoint,
    Reading,
    front_probabilities,
    front_probabilities_on,
    hypervolume,
    volume,
)


def reading(value, half=0.0, resolution=0.0):
    ends = (value - half, value + half)
    return Reading(value, ends, Estimate(value, *ends), resolution=resolution)


def points(*rows):
    return [FrontPoint(k, tuple(reading(*r) for r in row)) for k, row in enumerate(rows)]


def test_exact_rows_are_dominated_for_certain_or_not_at_all():
    found = front_probabilities(points([(1,), (1,)], [(2,), (2,)], [(0,), (3,)], [(1,), (1,)]))
    assert found == {0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0}


def test_two_rows_that_nothing_tells_apart_are_even():
    found = front_probabilities(points([(1, 0.5)], [(1, 0.5)]), draws=4000)
    assert found[0] == pytest.approx(0.5, abs=0.03)
    assert found[0] + found[1] == pytest.approx(1.0)


def test_chances_are_those_of_the_normal_distribution():
    # A difference of 1 with a standard deviation of sqrt(2) half-widths over 1.96.
    found = front_probabilities(points([(0, 1.959964)], [(1, 1.959964)]), draws=20_000)
    assert found[1] == pytest.approx(0.2398, abs=0.01)


def test_each_side_of_an_interval_counts_by_itself():
    lopsided = Reading(0.0, (0.0, 0.0), Estimate(0.0, -4.0, 0.0))
    found = front_probabilities(
        [FrontPoint(0, (lopsided,)), FrontPoint(1, (reading(0.001),))], draws=4000
    )
    assert found[0] == 1.0  # it is never worse than its value
    upwards = Reading(0.0, (0.0, 0.0), Estimate(0.0, 0.0, 4.0))
    found = front_probabilities(
        [FrontPoint(0, (upwards,)), FrontPoint(1, (reading(0.001),))], draws=4000
    )
    assert found[0] == pytest.approx(0.5, abs=0.03)


def test_paired_intervals_are_taken_where_there_are_any():
    wide = Estimate(1.0, -9.0, 11.0)
    sharp = [
        FrontPoint(0, (Reading(1.0, (0, 2), wide, Estimate(0.0, 0.0, 0.0)),)),
        FrontPoint(1, (Reading(2.0, (0, 4), wide, Estimate(1.0, 0.9, 1.1)),)),
    ]
    sharp[1] = FrontPoint(1, (Reading(2.0, (0, 4), Estimate(2.0, -8, 12), Estimate(1, 0.9, 1.1)),))
    assert front_probabilities(sharp) == {0: 1.0, 1: 0.0}


def test_nothing_is_surer_than_the_noise_floor():
    calm = front_probabilities(points([(0, 0.01, 0.0)], [(0.1, 0.01, 0.0)]))
    noisy = front_probabilities(points([(0, 0.01, 0.5)], [(0.1, 0.01, 0.5)]))
    assert calm[1] == 0.0
    assert noisy[1] > 0.2


def test_the_same_rows_have_the_same_chances(clustered):
    assert front_probabilities_on(clustered, "laptop") == front_probabilities_on(
        clustered, "laptop"
    )


def test_rows_of_a_record_that_are_far_apart_are_sure(chain):
    found = front_probabilities_on(chain, "laptop")
    assert set(found) == {1, 2, 3, 4}
    assert found[1] == found[4] == 1.0
    assert found[3] < 1.0


def test_a_volume_without_noise_has_no_interval():
    exact = points([(1,), (2,)], [(2,), (1,)])
    found = volume(exact, (3.0, 3.0))
    assert found.value == found.lo == found.hi == hypervolume([(1, 2), (2, 1)], (3, 3)) == 3.0


def test_the_interval_of_a_volume_holds_it_and_grows_with_noise():
    widths = []
    for half in (0.05, 0.2):
        found = volume(points([(1, half), (2, half)], [(2, half), (1, half)]), (3.0, 3.0))
        assert found.lo < found.value < found.hi
        widths.append(found.hi - found.lo)
    assert widths[1] > 3 * widths[0]
    single = volume(points([(1, 0.1)]), (3.0,))
    assert single.hi - single.lo == pytest.approx(0.2, rel=0.15)
