"""Summary: from the results of worker processes to the facts of a record.

Pure: results in, :class:`Timing` out. Knows neither processes nor files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compress.measure import stats
from compress.measure.input_sizes import alike
from compress.measure.modes import Plan
from compress.measure.ondevice.intervals import TimedModel, log_ratios
from compress.measure.quantities import QUANTITIES
from compress.measure.quantity import Quantity
from compress.measure.target import Shapes, Timing
from compress.measure.warnings import about_model
from compress.record import Energy, Executed, Latency, MeasuredQuantity, Memory, Speedup

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import (
        EnergyAnswer,
        ExecutionFacts,
        MemoryAnswer,
        Unavailable,
    )

__all__ = ["ModelPreflight", "declared_quantities", "energy_facts", "memory_facts", "summarize"]

_HOLM_ABOVE = 5  # comparisons; with fewer, one false alarm in twenty is what a reader expects


@dataclass(frozen=True)
class ModelPreflight:
    """What is known of a model before it is timed."""

    memory: Memory | None
    facts: Mapping[str, Any]
    warnings: Sequence[str]
    energy: Energy | None = None


def memory_facts(result: MemoryAnswer) -> Memory:
    """The record's memory facts from one ``memory`` result."""
    peak = max(result["load_peak_bytes"], result["run_peak_bytes"])
    return Memory(
        peak_rss_bytes=peak,
        model_peak_bytes=max(0, peak - result["runtime_bytes"]),
        runtime_bytes=result["runtime_bytes"],
    )


def energy_facts(result: EnergyAnswer | Unavailable) -> Energy | None:
    """The record's energy facts from one ``energy`` result; ``None`` where there was no sensor."""
    if "unavailable" in result:
        return None
    idle, windows = result["idle"], result["windows"]
    each_j = [window["uj"] / window["runs"] / 1e6 for window in windows]
    idle_uj = [idle["uj"] / idle["ns"] * window["ns"] for window in windows]
    above_j = [
        (window["uj"] - resting) / window["runs"] / 1e6
        for window, resting in zip(windows, idle_uj, strict=True)
    ]
    return Energy(
        inference_j=float(np.median(each_j)),
        range_j=(min(each_j), max(each_j)),
        above_idle_j=float(np.median(above_j)),
        source=str(result["source"])[:100],
        inferences=sum(window["runs"] for window in windows),
    )


def summarize(
    configs: Sequence[TimedModel],
    preflights: Mapping[int, ModelPreflight],
    plan: Plan,
    *,
    batch: int,
) -> dict[int, Timing]:
    """A timing for each model, by its index. The first two configurations are the baseline."""
    itself, *others = (stats.ratio_of(log) for log in log_ratios(configs))
    floor = math.expm1(abs(math.log(itself.value)))
    unchanged = stats.Interval(math.exp(-itself.half_width), math.exp(itself.half_width))
    speedups = [Speedup(value=1.0, ci95=unchanged, verdict="baseline", noise_floor=floor)]
    adjusted = [ratio.p_value for ratio in others]
    if len(others) > _HOLM_ABOVE:
        adjusted = stats.holm(adjusted)
    for ratio, p_value in zip(others, adjusted, strict=True):
        word = stats.verdict(ratio, noise_floor=floor, bound=plan.bound, p_value=p_value)
        speedups.append(
            Speedup(value=ratio.value, ci95=ratio.ci95, verdict=word, noise_floor=floor)
        )
    twice = [*configs[0].results, *configs[1].results]
    baseline = replace(configs[0], results=twice)
    shapes = [_shapes(config) for config in configs]
    return {
        config.index: Timing(
            latency=_latency(config),
            speedup=speedup,
            memory=preflights[config.index].memory,
            warnings=(
                *preflights[config.index].warnings,
                *about_model(config.results, batch=batch),
                *(_width(ratio, len(configs[0].results), plan) if alike(own, shapes[0]) else ()),
            ),
            raw={**_raw(config), **preflights[config.index].facts},
            executed=_executed(config.results[0].get("ran")),
            energy=preflights[config.index].energy,
            shapes=own,
            quantities=declared_quantities(
                {"time": config.results, "memory": preflights[config.index].facts.get("memory", ())}
            ),
        )
        for config, speedup, ratio, own in zip(
            [baseline, *configs[2:]],
            speedups,
            [itself, *others],
            [shapes[0], *shapes[2:]],
            strict=True,
        )
    }


def declared_quantities(
    answers: Mapping[str, Sequence[Mapping[str, Any]]], quantities: Sequence[Quantity] = QUANTITIES
) -> dict[str, MeasuredQuantity]:
    """What is declared to be read from the worker's answers, by name.

    ``answers`` has those of every process that measured one model, by the kind of job.
    """
    found = {}
    for quantity in quantities:
        asked = quantity.answers
        read = [] if asked is None else [answer.get(asked.key) for answer in answers[asked.job]]
        # Answers of an older worker, as on a device, may lack what was added since.
        values = [value * asked.unit for value in read if asked and value is not None]
        if values and len(values) == len(read):
            found[quantity.name] = _median_of(values)
    return found


def _median_of(values: Sequence[float]) -> MeasuredQuantity:
    middle = float(np.median(values))
    # One process has no spread, and one that answered 0 no logarithm.
    known = len(values) > 1 and min(values) > 0
    ci95 = stats.median_interval(values) if known else (min(values), max(values))
    return MeasuredQuantity(value=middle, ci95=ci95, samples=len(values))


def _shapes(config: TimedModel) -> Shapes:
    shapes = config.results[0].get("shapes", {})
    return {str(name): tuple(map(int, sizes)) for name, sizes in shapes.items()}


def _latency(config: TimedModel) -> Latency:
    medians_s = config.medians_s
    samples_s = np.concatenate([result["samples_ns"] for result in config.results]) / 1e9
    single = all(result["runs_per_sample"] == 1 for result in config.results)
    return Latency(
        p50_s=float(np.median(medians_s)),
        p90_s=stats.percentile(samples_s, 0.90) if single else None,
        p99_s=stats.percentile(samples_s, 0.99) if single else None,
        ci95_p50_s=stats.median_interval(medians_s),
        processes=len(medians_s),
        samples=len(samples_s),
        runs_per_sample=max(result["runs_per_sample"] for result in config.results),
    )


def _width(ratio: stats.Ratio, rounds: int, plan: Plan) -> list[str]:
    if ratio.half_width <= plan.bound:
        return []
    low, high = (math.expm1(end) for end in (-ratio.half_width, ratio.half_width))
    got = f"{low:.1%} to {high:+.1%} after {rounds} rounds".replace("-", "−", 1)
    return [f"the interval of its ratio is {got}, wider than the ±{plan.bound:.0%} aimed at"]


def _executed(ran: ExecutionFacts | None) -> Executed | None:
    if ran is None:
        return None
    nodes = ran.get("nodes")
    return Executed(
        int8_mac_fraction=ran.get("int8_mac_fraction"),
        provider_fraction=1 - ran["elsewhere"] / nodes if nodes else None,
    )


def _raw(config: TimedModel) -> dict[str, Any]:
    def middle_s(key: Literal["import_ns", "create_ns", "first_run_ns"]) -> float:
        return float(np.median([result[key] for result in config.results])) / 1e9

    return {
        "process_medians_s": config.medians_s,
        "runs_per_sample": config.results[0]["runs_per_sample"],
        "batch": config.results[0]["batch"],
        "import_s": middle_s("import_ns"),
        "create_s": middle_s("create_ns"),
        "first_run_s": middle_s("first_run_ns"),
    }
