"""The front, its ties, and the hypervolume."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.measure.quantity import Estimate
from compress.pareto import (
    FrontPoint,
    Objective,
    Reading,
    beats,
    compare,
    difference,
    front,
    front_facts,
    hypervolume,
    readings,
    reference_point,
    ties,
)

EXACT = [Objective(name, False, False, 0.0, uncertain=False) for name in "abc"]
MEASURED = [Objective(name, False, False, 0.1) for name in "abc"]

coordinates = st.integers(0, 6).map(float)
exact_points = st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=1, max_size=9)
half_widths = st.sampled_from([0.0, 0.05, 0.3, 1.5])
measured_points = st.lists(
    st.tuples(*[st.tuples(coordinates, half_widths)] * 3), min_size=1, max_size=8
)


def reading(value, half=0.0):
    cost = Estimate(value, value - half, value + half)
    return Reading(value, (value - half, value + half), cost)


def points(rows):
    return [
        FrontPoint(n, tuple(reading(*c) if isinstance(c, tuple) else reading(c) for c in row))
        for n, row in enumerate(rows)
    ]


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(exact_points)
def test_front_of_exact_values_is_the_classical_one(rows):
    expected = [n for n, row in enumerate(rows) if not any(dominates(o, row) for o in rows)]
    assert front(EXACT, points(rows)) == expected


def clearly_beats(a, b, margin=0.1):
    """The definition, spelled out from the intervals."""
    better = [x + hx < y - hy for (x, hx), (y, hy) in zip(a, b, strict=True)]
    worse = [x - hx > y + hy for (x, hx), (y, hy) in zip(a, b, strict=True)]
    bounded = [x - y + math.hypot(hx, hy) <= margin for (x, hx), (y, hy) in zip(a, b, strict=True)]
    rest = all(good or fine for good, fine in zip(better, bounded, strict=True))
    return any(better) and not any(worse) and rest


@given(measured_points)
def test_beating_follows_from_the_intervals(rows):
    made = points(rows)
    for (n, a), (k, b) in itertools.permutations(enumerate(rows), 2):
        assert beats(MEASURED, made[n], made[k]) == clearly_beats(a, b)


@given(measured_points)
def test_a_front_is_never_empty_and_unbeaten_rows_are_on_it(rows):
    made = points(rows)
    found = front(MEASURED, made)
    unbeaten = [p.row for p in made if not any(beats(MEASURED, o, p) for o in made if o is not p)]
    assert found
    assert set(unbeaten) <= set(found)


def test_rows_that_beat_one_another_in_a_circle_stay_on_the_front():
    kinds = [Objective(name, False, False, 0.11) for name in "abc"]
    values = [(0.0, 0.06, 0.12), (0.12, 0.0, 0.06), (0.06, 0.12, 0.0), (1.0, 1.0, 1.0)]
    made = points([tuple((value, 0.031) for value in row) for row in values])
    beaten = {(a.row, b.row) for a, b in itertools.permutations(made, 2) if beats(kinds, a, b)}
    assert beaten == {(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)}
    assert front(kinds, made) == [0, 1, 2]


def test_wide_intervals_never_push_a_row_off_the_front():
    rows = [((0.5, 3.0), (1.0, 0.0), (1.0, 0.0)), ((0.0, 3.0), (2.0, 0.0), (2.0, 0.0))]
    assert front(MEASURED, points(rows)) == [0, 1]


def test_a_difference_below_the_noise_floor_is_not_shown():
    kind = Objective("latency", False, False, 0.0)
    quiet, noisy = (
        reading(1.0, 0.01),
        Reading(1.1, (1.09, 1.11), Estimate(1.1, 1.09, 1.11), None, 0.2),
    )
    assert compare(kind, quiet, reading(1.1, 0.01)) == "better"
    assert compare(kind, quiet, noisy) == "equivalent"


def test_pairing_through_the_baseline_decides_where_both_rows_have_it():
    wide = Estimate(1.0, 0.0, 2.0)
    a = Reading(1.0, (0.0, 2.0), wide, Estimate(0.1, 0.05, 0.15))
    b = Reading(1.0, (0.0, 2.0), wide, Estimate(0.4, 0.35, 0.45))
    alone = Reading(1.0, (0.0, 2.0), wide)
    assert compare(MEASURED[0], a, b) == "better"
    assert compare(MEASURED[0], b, a) == "worse"
    assert compare(MEASURED[0], a, alone) == "unresolved"
    assert difference(a, b).value == pytest.approx(-0.3)
    assert difference(a, b).hi == pytest.approx(-0.3 + math.hypot(0.05, 0.05))


def test_ties_look_at_measured_objectives_only():
    kinds = [MEASURED[0], EXACT[1]]
    made = points([((1.0, 0.2), 5.0), ((1.1, 0.2), 9.0), ((2.0, 0.2), 5.0)])
    assert ties(kinds, made) == [(0, 1)]
    assert ties([EXACT[0]], points([(1.0,), (1.0,)])) == []


def test_scores_are_compared_on_the_same_samples_where_the_record_says_how(chain):
    found = readings(chain, "laptop")[2]["accuracy"]
    assert found.paired.value == pytest.approx(0.0156)
    assert found.paired.lo < 0.0156 < found.paired.hi
    assert found.paired.hi - found.paired.lo < found.cost.hi - found.cost.lo


def test_a_metric_that_is_to_be_small_keeps_its_sign(lower_is_better):
    found = readings(lower_is_better, "laptop")[2]["accuracy"]
    assert found.paired.value == pytest.approx(0.0129)


def test_without_a_paired_difference_scores_are_compared_by_their_own_intervals(chain):
    chain.rows[2].measurements[0].accuracy.versus_baseline = {"lost": 350.0, "gained": 194.0}
    assert readings(chain, "laptop")[2]["accuracy"].paired is None


@pytest.mark.parametrize(
    ("rows", "reference", "volume"),
    [
        ([], (1.0, 1.0), 0.0),
        ([(0.0, 0.0)], (2.0, 3.0), 6.0),
        ([(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)], (3.0, 3.0), 6.0),
        ([(0.0, 0.0, 0.0)], (1.0, 2.0, 3.0), 6.0),
        ([(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)], (2.0, 2.0, 2.0), 4.0),
        ([(5.0, 0.0)], (2.0, 3.0), 0.0),
        ([(0.0, 0.0), (1.0, 1.0)], (2.0, 2.0), 4.0),
    ],
)
def test_hypervolume_has_the_known_value(rows, reference, volume):
    assert hypervolume(rows, reference) == pytest.approx(volume)


@settings(max_examples=40, deadline=None)
@given(exact_points)
def test_hypervolume_counts_the_unit_cells_that_are_dominated(rows):
    cells = itertools.product(range(8), repeat=3)
    covered = sum(
        any(all(x <= c for x, c in zip(r, cell, strict=True)) for r in rows) for cell in cells
    )
    assert hypervolume(rows, (8.0, 8.0, 8.0)) == pytest.approx(covered)


def test_hypervolume_agrees_with_sampling_in_four_dimensions():
    rng = random.Random(11)
    rows = [tuple(rng.random() for _ in range(4)) for _ in range(12)]
    samples = 20_000
    hits = sum(
        any(all(x <= s for x, s in zip(row, spot, strict=True)) for row in rows)
        for spot in (tuple(rng.random() for _ in range(4)) for _ in range(samples))
    )
    assert hypervolume(rows, (1.0,) * 4) == pytest.approx(hits / samples, abs=0.015)


@given(exact_points)
def test_the_reference_point_lies_beyond_every_point(rows):
    reference = reference_point(rows)
    assert all(x < bound for row in rows for x, bound in zip(row, reference, strict=True))
    assert hypervolume(rows, reference) > 0


def test_front_facts_of_the_chain(chain):
    facts = front_facts(chain, "laptop")
    assert facts.objectives == ["accuracy", "latency_p50_s", "artifact_bytes"]
    assert facts.scales == ["linear", "log2", "log2"]
    assert facts.front == [1, 2, 3, 4]
    assert facts.hypervolume > 0
    worst_score, slowest, largest = facts.reference_point
    assert worst_score < 0.9137
    assert slowest > 392e-6
    assert largest > 724_948


def test_the_untrained_model_before_the_baseline_is_no_contender(chain):
    assert 0 in readings(chain, "laptop")
    assert 0 not in front_facts(chain, "laptop").front
    assert front_facts(chain, "laptop").reference_point[0] > 0.9


def test_a_smaller_row_beats_its_equal(make):
    specs = make.four_rows()[1:3]
    specs.append(make.Spec(**{**vars(specs[1]), "bytes": 100_000, "flips": (352, 194)}))
    facts = front_facts(make.build(specs), "laptop")
    assert facts.front == [0, 2]
    assert facts.ties == [(1, 2)]


def test_latency_is_compared_through_the_baseline_of_each_session(make):
    record = make.build(make.four_rows()[1:3])
    slow_session = record.rows[1].measurements[0].latency
    slow_session.p50_s = 500e-6  # the machine was slow, and so was the baseline beside it
    slow_session.ci95_p50_s = (490e-6, 510e-6)
    found = readings(record, "laptop")[1]["latency_p50_s"]
    assert found.value == 64e-6
    assert (found.timed.value, found.timed.lo, found.timed.hi) == (500e-6, 490e-6, 510e-6)
    assert 2**found.cost.value == pytest.approx(64e-6)
    assert front_facts(record, "laptop").front == [0, 1]


def test_what_was_not_measured_is_no_objective(make):
    specs = make.four_rows()[1:]
    for spec in specs:
        spec.seconds = None
    assert front_facts(make.build(specs), "laptop").objectives == ["accuracy", "artifact_bytes"]


def test_a_row_that_lacks_an_objective_is_left_out(failed):
    assert front_facts(failed, "laptop").front == [0, 1]


def test_a_score_that_is_no_number_counts_as_not_measured(make):
    record = make.build(make.four_rows()[1:3])
    record.rows[1].measurements[0].accuracy.value = math.nan
    assert front_facts(record, "laptop").front == [0]


def test_an_unknown_target_has_an_empty_front(chain):
    assert front_facts(chain, "nowhere").model_dump()["front"] == []


def test_front_facts_survive_the_record_file(chain, tmp_path):
    chain.pareto = {"laptop": front_facts(chain, "laptop")}
    chain.save(tmp_path)
    assert type(chain).load(tmp_path).pareto == chain.pareto
