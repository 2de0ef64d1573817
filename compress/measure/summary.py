"""Summary: from the results of worker processes to the facts of a record.

Pure: results in, :class:`Timing` out. Knows neither processes nor files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.measure import stats
from compress.measure.doubts import about_model, process_median_s
from compress.measure.plan import Plan
from compress.measure.target import Timing
from compress.record import Latency, Memory, Speedup

__all__ = ["Config", "Survey", "memory_facts", "ratios", "summarise"]

_HOLM_ABOVE = 5  # comparisons; with fewer, one false alarm in twenty is what a reader expects


@dataclass(frozen=True)
class Survey:
    """What is known of a model before it is timed."""

    memory: Memory | None
    facts: Mapping[str, Any]
    warnings: Sequence[str]


@dataclass(frozen=True)
class Config:
    """One thing that every round times, with one result per round. The baseline is two of them."""

    index: int
    model: Path
    label: str
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def medians_s(self) -> np.ndarray[Any, Any]:
        """The median of one inference, of each round's process."""
        return np.array([process_median_s(result) for result in self.results])


def memory_facts(result: Mapping[str, Any]) -> Memory:
    """The record's memory facts from one ``memory`` result."""
    peak = max(result["load_peak_bytes"], result["run_peak_bytes"])
    return Memory(
        peak_rss_bytes=peak,
        model_peak_bytes=max(0, peak - result["runtime_bytes"]),
        runtime_bytes=result["runtime_bytes"],
    )


def ratios(configs: Sequence[Config]) -> list[stats.Ratio]:
    """Of the baseline against itself, then of the baseline to each other configuration.

    The baseline's time in a round is the geometric mean of its two processes.
    """
    first, again, *others = (config.medians_s for config in configs)
    baseline = np.sqrt(first * again)
    return [
        stats.paired_ratio(first, again),
        *(stats.paired_ratio(baseline, times) for times in others),
    ]


def summarise(
    configs: Sequence[Config], surveys: Mapping[int, Survey], plan: Plan, *, batch: int
) -> dict[int, Timing]:
    """A timing for each model, by its index. The first two configurations are the baseline."""
    itself, *others = ratios(configs)
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
    baseline = Config(configs[0].index, configs[0].model, configs[0].label)
    baseline.results.extend([*configs[0].results, *configs[1].results])
    return {
        config.index: Timing(
            latency=_latency(config),
            speedup=speedup,
            memory=surveys[config.index].memory,
            warnings=(
                *surveys[config.index].warnings,
                *about_model(config.results, batch=batch),
                *_width(ratio, len(configs[0].results), plan),
            ),
            raw={**_raw(config), **surveys[config.index].facts},
        )
        for config, speedup, ratio in zip(
            [baseline, *configs[2:]], speedups, [itself, *others], strict=True
        )
    }


def _latency(config: Config) -> Latency:
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
    )


def _width(ratio: stats.Ratio, rounds: int, plan: Plan) -> list[str]:
    if ratio.half_width <= plan.bound:
        return []
    got = f"±{math.expm1(ratio.half_width):.1%} after {rounds} rounds"
    return [f"the interval of its ratio is {got}, wider than the ±{plan.bound:.0%} aimed at"]


def _raw(config: Config) -> dict[str, Any]:
    def middle_s(key: str) -> float:
        return float(np.median([result[key] for result in config.results])) / 1e9

    return {
        "process_medians_s": config.medians_s.tolist(),
        "runs_per_sample": config.results[0]["runs_per_sample"],
        "batch": config.results[0]["batch"],
        "import_s": middle_s("import_ns"),
        "create_s": middle_s("create_ns"),
        "first_run_s": middle_s("first_run_ns"),
    }
