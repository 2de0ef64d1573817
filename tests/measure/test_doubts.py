"""What results make a session say of itself."""

import pytest

from compress.measure.doubts import about_checks, about_machine, about_model

CALM = {
    "samples_ns": [1000] * 30,
    "runs_per_sample": 1,
    "steady": True,
    "finite": True,
    "batch": 1,
    "load": [0.5, 0.6],
    "probe_ns": [5_000_000, 5_100_000],
    "wall_ns": 1000,
    "cpu_ns": 1000,
}
CLEAN = {"denormal_ratio": 1.0, "saturation_sqnr_db": None, "repeatable": True}


def of_machine(*changes, threads=1, cores=2):
    return about_machine([CALM | change for change in changes], threads=threads, cores=cores)


def of_model(*changes, batch=1):
    return about_model([CALM | change for change in changes], batch=batch)


def test_calm_results_raise_no_doubts():
    assert of_machine({}, {}) == of_model({}, {}) == about_checks(CLEAN) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([{}, {"load": [0.5, 2.6]}], "load average reached 2.6 on 2 cores, of which this"),
        ([{"cpu_ns": 800}] * 3, "the model had it for 80% of the time"),
        (
            [{"probe_ns": [5_000_000] * 2}] * 5 + [{"probe_ns": [8_000_000] * 2}] * 5,
            "a fixed loop took 5.00 ms in some processes and 8.00 ms in others",
        ),
    ],
)
def test_a_restless_machine_is_named(changes, said):
    (doubt,) = of_machine(*changes)
    assert said in doubt


def test_one_slow_probe_is_no_doubt():
    assert of_machine({"probe_ns": [5_000_000, 9_000_000]}, {}) == []


def test_own_threads_are_not_held_against_the_machine():
    assert of_machine({"load": [4.5, 4.5], "cpu_ns": 500}, threads=4, cores=4) == []


def test_load_is_not_judged_where_the_system_does_not_tell():
    assert of_machine({"load": [None, None]}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([{"steady": False}, {"steady": False}, {}], "in 2 of 3 processes"),
        ([{"samples_ns": [1000 + 10 * i for i in range(30)]}], "it slowed down by 25%"),
        ([{"samples_ns": [1290 - 10 * i for i in range(30)]}], "it sped up by 25%"),
        ([{}, {"finite": False}], "not finite"),
        ([{"batch": 4}], "it runs 4 samples per inference, where the target asks for 1"),
    ],
)
def test_a_restless_model_is_named(changes, said):
    (doubt,) = of_model(*changes)
    assert said in doubt


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"denormal_ratio": 2.5}, "denormal numbers make it 150% slower"),
        (
            {"saturation_sqnr_db": 14.1},
            "int8 sums saturate on this CPU: its outputs are only 14 dB",
        ),
        ({"repeatable": False}, "different outputs for the same input"),
    ],
)
def test_checks_are_put_in_words(change, said):
    (doubt,) = about_checks(CLEAN | change)
    assert said in doubt


def test_harmless_checks_stay_silent():
    assert about_checks(CLEAN | {"denormal_ratio": 1.04, "saturation_sqnr_db": 55.0}) == []
