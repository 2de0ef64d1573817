"""Measured quantities: each is declared here once, and everything else reads the declaration.

To add one, append a :class:`Quantity` to :data:`QUANTITIES`. With ``answers`` it is read from what
the worker answers, kept in ``record.json`` as ``quantities: {NAME: {value, ci95, samples}}`` of a
row's measurement, compared by its interval, and shown in the tables, ``table.csv``, the axes and
the rows of the page, trackers and ``compresskit bench``, wherever something has measured it. What
the worker does not answer yet, it has to measure first (:mod:`compress.measure.ondevice`).

The metric of a task is a quantity too: :func:`quantities_of` puts it before the others. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

from compress.formatting import count, duration, energy, sanitize, score, score_cells, size
from compress.measure.quantity import (
    Estimate,
    FromAnswers,
    Limit,
    Quantity,
    TableColumn,
    Timed,
    Unit,
)
from compress.measure.stats import SMALLEST_EFFECT
from compress.metrics import is_rate
from compress.record import Measurement, Row, TaskFacts
from compress.record_scores import SampleFacts, ServedScore
from compress.task import SERVING

__all__ = [
    "BYTES",
    "COUNT",
    "JOULES",
    "QUANTITIES",
    "SECONDS",
    "SHARE",
    "Scored",
    "quantities_of",
    "quantity_named",
    "recorded_quantities",
]

SECONDS = Unit("s", duration, least=1e-9)
BYTES = Unit("bytes", size, binary=True)
JOULES = Unit("j", energy, least=1e-9)
COUNT = Unit("", count)
SHARE = Unit("fraction", lambda share: f"{100 * share:.1f} %")


# -- readers ----------------------------------------------------------------------------------


def _exact(value: float) -> Estimate:
    return Estimate(value, value, value)


def _accuracy(found: Measurement) -> Estimate | None:
    accuracy = found.accuracy
    return Estimate(accuracy.value, *accuracy.ci95) if accuracy else None


def _paired_accuracy(found: Measurement) -> Estimate | None:
    versus = (found.accuracy.versus_baseline if found.accuracy else None) or {}
    if not {"delta", "delta_ci_lo", "delta_ci_hi"} <= versus.keys():
        return None
    return Estimate(versus["delta"], versus["delta_ci_lo"], versus["delta_ci_hi"])


def _p50(found: Timed) -> Estimate | None:
    latency = found.latency
    return Estimate(latency.p50_s, *latency.ci95_p50_s) if latency else None


def _speedup(found: Measurement) -> Estimate | None:
    return Estimate(found.speedup.value, *found.speedup.ci95) if found.speedup else None


def _noise_floor(found: Measurement) -> float:
    return (found.speedup.noise_floor if found.speedup else None) or 0.0


def _p90(found: Timed) -> Estimate | None:
    value = found.latency.p90_s if found.latency else None
    return None if value is None else _exact(value)


def _p99(found: Timed) -> Estimate | None:
    value = found.latency.p99_s if found.latency else None
    return None if value is None else _exact(value)


def _peak(found: Timed) -> Estimate | None:
    return _exact(found.memory.model_peak_bytes) if found.memory else None


def _inference_j(found: Timed) -> Estimate | None:
    return Estimate(found.energy.inference_j, *found.energy.range_j) if found.energy else None


def _file_bytes(found: Measurement) -> Estimate:
    return _exact(found.artifact.bytes)


def _int8_share(found: Measurement) -> Estimate:
    return _exact(found.artifact.int8_mac_fraction)


def _parameters(row: Row) -> Estimate:
    return _exact(row.parameters)


def _macs(row: Row) -> Estimate:
    return _exact(row.macs)


# -- the declarations -------------------------------------------------------------------------


def _milli(value: float) -> str:
    """Thousandths, with three significant digits and no exponent."""
    thousandths = 1e3 * value
    return f"{thousandths:.3g}" if 0.01 <= thousandths < 1000 else f"{thousandths:,.3f}"


#: Every quantity but the metric of a task, in the order of axes and of columns of ``table.csv``.
QUANTITIES = (
    Quantity(
        "latency_p50_s",
        "p50 latency",
        SECONDS,
        timed=_p50,
        gains=("faster", "slower"),
        on_front=True,
        margin=0.05,
        resolution=SMALLEST_EFFECT,  # as the verdict beside a speedup demands
        paired=_speedup,
        noise=_noise_floor,
        csv="p50_s",
        short="p50",
        column=TableColumn("p50", place=1, always=True),
        limit=Limit("latency_p50_ms", 1e-3),
        panel="Latency, p50",
    ),
    Quantity(
        "artifact_bytes",
        "artifact size",
        BYTES,
        measured=_file_bytes,
        on_front=True,
        exact=True,
        short="size",
        column=TableColumn(
            "file", "KiB", lambda size: f"{size / 2**10:,.1f}", place=3, always=True
        ),
        limit=Limit("artifact_kib", 2.0**10),
        panel="Artifact size",
    ),
    Quantity(
        "model_peak_bytes",
        "peak memory",
        BYTES,
        timed=_peak,
        # Two memory runs of one model within 2 % count as agreeing, so no smaller difference shows.
        margin=0.02,
        resolution=0.02,
        short="peak",
        column=TableColumn("peak", "MiB", lambda size: f"{size / 2**20:.1f}", 3, 2, always=True),
        limit=Limit("model_peak_mib", 2.0**20),
        panel="Peak memory above the runtime",
    ),
    Quantity(
        "parameters",
        "parameters",
        COUNT,
        of_row=_parameters,
        gains=("fewer", "more"),
        exact=True,
        column=TableColumn("para-", "meters", count, 6, 5, always=True),
    ),
    Quantity(
        "macs",
        "multiply-accumulates",
        COUNT,
        of_row=_macs,
        gains=("fewer", "more"),
        exact=True,
    ),
    Quantity(
        "int8_mac_fraction",
        "multiply-accumulates in int8",
        SHARE,
        measured=_int8_share,
        higher_is_better=True,
        logarithmic=False,
        objective=False,
        exact=True,
        column=TableColumn("int8", "% MACs", lambda share: f"{100 * share:.0f}", 5, 4, always=True),
    ),
    Quantity("latency_p90_s", "p90 latency", SECONDS, timed=_p90, objective=False, csv="p90_s"),
    Quantity("latency_p99_s", "p99 latency", SECONDS, timed=_p99, objective=False, csv="p99_s"),
    Quantity(
        "inference_j",
        "energy of an inference",
        JOULES,
        timed=_inference_j,
        gains=("less", "more"),
        margin=0.05,
        column=TableColumn("energy", "mJ", _milli, spare=7),
    ),
    # The first call after loading, in every fresh process: what a cold start adds.
    Quantity(
        "first_inference_s",
        "first inference",
        SECONDS,
        answers=FromAnswers("first_run_ns", 1e-9),
        gains=("faster", "slower"),
        margin=0.05,
        column=TableColumn("first", spare=8),
    ),
)

_BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


def quantity_named(name: str) -> Quantity:
    """The quantity of that name, which is not the metric; ``KeyError`` where there is none."""
    return _BY_NAME[name]


class Scored(Protocol):
    """What has a metric: a task, a figure of rows that were scored by it."""

    @property
    def metric(self) -> str: ...  # noqa: D102
    @property
    def higher_is_better(self) -> bool: ...  # noqa: D102


def quantities_of(
    task: Scored, further: Mapping[str, bool] = MappingProxyType({})
) -> tuple[Quantity, ...]:
    """The metric of ``task`` as the quantity ``accuracy``, further metrics, and all others.

    Args:
        task: has the leading metric.
        further: the names of others that are recorded, with whether more is better.
    """
    leading = _of_metric(task.metric, task.higher_is_better)
    return (leading, *(_further(*metric) for metric in further.items()), *QUANTITIES)


def recorded_quantities(task: TaskFacts) -> tuple[Quantity, ...]:
    """All that a record may have of a row: as :func:`quantities_of`, with serving samples."""
    leading, *others = quantities_of(task, task.metrics)
    served = [] if task.serving is None else [_served(SERVING, task.serving, task, _on_serving)]
    for name, facts in task.slices.items():
        served.append(_served(name, facts, task, partial(_on_slice, name=name)))
    return (leading, *served, *others)


def _on_serving(found: Measurement) -> ServedScore | None:
    return found.serving


def _on_slice(found: Measurement, name: str) -> ServedScore | None:
    return found.slices.get(name)


def _served(
    name: str,
    facts: SampleFacts,
    task: Scored,
    read: Callable[[Measurement], ServedScore | None],
) -> Quantity:
    def measured(found: Measurement) -> Estimate | None:
        served = read(found)
        return None if served is None else Estimate(served.accuracy.value, *served.accuracy.ci95)

    metric, sample = sanitize(facts.metric, 40), sanitize(name, 40)
    percent = "%" if is_rate(facts.metric) else ""
    other = "" if facts.metric == task.metric else metric
    return Quantity(
        f"on_{name}",
        f"{metric} on {sample}",
        Unit("", partial(score, facts.metric)),
        measured=measured,
        higher_is_better=task.higher_is_better,
        logarithmic=False,
        objective=False,
        gains=("better", "worse"),
        short=sample,
        column=TableColumn(
            sample,
            f"{percent} {other}".strip(),
            lambda value: score_cells(facts.metric, value, value, value)[0],
            place=0,
            spare=2,
        ),
    )


def _of_metric(name: str, higher_is_better: bool) -> Quantity:
    metric = sanitize(name, 40)
    return Quantity(
        "accuracy",
        metric,
        Unit("", partial(score, name)),
        measured=_accuracy,
        higher_is_better=higher_is_better,
        logarithmic=False,
        gains=("better", "worse"),
        on_front=True,
        paired=_paired_accuracy,
        csv="score",
        short=metric,
        column=TableColumn(metric, place=0, always=True),
        panel=metric.capitalize(),
    )


def _further(name: str, higher_is_better: bool) -> Quantity:
    def measured(found: Measurement) -> Estimate | None:
        accuracy = found.metrics.get(name)
        return Estimate(accuracy.value, *accuracy.ci95) if accuracy else None

    metric = sanitize(name, 40)
    return Quantity(
        f"metric_{name}",
        metric,
        Unit("", partial(score, name)),
        measured=measured,
        higher_is_better=higher_is_better,
        logarithmic=False,
        objective=False,
        gains=("better", "worse"),
        short=metric,
        column=TableColumn(metric, cell=partial(score, name), place=0, spare=3),
    )
