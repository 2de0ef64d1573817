"""Energy from a session's lines to a row: only where a sensor told it."""

from pathlib import Path

import pytest

from compress.errors import MeasurementError
from compress.measure.compare import ComparedModel, table
from compress.measure.modes import PLANS
from compress.measure.ondevice.plan import checked_plan
from compress.measure.raw_samples import RawLog
from compress.measure.replay import ReplayTarget
from compress.measure.rounds import Device, run_session
from compress.measure.summary import energy_facts
from compress.measure.target import BenchmarkConfig
from compress.record import Energy

pytestmark = pytest.mark.fast

A, B = Path("a"), Path("b")

# Idle at 2 W; while running, 5 W at 1000 inferences a second, and 6 W once.
ANSWER = {
    "source": "RAPL, package-0",
    "batch": 1,
    "idle": {"uj": 2e6, "ns": 10**9, "runs": 0},
    "windows": [{"uj": w * 1e6, "ns": 10**9, "runs": 1000} for w in (5, 5, 6)],
}
LOST = {"unavailable": "no sensor of energy can be read here"}


def session(mode, source, answer):
    """Timings of two models, and the kinds of jobs that were asked for."""
    target = ReplayTarget(latency_s={"a": 1e-3, "b": 1e-3}, model_peak_bytes={"a": 1, "b": 1})
    asked = []

    def call(kind, model, settings):
        asked.append((kind, dict(settings)))
        if kind == "energy":
            if answer is None:
                raise MeasurementError(f"{model}: it broke.")
            return answer
        told = {"energy_source": source} if kind == "memory" else {}
        return {**target.answer(kind, model, 0.0), **told}

    with RawLog(None) as log:
        device = Device(call, threads=1, batch=1, cores=2)
        return run_session([A, B], BenchmarkConfig({}, mode), device, log), asked


def test_the_facts_are_medians_of_windows_and_tell_idling_apart():
    facts = energy_facts(ANSWER)
    assert facts.inference_j == pytest.approx(5e-3)
    assert facts.range_j == pytest.approx((5e-3, 6e-3))
    assert facts.above_idle_j == pytest.approx(3e-3)
    assert (facts.source, facts.inferences) == ("RAPL, package-0", 3000)
    assert energy_facts(LOST) is None


@pytest.mark.parametrize(
    ("mode", "source", "asks"),
    [
        ("quick", "RAPL, package-0", 0),
        ("default", "", 0),
        ("default", "RAPL, package-0", 2),
        ("strict", "RAPL, package-0", 2),
    ],
)
def test_energy_is_asked_for_only_where_there_is_a_sensor_and_time(mode, source, asks):
    timings, asked = session(mode, source, ANSWER)
    energies = [settings for kind, settings in asked if kind == "energy"]
    assert len(energies) == asks
    assert all(settings["energy_s"] == PLANS[mode].energy_s > 0 for settings in energies)
    assert [timing.energy is not None for timing in timings] == [bool(asks)] * 2


def test_a_sensor_that_is_lost_leaves_the_rest():
    timings, _ = session("default", "RAPL, package-0", LOST)
    assert all(timing.energy is None and timing.latency for timing in timings)


@pytest.mark.parametrize("energy_s", [-1, float("nan")])
def test_a_plan_with_nonsense_for_energy_is_refused(energy_s):
    plan = {**vars(PLANS["quick"]), "energy_s": energy_s}
    with pytest.raises(ValueError, match="energy_s of a plan must be 0 or more"):
        checked_plan(plan)


def test_the_table_has_a_column_of_energy_only_where_there_is_some():
    timings, _ = session("default", "RAPL, package-0", ANSWER)
    rows = [
        ComparedModel("a", 1, timing.latency, timing.speedup, timing.memory, energy=timing.energy)
        for timing in timings
    ]
    rows.append(ComparedModel("broken", 1, error="it broke."))
    head, _, first, _, broken = table(rows).splitlines()[:5]
    assert head.split()[-2:] == ["mJ", "inputs"]
    assert first.split()[-2:] == ["5", "-"]
    assert broken.split()[-2:] == ["-", "-"]
    assert "mJ" not in table([ComparedModel("a", 1, error="it broke.")])


def test_the_facts_are_plain_data():
    facts = energy_facts(ANSWER)
    assert Energy.model_validate_json(facts.model_dump_json()) == facts
