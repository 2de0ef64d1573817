"""Processes that are compared take turns: the conversation, and what comes of the turns."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from compress.measure import process
from compress.measure.local import LocalTarget
from compress.measure.modes import PLANS
from compress.measure.ondevice.intervals import TimedModel, log_ratios, turn_logs
from compress.measure.ondevice.process import WORKER, run_interleaved
from compress.measure.raw_samples import RawLog
from compress.measure.replay import ReplayTarget
from compress.measure.rounds import Device, run_session
from compress.measure.target import BenchmarkConfig

TIMING = {"window_s": 0.002, "warmup_cap_s": 0.02, "sample_s": 0.02, "least": 4, "cap_s": 1.0}

# Takes turns without a model, writes down whose turn it was, and may break.
PRETENDING = """
import json, os, sys, time
job = json.loads(sys.stdin.readline())
turn = 0
while True:
    print("ready", flush=True)
    if not sys.stdin.readline():
        break
    turn += 1
    with open(job["log"], "a") as log:
        log.write(job["model"])
    if job.get("dies_at") == turn:
        sys.stderr.write("enough\\n")
        os._exit(7)
    if job.get("hangs_at") == turn:
        time.sleep(600)
sys.stderr.write("x" * job.get("complains", 0))
print(json.dumps({"turns": turn}))
"""


@pytest.fixture
def pretend(tmp_path):
    """Lets models take turns; ``settings`` of each, by its name. Answers, and whose turns."""
    worker, log = tmp_path / "worker.py", tmp_path / "log"
    worker.write_text(PRETENDING)
    log.write_text("")

    def run(timeout_s=60, **settings):
        fixed = {**TIMING, "log": str(log)}
        jobs = [{**fixed, "model": name, **own} for name, own in settings.items()]
        answers = run_interleaved(jobs, seed=3, timeout_s=timeout_s, worker=worker)
        return dict(zip(settings, answers, strict=True)), log.read_text()

    return run


def test_a_worker_takes_a_turn_for_each_line_and_answers_at_the_end(one):
    job = {"kind": "turns", "model": str(one), **TIMING}
    worker = [sys.executable, "-I", str(WORKER)]
    done = subprocess.run(
        worker, input=json.dumps(job) + "\n\n\n\n", capture_output=True, text=True
    )
    *said, answer = done.stdout.splitlines()
    result = json.loads(answer)
    assert said == ["ready"] * 4
    assert len(result["turns"]) == 3
    assert sum(result["turns"]) == len(result["samples_ns"])
    assert result["wall_ns"] >= sum(result["samples_ns"]) > 0


def test_processes_take_as_many_turns_each_and_a_broken_model_none(one, wide, truncated):
    jobs = [{"model": str(model), **TIMING} for model in (one, truncated, wide)]
    first, broken, second = process.run_interleaved(jobs, seed=0, timeout_s=60)
    assert len(first["turns"]) == len(second["turns"]) >= TIMING["least"]
    assert broken["error"].startswith(f"{truncated}: the file is cut off")


def test_with_threads_that_spin_turns_are_longer(one):
    jobs = [{"model": str(one), "threads": threads, **TIMING} for threads in (1, 2)]
    short, long = (process.run_interleaved([job], seed=0, timeout_s=60)[0] for job in jobs)
    assert min(long["turns"]) > max(short["turns"])


def test_everyone_has_one_turn_in_each_and_the_order_changes(pretend):
    answers, turns = pretend(a={}, b={}, c={})
    cycles = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert all(sorted(cycle) == ["a", "b", "c"] for cycle in cycles)
    assert len(set(cycles)) > 1
    assert {answer["turns"] for answer in answers.values()} == {len(cycles)}


def test_a_process_that_dies_in_its_turn_leaves_the_others(pretend):
    answers, turns = pretend(a={}, b={"dies_at": 2}, c={})
    assert answers["b"] == {"error": "the measuring process ended with status 7: enough."}
    assert answers["a"]["turns"] == answers["c"]["turns"] >= TIMING["least"]
    assert turns.count("b") == 2


def test_a_process_that_hangs_in_its_turn_is_stopped(pretend):
    answers, _ = pretend(timeout_s=1, a={}, b={"hangs_at": 2})
    assert answers["b"] == {"error": "no answer within 1 s; the process was stopped."}
    assert answers["a"]["turns"] > 2


def test_waiting_for_others_is_not_being_late(pretend):
    # What is stopped after a second of its own may wait longer than that for the others.
    answers, _ = pretend(timeout_s=1, a={}, b={"hangs_at": 1}, c={"hangs_at": 1})
    assert [name for name, answer in answers.items() if "error" not in answer] == ["a"]


def test_many_complaints_stop_no_process(pretend):
    answers, _ = pretend(a={"complains": 1_000_000}, b={})
    assert answers["a"] == answers["b"]


# -- what comes of them -----------------------------------------------------------------------


def result(samples_ns, turns):
    return {"samples_ns": samples_ns, "turns": turns, "runs_per_sample": 2}


def test_a_turn_counts_by_its_median():
    logs = turn_logs(result([10, 12, 90, 8, 8], [3, 2]))
    assert logs == pytest.approx([math.log(6), math.log(4)])


@pytest.mark.parametrize("turns", [[], [2], [2, 2], [3, 0]])
def test_turns_that_are_not_those_of_the_samples_are_refused(turns):
    with pytest.raises(ValueError, match=r"turns of|no median"):
        turn_logs(result([10, 12, 90], turns))


def test_processes_with_other_turns_are_not_compared():
    whole, short = result([1, 1], [1, 1]), result([1], [1])
    configs = [TimedModel(0, "a", [each] * 2) for each in (whole, short, whole)]
    with pytest.raises(ValueError, match="a turn is missing: 2 and 1 of one round"):
        log_ratios(configs)


def test_turns_cancel_what_changes_faster_than_a_round():
    draws = np.random.default_rng(0)
    configs = [TimedModel(place, name, []) for place, name in enumerate(("a", "a", "b"))]
    for _ in range(5):
        speed = np.exp(np.cumsum(draws.normal(0, 0.1, 200)))
        for config, own_ns in zip(configs, (1000, 1000, 1050), strict=True):
            noise = np.exp(draws.normal(0, 0.02, 200))
            config.results.append(result((own_ns * speed * noise).tolist(), [1] * 200))
    itself, other = log_ratios(configs)
    assert abs(itself.mean) < 0.01
    assert other.mean == pytest.approx(-math.log(1.05), abs=0.01)
    assert max(itself.half_width, other.half_width) < 0.01


# -- in a session -----------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "together"), [(None, True), (10**9, True), (10**8, False)])
def test_models_that_do_not_fit_into_memory_together_are_timed_alone(free, together):
    # Three processes with peaks of 50 MB, and half of what is free to take.
    target = ReplayTarget(latency_s={"a": 1e-3, "b": 2e-3}, model_peak_bytes=lambda _: 1)
    ways = Counter()

    def call(kind, model, _):
        ways[kind] += 1
        answer = target.answer(kind, model, 0.0)
        return {**answer, "free_bytes": free} if kind == "memory" else answer

    def interleaved(jobs, _):
        ways["interleaved"] += 1
        return [target.answer("time", model, 0.0) for model, _ in jobs]

    with RawLog(None) as log:
        device = Device(call, threads=1, batch=1, cores=2, interleaved=interleaved)
        _, other = run_session([Path("a"), Path("b")], BenchmarkConfig({}, "quick"), device, log)
    assert other.speedup.value == pytest.approx(0.5)
    assert ("interleaved" in ways, "time" in ways) == (together, not together)


def test_a_model_that_fails_in_its_turn_leaves_the_rounds():
    target = ReplayTarget(latency_s=lambda _: 1e-3, model_peak_bytes=lambda _: 1)
    seen = []

    def call(kind, model, _):
        return target.answer(kind, model, 0.0)

    def interleaved(jobs, _):
        seen.append(sorted(str(model) for model, _ in jobs))
        answers = [target.answer("time", model, 0.0) for model, _ in jobs]
        return [
            {"error": "b: it broke."} if str(model) == "b" else answer
            for (model, _), answer in zip(jobs, answers, strict=True)
        ]

    with RawLog(None) as log:
        device = Device(call, threads=1, batch=1, cores=2, interleaved=interleaved)
        models = [Path(name) for name in "abc"]
        _, broken, other = run_session(models, BenchmarkConfig({}, "quick"), device, log)
    assert broken.error == "b: it broke."
    assert other.latency.processes == PLANS["quick"].min_rounds
    assert seen == [["a", "a", "b", "c"], ["a", "a", "c"], ["a", "a", "c"]]


def test_this_machine_times_by_turns(one, wide, tmp_path):
    raw = tmp_path / "raw.jsonl"
    LocalTarget().measure([one, wide], BenchmarkConfig({}, "quick"), raw)
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    turns = [len(line["turns"]) for line in lines if line["kind"] == "time"]
    assert min(turns) >= PLANS["quick"].timing["least"]
