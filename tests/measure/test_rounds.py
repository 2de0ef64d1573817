"""The protocol, driven by declared times: rounds, pairing, stopping, failures, verdicts."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from compress.errors import MeasurementError, StorageError
from compress.measure.modes import PLANS
from compress.measure.raw_samples import RawLog
from compress.measure.replay import ReplayTarget
from compress.measure.rounds import Device, run_session
from compress.measure.target import BenchmarkConfig, Failure

A, B, C = Path("a"), Path("b"), Path("c")


def replay(noise=0.0, **times_s):
    times_s = times_s or {"a": 1e-3, "b": 1e-3, "c": 1e-3}
    return ReplayTarget(latency_s=times_s, model_peak_bytes=dict.fromkeys(times_s, 1), noise=noise)


def measure(target, models, mode="quick", seed=0, raw=None):
    return target.measure(models, BenchmarkConfig({}, mode, seed), raw)


class Scripted:
    """A replay whose calls are kept, and may fail on the n-th ``time`` job of a model."""

    def __init__(self, target, fail_at=()):
        self.target = target
        self.fail_at = dict(fail_at)
        self.calls = []

    def run(self, models, mode="quick", seed=0, changes=None):
        counts = Counter()

        def call(kind, model, settings):
            self.calls.append((kind, model, dict(settings)))
            counts[kind, model] += 1
            if kind == "time" and counts[kind, model] == self.fail_at.get(model):
                raise MeasurementError(f"{model}: it broke.")
            answer = self.target.answer(kind, model, 0.0)
            return {**answer, **(changes or {}).get(kind, {})}

        device = Device(call, threads=1, batch=1, cores=2)
        with RawLog(None) as log:
            return run_session(models, BenchmarkConfig({}, mode, seed), device, log)

    def timed(self):
        return [model for kind, model, _ in self.calls if kind == "time"]


@pytest.mark.parametrize("mode", PLANS)
def test_without_noise_the_declared_ratio_is_found_in_the_fewest_rounds(mode):
    base, double = measure(replay(a=1e-3, b=2e-3), [A, B], mode)
    rounds = PLANS[mode].min_rounds
    assert double.latency.p50_s == pytest.approx(2e-3)
    assert double.latency.processes == rounds
    assert base.latency.processes == 2 * rounds
    assert double.speedup.value == pytest.approx(0.5)
    assert (base.speedup.verdict, double.speedup.verdict) == ("baseline", "slower")
    assert base.speedup.value == 1.0
    assert base.warnings == double.warnings == ()


def test_every_round_has_every_model_and_the_baseline_twice():
    script = Scripted(replay())
    script.run([A, B, C], "default")
    timed = script.timed()
    orders = [timed[i : i + 4] for i in range(0, len(timed), 4)]
    assert len(orders) == PLANS["default"].min_rounds
    assert all(sorted(order) == [A, A, B, C] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_the_order_of_rounds_follows_the_seed():
    orders = []
    for seed in (0, 0, 1):
        script = Scripted(replay())
        script.run([A, B, C], "default", seed)
        orders.append(script.timed())
    assert orders[0] == orders[1] != orders[2]


def test_a_models_processes_all_group_their_runs_as_its_first_did():
    script = Scripted(replay())
    script.run([A, B], changes={"time": {"runs_per_sample": 7}})
    groups = [
        settings.get("runs_per_sample") for kind, _, settings in script.calls if kind == "time"
    ]
    assert groups[0] is None
    assert Counter(groups) == {None: 3, 7: len(groups) - 3}


def test_percentiles_are_not_given_of_grouped_runs():
    grouped = Scripted(replay()).run([A], changes={"time": {"runs_per_sample": 7}})[0]
    single = Scripted(replay()).run([A])[0]
    assert (grouped.latency.p90_s, grouped.latency.p99_s) == (None, None)
    assert single.latency.p90_s == pytest.approx(1e-3)
    assert single.latency.p99_s is None  # 3 rounds of 2 processes of 30 samples
    assert (grouped.latency.runs_per_sample, single.latency.runs_per_sample) == (7, 1)


def test_rounds_go_on_until_precise_and_stop_at_the_cap():
    plan = PLANS["default"]
    quiet = measure(replay(noise=0.003), [A, B], "default")[1]
    restless = measure(replay(noise=0.2), [A, B], "default")[1]
    assert quiet.latency.processes == plan.min_rounds
    assert restless.latency.processes == plan.max_rounds
    (wide,) = (w for w in restless.warnings if "after 12 rounds, wider than the ±2% aimed at" in w)
    low, high = re.search(r"its ratio is −([\d.]+)% to \+([\d.]+)% after", wide).groups()
    assert float(low) < float(high)  # a ratio's interval is even in its logarithm only


def test_identical_models_are_rarely_called_different_whatever_the_noise():
    # 5 % is the test's level. Optional stopping and few rounds may cost a little more.
    for noise in (0.01, 0.05):
        verdicts = Counter(
            measure(replay(noise), [A, B], seed=seed)[1].speedup.verdict for seed in range(100)
        )
        assert verdicts["faster"] + verdicts["slower"] <= 9, (noise, verdicts)


def test_a_real_difference_is_found_and_its_interval_covers_it():
    target = replay(0.02, a=1.1e-3, b=1e-3)
    found = [measure(target, [A, B], "default", seed)[1].speedup for seed in range(60)]
    assert sum(speedup.verdict == "faster" for speedup in found) >= 58
    assert sum(speedup.ci95[0] <= 1.1 <= speedup.ci95[1] for speedup in found) >= 53


def test_many_comparisons_need_more_certainty():
    # One model 4 % faster in noise of 1 %: enough for one comparison, not for one of eight.
    others = [Path(f"m{i}") for i in range(8)]
    times = {"a": 1.04e-3, "b": 1e-3, **dict.fromkeys(map(str, others), 1.04e-3)}
    target = replay(0.01, **times)
    alone = [measure(target, [A, B], seed=s)[1].speedup.verdict for s in range(30)]
    among = [measure(target, [A, B, *others], seed=s)[1].speedup.verdict for s in range(30)]
    assert among.count("faster") < alone.count("faster")


def test_one_model_is_compared_with_itself():
    (timing,) = measure(replay(noise=0.01), [A])
    lo, hi = timing.speedup.ci95
    assert (timing.speedup.value, timing.speedup.verdict) == (1.0, "baseline")
    assert lo < 1 < hi
    assert lo * hi == pytest.approx(1)
    assert timing.speedup.noise_floor >= 0


def test_the_noise_floor_is_what_the_baseline_differs_from_itself():
    script = Scripted(replay())
    shifts = iter([1.0, 1.3] * 100)

    def call(kind, model, settings):
        answer = script.target.answer(kind, model, 0.0)
        if kind == "time" and model == A:
            factor = next(shifts)
            answer["samples_ns"] = [ns * factor for ns in answer["samples_ns"]]
        return answer

    with RawLog(None) as log:
        base, other = run_session([A, B], BenchmarkConfig({}, "quick"), Device(call, 1, 1, 2), log)
    # In whichever order, |log ratio| of the two is log 1.3 in every round.
    assert base.speedup.noise_floor <= 0.3 + 1e-9
    assert other.speedup.value == pytest.approx(math.sqrt(1.3))


def test_a_model_that_does_not_load_leaves_the_others_measured():
    target = ReplayTarget(
        latency_s={"a": 1e-3, "c": 2e-3},
        model_peak_bytes=lambda _: 1,
        errors={"b": "it is cursed."},
    )
    base, broken, other = measure(target, [A, B, C])
    assert broken == Failure("b: it is cursed.")
    assert other.speedup.value == pytest.approx(0.5)
    assert not base.warnings


def test_without_its_baseline_a_session_takes_the_next_and_says_so():
    target = ReplayTarget(
        latency_s={"b": 1e-3, "c": 2e-3},
        model_peak_bytes=lambda _: 1,
        errors={"a": "it is cursed."},
    )
    broken, base, other = measure(target, [A, B, C])
    assert isinstance(broken, Failure)
    assert base.speedup.verdict == "baseline"
    assert other.speedup.value == pytest.approx(0.5)
    said = "the baseline a could not be measured (a: it is cursed.); speed-ups are against b"
    assert base.warnings[0] == other.warnings[0] == said


def test_a_model_that_breaks_in_the_rounds_leaves_them():
    script = Scripted(replay(), fail_at={B: 2})
    base, broken, other = script.run([A, B, C])
    assert broken == Failure("b: it broke.")
    assert script.timed().count(B) == 2
    assert base.latency.processes == 6
    assert other.latency.processes == 3


def test_rounds_begin_again_when_the_baseline_breaks_in_them():
    script = Scripted(replay(), fail_at={A: 3})
    broken, base, other = script.run([A, B, C])
    assert broken == Failure("a: it broke.")
    assert base.speedup.verdict == "baseline"
    assert other.latency.processes == 3
    assert "could not be measured" in other.warnings[0]


def test_a_session_in_which_everything_fails_is_all_failures():
    target = ReplayTarget(errors={"a": "no.", "b": "no."})
    assert measure(target, [A, B]) == [Failure("a: no."), Failure("b: no.")]


def test_memory_is_the_peak_above_the_runtimes_own():
    peaks = {"runtime_bytes": 100, "load_peak_bytes": 900, "run_peak_bytes": 700}
    (timing,) = Scripted(replay()).run([A], changes={"memory": peaks})
    assert timing.memory.peak_rss_bytes == 900
    assert timing.memory.model_peak_bytes == 800
    assert timing.memory.runtime_bytes == 100


@pytest.mark.parametrize(("peaks", "processes"), [([1000, 1010], 2), ([1000, 1100, 1050], 3)])
def test_memory_is_read_again_where_two_processes_disagree(peaks, processes):
    script = Scripted(replay())
    reading = iter(peaks)

    def call(kind, model, settings):
        answer = script.target.answer(kind, model, 0.0)
        if kind == "memory":
            script.calls.append(kind)
            answer |= {"runtime_bytes": 1, "load_peak_bytes": 1, "run_peak_bytes": next(reading)}
        return answer

    with RawLog(None) as log:
        (timing,) = run_session([A], BenchmarkConfig({}, "default"), Device(call, 1, 1, 2), log)
    assert script.calls.count("memory") == processes
    assert timing.memory.peak_rss_bytes == sorted(peaks)[len(peaks) // 2]


def test_where_memory_cannot_be_read_times_are_given_nevertheless():
    (timing,) = Scripted(replay()).run([A], changes={"memory": {"unavailable": "no /proc here"}})
    assert timing.memory is None
    assert timing.warnings == ("no /proc here",)


def test_warnings_reach_the_models_that_they_are_about():
    changes = {
        "check": {"saturation_sqnr_db": 14.0, "denormal_ratio": 3.0},
        "time": {"load": [9.0, 9.0], "steady": False},
    }
    text = " | ".join(Scripted(replay()).run([A, B], "default", changes=changes)[1].warnings)
    assert "int8 sums saturate" in text
    assert "denormal numbers make it 200% slower" in text
    assert "load average reached 9.0 on 2 cores" in text
    assert "still changing" in text


def test_raw_lines_hold_every_process_and_its_samples(tmp_path):
    raw = tmp_path / "deep" / "raw.jsonl"
    target = ReplayTarget(
        latency_s={"a": 1e-3}, model_peak_bytes={"a": 1}, errors={"b": "it is cursed."}
    )
    timing, _ = measure(target, [A, B], raw=raw)
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    timed = [line for line in lines if line["kind"] == "time"]
    assert len(timed) == timing.latency.processes
    assert {(line["round"], line["model"]) for line in timed} == {(r, "a") for r in range(3)}
    assert {"samples_ns", "load", "probe_ns", "label", "runs_per_sample"} <= set(timed[0])
    assert [line["error"] for line in lines if "error" in line] == ["b: it is cursed."]
    measure(target, [A], raw=raw)
    assert len(raw.read_text().splitlines()) > len(lines)  # appended


def test_raw_samples_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="raw samples could not be written"):
        measure(replay(), [A], raw=tmp_path / "file" / "raw.jsonl")
