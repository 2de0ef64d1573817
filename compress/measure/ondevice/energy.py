"""Jobs that run a model back to back: for its energy, and for whether it slows down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from compress.measure.ondevice.inputs import rotation_of, shapes_of
from compress.measure.ondevice.machine import machine_state
from compress.measure.ondevice.runtimes import open_model
from compress.measure.ondevice.sensors import EnergyMeter
from compress.measure.ondevice.timing import collect, first_runs, runs_per_sample, sampler, warm_up

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import (
        EnergyAnswer,
        EnergyWindow,
        SustainAnswer,
        SustainSlot,
        Unavailable,
    )
    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.timing import Sample

__all__ = ["measure_energy", "sustain"]

_ENERGY_WINDOWS = 5
_ENERGY_LOOK_S = 0.05  # between looks at a sensor that tells power, not energy


def measure_energy(job: WorkerJob) -> EnergyAnswer | Unavailable:
    """What the machine takes while the model runs back to back, and while nothing does.

    Reads what :func:`.timing.time_model` reads, less its samples, and ``energy_s``: five windows of
    a fifth of it, after one as long of idling.
    """
    meter = EnergyMeter()
    if meter.source:
        session = open_model(job)
        batch, rotation = rotation_of(session, job)
        runs = runs_per_sample(first_runs(session, rotation, job["cap_s"])[0])
        sample = sampler(session, rotation, runs)
        window_s = job["energy_s"] / _ENERGY_WINDOWS
        idle = _window(meter, window_s, None)
        warm_up(sample, job["window_s"], job["warmup_cap_s"])
        windows = [_window(meter, window_s, sample) for _ in range(_ENERGY_WINDOWS)]
        for window in windows:
            window["runs"] *= runs
    if not meter.source:
        return {"unavailable": "no sensor of energy can be read here"}
    return {"source": meter.source, "batch": batch, "idle": idle, "windows": windows}


def _window(meter: EnergyMeter, seconds: float, sample: Sample | None) -> EnergyWindow:
    """Energy, time and number of samples of some seconds of running, or of idling."""
    begin, before = time.perf_counter_ns(), meter.read()
    runs, after = 0, before
    while time.perf_counter_ns() - begin < seconds * 1e9:
        if sample is None:
            time.sleep(_ENERGY_LOOK_S)
        else:
            runs += len(collect(sample, _ENERGY_LOOK_S, 1, _ENERGY_LOOK_S))
        after = meter.read()
    return {"uj": after - before, "ns": time.perf_counter_ns() - begin, "runs": runs}


def sustain(job: WorkerJob) -> SustainAnswer:
    """Run a model back to back for long, with a look at the machine now and then.

    Reads ``sustain_s``, ``interval_s`` (between looks) and ``cap_s``.
    """
    before, meter = machine_state(), EnergyMeter()
    session = open_model(job)
    batch, rotation = rotation_of(session, job)
    runs = runs_per_sample(first_runs(session, rotation, job["cap_s"])[0])
    sample = sampler(session, rotation, runs)
    slots: list[SustainSlot] = []
    begin = time.perf_counter_ns()
    begin_uj = meter.read()
    while not slots or slots[-1]["end_ns"] < job["sustain_s"] * 1e9:
        begin_ns = time.perf_counter_ns() - begin
        done = len(collect(sample, job["interval_s"], 1, job["interval_s"]))
        end_ns, uj = time.perf_counter_ns() - begin, meter.read() - begin_uj
        slots.append(
            {
                "begin_ns": begin_ns,
                "end_ns": end_ns,
                "runs": done * runs,
                "uj": uj,
                **machine_state(),
            }
        )
    return {
        "batch": batch,
        "shapes": shapes_of(rotation),
        "source": meter.source,
        "before": before,
        "slots": slots,
    }
