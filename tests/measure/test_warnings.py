"""What results make a session say of itself."""

import pytest

from compress.measure.warnings import about_change, about_checks, about_machine, about_model

pytestmark = pytest.mark.fast

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
STATE = {
    "governor": ["performance"],
    "khz": [2_400_000, 600_000],
    "temperatures_mc": [40_000, 52_000],
    "throttled": "0",
    "throttle_count": 3,
    "cooling": 0,
    "load": 0.5,
}
EMPTY = {"governor": [], "khz": [], "temperatures_mc": [], "throttled": ""}
CLEAN = {"denormal_ratio": 1.0, "saturation_sqnr_db": None, "repeatable": True}


def of_machine(*changes, threads=1, cores=2):
    return about_machine([CALM | change for change in changes], threads=threads, cores=cores)


def of_model(*changes, batch=1):
    return about_model([CALM | change for change in changes], batch=batch)


def test_calm_results_raise_no_warnings():
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
    (warning,) = of_machine(*changes)
    assert said in warning


def test_one_slow_probe_is_no_warning():
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
    (warning,) = of_model(*changes)
    assert said in warning


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
    (warning,) = about_checks(CLEAN | change)
    assert said in warning


def test_harmless_checks_stay_silent():
    assert about_checks(CLEAN | {"denormal_ratio": 1.04, "saturation_sqnr_db": 55.0}) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"governor": ["powersave"]}, "governor changed meanwhile: performance, then powersave"),
        ({"khz": [600_000, 1_800_000]}, "clock was 2.40 GHz at first and 1.80 GHz at the end"),
        ({"temperatures_mc": [73_000]}, "warmed up from 52 to 73 °C"),
        ({"throttle_count": 5}, "slowed down against heat or power 2 times meanwhile"),
        ({"cooling": 1}, "the system slowed the CPU down against heat"),
        ({"throttled": "50000"}, "firmware reported: too low a voltage, throttling"),
        ({"throttled": "8"}, "firmware reported: too much heat"),
    ],
)
def test_a_machine_that_is_not_as_it_was_is_named(change, said):
    (warning,) = about_change([STATE, STATE | change])
    assert said in warning


@pytest.mark.parametrize(
    "states",
    [
        [STATE, STATE],
        [STATE | EMPTY, STATE | EMPTY],
        [STATE | EMPTY, STATE],
        [STATE | {"throttled": "50005", "cooling": 1}, STATE],  # before is before
        [STATE | {"throttled": "50000"}, STATE | {"throttled": "50000"}],
        [STATE, STATE | {"khz": [2_300_000], "temperatures_mc": [70_000]}],
    ],
)
def test_a_machine_that_is_as_it_was_raises_no_warning(states):
    assert about_change(states) == []


def test_what_came_and_went_is_named_but_settings_are_compared_at_the_ends():
    passing = STATE | {"throttled": "4", "temperatures_mc": [80_000], "governor": ["x"]}
    said = " ".join(about_change([STATE, passing, STATE]))
    assert "throttling" in said
    assert "to 80 °C" in said
    assert "governor" not in said


def test_a_session_is_judged_from_its_first_to_its_last_process():
    cool, hot = STATE, STATE | {"temperatures_mc": [75_000]}
    late = {"at_ns": [30, 40], "state": [hot, hot]}
    early = {"at_ns": [10, 20], "state": [cool, hot]}
    (warning,) = of_machine(late, {}, early)
    assert "from 52 to 75 °C" in warning
