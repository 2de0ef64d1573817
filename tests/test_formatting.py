"""Numbers in words."""

import math

import pytest

from compress.formatting import (
    count,
    duration,
    interval,
    latency_unit,
    ratio_words,
    sanitize,
    score,
    score_cell,
    score_cells,
    score_change,
    score_interval,
    size,
    times,
)
from compress.report.figures.ticks import tick_score

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.2e-7, "0.32 µs"),
        (392e-6, "392 µs"),
        (64e-6, "64.0 µs"),
        (1.52e-3, "1.52 ms"),
        (2.1, "2.10 s"),
        (245.0, "4 min 05 s"),
        (7800.0, "2 h 10 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (724_948, "708 KiB"),
        (1_600_000, "1.53 MiB"),
        (2**33, "8.00 GiB"),
    ],
)
def test_size(amount, text):
    assert size(amount) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(842, "842"), (13_962, "14.0k"), (1_240_000, "1.24M"), (3e9, "3.00G")]
)
def test_count(amount, text):
    assert count(amount) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.713, "0.71x"), (1.42, "1.42x"), (14.23, "14.2x"), (142.3, "142x")]
)
def test_times(ratio, text):
    assert times(ratio) == text


def test_ratio_words_turn_a_slowdown_around():
    assert ratio_words(2, "faster", "slower") == "2.00x faster"
    assert ratio_words(0.8, "faster", "slower") == "1.25x slower"


def test_scores_are_percent_for_accuracy_alone():
    assert score("accuracy", 0.9196) == "91.96 %"
    assert score("mse", 0.021347) == "0.02135"
    assert score_change("accuracy", -0.004) == "−0.40 pt"
    assert score_change("accuracy", 0.004) == "+0.40 pt"
    assert score_change("mse", -0.0021) == "−0.0021"
    assert score_interval("accuracy", -0.0085, 0.001) == "[−0.85, +0.10]"


def test_intervals_share_their_decimals():
    assert interval(4.3, 4.42) == "[4.30, 4.42]"
    assert interval(98.7, 101.2) == "[99, 101]"


def test_latency_unit_follows_the_value():
    assert [latency_unit(s)[0] for s in (2.0, 2e-3, 2e-6, 2e-9)] == ["s", "ms", "µs", "µs"]


def test_plain_is_one_printable_line():
    assert sanitize("a\x1b[31m\u202eb\n c\t") == "a [31m b  c"
    assert sanitize("x" * 30, 10) == "x" * 9 + "…"
    assert sanitize("日本 ok") == "日本 ok"


def test_what_rounds_to_zero_has_no_sign():
    assert score_change("accuracy", -1e-5) == "0.00 pt"
    assert score_change("accuracy", 1e-5) == "0.00 pt"
    assert score_change("mse", -0.0) == "0"
    assert score_change("r2", -1e-6) == "0.0000"
    assert score_interval("accuracy", -1e-5, 0.001) == "[0.00, +0.10]"
    assert score("accuracy", -1e-9) == "0.00 %"
    assert tick_score("accuracy", -1e-17, 0.1) == "0 %"
    assert tick_score("mse", -1e-17, 0.1) == "0"


def test_an_interval_is_shown_as_it_is():
    assert score_cells("accuracy", 1.0, 0.9124, 1.0) == ("100.00", "[91.24, 100.00]")
    assert score_cell("accuracy", 1.0, 0.9124, 1.0) == "100.00 [91.24, 100.00]"
    assert score_cells("mse", 0.0021, 0.0013, 0.0042) == ("0.002100", "[0.001300, 0.004200]")
    assert score_cells("loss", 2.79, 2.749, 2.8333) == ("2.790", "[2.749, 2.833]")
    assert score_cells("loss", 2.1e-9, 1e-9, 3e-9) == ("2.1e-09", "[1e-09, 3e-09]")
    assert score_cells("loss", 123456.7, 1e5, 2e5) == ("1.235e+05", "[1e+05, 2e+05]")
    assert score_cells("mse", 0.0, 0.0, 0.0) == ("0", "[0, 0]")


def test_an_interval_narrower_than_four_digits_gets_more_of_them():
    assert score_cells("loss", 7.0763, 7.07628, 7.07634) == ("7.076300", "[7.076280, 7.076340]")
    assert score_cells("loss", 1000.5, 1000.4, 1000.6) == ("1000.50", "[1000.40, 1000.60]")


@pytest.mark.parametrize("end", [math.nan, math.inf])
def test_an_interval_without_an_end_can_be_shown(end):
    assert score_cells("mse", 0.5, 0.4, end) == ("0.5", f"[0.4, {end}]")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 s"), (1e-9, "under 0.01 µs"), (1e-8, "0.01 µs")]
)
def test_a_time_is_never_rounded_to_nothing(seconds, text):
    assert duration(seconds) == text


def test_a_ratio_is_never_rounded_to_nothing():
    assert times(0.0042) == "0.0042x"
