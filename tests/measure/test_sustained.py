"""Throughput over time: what is called a slow-down, when it began, and what is said of it."""

import json
import re

import numpy as np
import pytest

from compress.cli import main
from compress.errors import MeasurementError
from compress.measure.local import LocalTarget
from compress.measure.outcomes import as_json
from compress.measure.replay import ReplayTarget
from compress.measure.sustained import Sustained, described, sustain
from compress.measure.sustained_table import text
from compress.measure.target import Failure

CALM = {
    "governor": [],
    "khz": [2_400_000],
    "temperatures_mc": [50_000],
    "throttled": "",
    "throttle_count": 0,
    "cooling": 0,
    "load": 0.0,
}


def answer(rates, states=None, source=""):
    """A worker's answer: one slot of a second for each number of inferences."""
    slots = []
    for second, rate in enumerate(rates):
        times = {"begin_ns": second * 10**9, "end_ns": (second + 1) * 10**9}
        energy = {"uj": 5e6 * (second + 1) if source else 0.0}
        slots.append({**times, **energy, "runs": round(rate), **CALM, **(states or {})})
    return {"batch": 1, "source": source, "before": CALM, "slots": slots}


def found(rates, **options):
    return described("net", answer(rates, **options), len(rates))


def noisy(rates, seed, spread=0.03):
    return rates * np.exp(spread * np.random.default_rng(seed).standard_normal(len(rates)))


STEP = np.r_[np.full(100, 1000.0), np.full(200, 700.0)]
SLOPE = np.linspace(1000, 700, 300)


def test_a_step_is_found_where_it_is():
    own = found(noisy(STEP, 0))
    assert own.verdict == "slowed down"
    assert own.end_s == 60
    assert own.ratio == pytest.approx(0.7, rel=0.02)
    assert own.ci95_ratio[0] < 0.7 < own.ci95_ratio[1] < 0.75
    assert own.changed_after_s == pytest.approx(100, abs=2)
    assert re.match(r"net slowed down by (29|30)\.\d %", own.summary)
    assert "after about 1 min 40 s: the last 1 min 00 s ran at" in own.summary
    assert own.summary.endswith("the system reports no cause.")


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [(SLOPE, "slowed down"), (SLOPE[::-1], "sped up"), (np.full(300, 900.0), "no change shown")],
)
def test_what_changes_slowly_is_a_change_too(rates, verdict):
    own = found(noisy(rates, 1))
    assert own.verdict == verdict
    assert (own.changed_after_s is None) == (verdict == "no change shown")
    assert own.summary.startswith(("net slowed", "net sped", "net: no slow-down shown"))


def test_a_steady_run_is_rarely_called_a_slow_down_and_half_a_percent_is_none():
    calls = [found(noisy(np.full(60, 1000.0), seed, 0.1)).verdict for seed in range(100)]
    assert calls.count("slowed down") <= 5
    assert found(np.r_[np.full(60, 1000), np.full(60, 995)]).verdict == "no change shown"


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({"cooling": 1}, "the system slowed the CPU down against heat"),
        ({"khz": [1_500_000]}, "clock was 2.40 GHz at first and 1.50 GHz at the end"),
        ({"throttled": "4"}, "firmware reported: throttling"),
    ],
)
def test_a_slow_down_is_told_with_what_the_system_says_of_it(states, said):
    own = found(STEP, states=states)
    assert said in own.summary
    assert said in own.warnings[0]


@pytest.mark.parametrize(
    ("states", "throttled"),
    [
        ({}, False),
        ({"throttled": "4"}, True),
        ({"throttled": "40000"}, False),
        ({"cooling": 1}, True),
    ],
)
def test_a_slot_is_throttled_if_it_is_so_now(states, throttled):
    assert {slot.throttled for slot in found(STEP, states=states).slots} == {throttled}


def test_energy_is_over_all_inferences_where_a_sensor_tells():
    own = found(np.full(30, 100.0), source="RAPL, package-0")
    assert own.inference_j == pytest.approx(5 / 100)
    assert {slot.energy_j for slot in own.slots} == {5.0}
    assert found(np.full(30, 100.0)).inference_j is None


def test_the_table_has_columns_for_what_the_system_tells():
    states = {"cooling": 1, "temperatures_mc": [81_000]}
    named = [
        ("net", found(STEP, states=states, source="RAPL, package-0")),
        ("bad.onnx", Failure("it broke.")),
    ]
    shown = text(named)
    for words in ("until", "runs/s", "of first", "MHz", "°C", "W", "throttled", "70.0 %", "81"):
        assert words in shown
    assert "5.00" in shown
    assert "bad.onnx\n  failed: it broke." in shown
    assert shown.count(" yes\n") == 10
    bare = {"khz": [], "temperatures_mc": []}
    plain = text([("net", found(STEP, states=bare))] * 2)
    assert not [word for word in ("MHz", "°C", "throttled", " W ") if word in plain]
    assert "each but the first began on a warm machine" in plain
    facts = json.loads(as_json(named))["models"]
    assert facts[0]["verdict"] == "slowed down"
    assert len(facts[0]["slots"]) == 300
    assert facts[1] == {"name": "bad.onnx", "error": "it broke."}


def test_a_model_that_is_too_slow_to_be_compared_is_told_so():
    with pytest.raises(MeasurementError, match=r"a run takes 1\.00 s.*give --sustained more"):
        found([1, 1])


def test_models_run_one_after_the_other_and_a_broken_one_is_a_failure(one, truncated, wide):
    first, broken, second = sustain([one, truncated, wide], LocalTarget(), 0.6)
    assert isinstance(first, Sustained)
    assert isinstance(second, Sustained)
    assert first.first_per_s > second.first_per_s
    assert 0.5 < first.seconds < 5  # a busy machine may hold a process up
    assert broken.error.startswith("the file is cut off")


def test_a_target_without_single_jobs_is_refused(one):
    with pytest.raises(MeasurementError, match="copy the files to the device"):
        sustain([one], ReplayTarget(), 10)


def test_the_command_prints_the_sentence_and_writes_the_json(one, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("compress.cli.bench.LEAST_S", 0.5)
    path = tmp_path / "found.json"
    assert main(["bench", str(one), "--sustained", "0.6", "--json", str(path)]) == 0
    assert "one.onnx" in capsys.readouterr().out
    assert json.loads(path.read_text())["models"][0]["name"] == "one.onnx"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sustained", "2"], "--sustained takes at least 5 seconds; got 2."),
        (["--sustained", "nan"], "--sustained takes at least 5 seconds; got nan."),
        (["--sustained", "60", "--quick"], "--sustained goes without --profile, --raw, --quick"),
        (["--sustained", "60", "--profile"], "--sustained goes without --profile, --raw, --quick"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, said, capsys):
    assert main(["bench", "net.onnx", *arguments]) == 2
    assert said in capsys.readouterr().err
