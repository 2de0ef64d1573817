"""What the report says of each row beyond the table: labeled facts, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compress.formatting import (
    count,
    duration,
    energy,
    sanitize,
    score,
    score_change,
    score_interval,
    size,
    times,
)
from compress.measure.perplexity import bits_per_token, perplexity
from compress.measure.quantities import QUANTITIES
from compress.measure.stats import FEWEST_SAMPLES
from compress.pareto import Reading, readings
from compress.record import (
    Accuracy,
    Energy,
    Latency,
    Measurement,
    ParityFacts,
    Record,
    Row,
    SizeTiming,
)
from compress.report.page.target import TargetReport
from compress.report.provenance import runs_each, scored_against
from compress.report.serving_words import served_facts

__all__ = ["details_data", "row_facts"]

Fact = tuple[str, str]

_OPERATORS_SHOWN = 8


def details_data(target: TargetReport) -> list[dict[str, object]]:
    """Everything known of each row."""
    return [_row_details(target.record, row, target.name) for row in target.record.rows]


def _row_details(record: Record, row: Row, target: str) -> dict[str, object]:
    found = row.on(target)
    warnings = found.warnings if found is not None else ["Not measured."]
    return {
        "index": row.index,
        "stage": row.stage,
        "facts": row_facts(record, row, target),
        "notes": [*warnings, *row.notes],
    }


def row_facts(record: Record, row: Row, target: str) -> list[Fact]:
    """Label and text of everything known about ``row`` on ``target``."""
    found = row.on(target)
    if found is None:
        return [*_stage_facts(row)]
    latency = readings(record, target)[row.index].get("latency_p50_s")
    return [*_stage_facts(row), *_measured_facts(record, found, latency)]


def _stage_facts(row: Row) -> Iterator[Fact]:
    yield "Kind", sanitize(row.kind)
    if row.seconds > 0:  # the model that came in took nothing
        took = duration(row.seconds) if row.seconds >= 1e-3 else "under 1 ms"
        yield "Took", took + (", from an earlier run" if row.cached else "")
    nonzero = f", {row.nonzero_parameters:,} non-zero"
    sparse = row.nonzero_parameters != row.parameters
    yield "Parameters", f"{row.parameters:,}{nonzero if sparse else ''}"
    yield "Multiply-accumulates", f"{count(row.macs)} for one sample"
    yield "Fingerprint", sanitize(row.fingerprint, 80)
    if row.parent:
        yield "Made from", sanitize(row.parent, 80)


def _measured_facts(record: Record, found: Measurement, paired: Reading | None) -> Iterator[Fact]:
    metric = record.task.metric
    if found.accuracy is not None:
        against = f", {scored}" if (scored := scored_against(record)) else ""
        value = _accuracy_words(metric, found.accuracy)
        yield sanitize(metric, 40).capitalize(), f"{value}{against}"
        if found.accuracy.versus_baseline:
            yield "Against the baseline", _paired_words(metric, found.accuracy)
    for name, accuracy in found.metrics.items():
        words = [_accuracy_words(name, accuracy)]
        if accuracy.versus_baseline:
            words.append(f"against the baseline {_paired_words(name, accuracy)}")
        yield sanitize(name, 40).capitalize(), "; ".join(words)
    yield from served_facts(record, found)
    if found.latency is not None:
        yield "Latency", _latency_words(found.latency, paired)
    if found.speedup is not None:
        low, high = found.speedup.ci95
        floor = found.speedup.noise_floor
        noise = f"; noise floor {100 * floor:.1f} %" if floor is not None else ""
        verdict = sanitize(found.speedup.verdict, 40) or "no verdict"
        ratio = times(found.speedup.value)
        ends = f"95 % interval {times(low)} to {times(high)}"
        yield "Speedup", f"{ratio} over the baseline, {ends}: {verdict}{noise}"
    if found.sizes:
        yield "At each size", "; ".join(map(_size_words, found.sizes))
    if found.memory is not None:
        above, runtime = size(found.memory.model_peak_bytes), size(found.memory.runtime_bytes)
        total = size(found.memory.peak_rss_bytes)
        yield "Memory", f"peak {above} above the runtime's {runtime}; {total} in all"
    if found.energy is not None:
        yield "Energy", _energy_words(found.energy)
    yield from _declared_facts(found)
    yield from _artifact_facts(found)


def _size_words(timed: SizeTiming) -> str:
    samples = f"{timed.batch} sample{'s'[: timed.batch != 1]}"
    what = samples if timed.length is None else f"{samples} of {timed.length} tokens"
    if timed.latency is None:
        return f"{what}: not timed"
    low, high = timed.latency.ci95_p50_s
    text = f"{what}: p50 {duration(timed.latency.p50_s)}, {duration(low)} to {duration(high)}"
    if timed.speedup is None:
        return text
    ends = " to ".join(map(times, timed.speedup.ci95))
    return f"{text}, {times(timed.speedup.value)} over the baseline, {ends}"


def _declared_facts(found: Measurement) -> Iterator[Fact]:
    """What the record keeps by the names of quantities, and not in a block of its own."""
    for quantity in QUANTITIES:
        kept = found.quantities.get(quantity.name)
        if kept is not None:
            value, low, high = map(quantity.unit.shown, (kept.value, *kept.ci95))
            title = f"{quantity.title[0].upper()}{quantity.title[1:]}"
            yield title, f"{value}, 95 % interval {low} to {high}; {kept.samples} processes"


def _accuracy_words(metric: str, accuracy: Accuracy) -> str:
    low, high = (score(metric, end) for end in accuracy.ci95)
    text = f"{score(metric, accuracy.value)}, 95 % interval {low} to {high}"
    if metric == bits_per_token.__name__:
        text += f" (perplexity {perplexity(accuracy.value):.4g})"
    return f"{text}, {accuracy.n:,} samples"


def _paired_words(metric: str, accuracy: Accuracy) -> str:
    """The comparison on the same samples; facts of other names are shown as they were stored."""
    facts = dict(accuracy.versus_baseline or {})
    exact = _flips_alone(facts, accuracy.n)
    words = []
    if {"gained", "lost"} <= facts.keys():
        words.append(f"{facts.pop('gained'):.0f} samples gained, {facts.pop('lost'):.0f} lost")
    if {"delta", "delta_ci_lo", "delta_ci_hi"} <= facts.keys():
        change = score_change(metric, facts.pop("delta"))
        ends = facts.pop("delta_ci_lo"), facts.pop("delta_ci_hi")
        words.append(f"change {change} {score_interval(metric, *ends)}")
    if "p_value" in facts:
        test = "exact McNemar" if exact else "paired"
        words.append(f"{test} p = {facts.pop('p_value'):.2g}")
    words += [f"{sanitize(name, 40)} {value:.4g}" for name, value in facts.items()]
    return "; ".join(words)


def _flips_alone(versus: Mapping[str, float], n: int) -> bool:
    """Whether every sample is right or wrong: then the scores changed by whole samples alone."""
    if not {"gained", "lost", "delta"} <= versus.keys():
        return False
    flips = abs(versus["gained"] - versus["lost"])
    return abs(abs(versus["delta"]) * n - flips) < 1e-6 * n


def _latency_words(latency: Latency, paired: Reading | None) -> str:
    low, high = latency.ci95_p50_s
    timed = f"{duration(latency.p50_s)}, 95 % interval {duration(low)} to {duration(high)}"
    if paired is not None and paired.timed is not None:
        timed = f"{duration(paired.value)}, beside the baseline's; as timed {timed}"
    return (
        f"p50 {timed}; {_tail_words(latency)}; {latency.processes} processes, "
        f"{_timings_words(latency)}"
    )


def _tail_words(latency: Latency) -> str:
    """The high percentiles, or why there are none."""
    tail = (("p90", latency.p90_s, 0.9), ("p99", latency.p99_s, 0.99))
    words, grouped = [], []
    for name, value, share in tail:
        if value is not None:
            words.append(f"{name} {duration(value)}")
        elif (runs_each(latency) or 1) == 1 and latency.samples < FEWEST_SAMPLES[share]:
            words.append(f"{name} needs {FEWEST_SAMPLES[share]} timed runs")
        else:
            grouped.append(name)
    if grouped:
        words.append(f"{' and '.join(grouped)} not known, for runs were timed in groups")
    return ", ".join(words)


def _timings_words(latency: Latency) -> str:
    """What was counted: single inferences, or timings of several in a row."""
    runs = runs_each(latency)
    if runs == 1:
        return f"{latency.samples:,} timed runs"
    return f"{latency.samples:,} timings" + (f" of {runs:,} runs each" if runs else "")


def _energy_words(found: Energy) -> str:
    low, high = (energy(end) for end in found.range_j)
    return (
        f"{energy(found.inference_j)} an inference, {low} to {high} in its windows, "
        f"{energy(found.above_idle_j)} above idling; from {sanitize(found.source, 60)}"
    )


def _artifact_facts(found: Measurement) -> Iterator[Fact]:
    artifact, parity = found.artifact, found.parity
    weights = sum(artifact.weight_bytes.values())
    yield (
        "Artifact",
        f"{sanitize(artifact.path)}, {artifact.bytes:,} bytes, {sanitize(found.runtime, 40)}",
    )
    if artifact.weight_bytes:
        by_type = ", ".join(
            f"{sanitize(k, 20)} {size(v)}" for k, v in artifact.weight_bytes.items()
        )
        yield (
            "Inside the file",
            f"weights {size(weights)} ({by_type}), graph {size(artifact.graph_bytes)}",
        )
    yield from _executed_facts(found)
    if artifact.float_islands:
        islands = [sanitize(name, 60) for name in artifact.float_islands[:_OPERATORS_SHOWN]]
        more = len(artifact.float_islands) - len(islands)
        yield "Float between int8", ", ".join(islands) + (f" and {more} more" if more else "")
    if artifact.operators:
        yield "Operators", _operator_words(artifact.operators)
    if parity is not None:
        yield "Parity with its module", f"{_parity(parity)}, {parity.samples:,} samples"
        for name, one in parity.outputs.items():
            yield f"Parity of {sanitize(name, 40)}", _parity(one)
    yield "SHA-256", sanitize(artifact.sha256, 64)


def _parity(found: ParityFacts) -> str:
    sqnr = f", {found.sqnr_db:.1f} dB" if found.sqnr_db is not None else ", bitwise equal"
    same = "" if found.agreement is None else f"{100 * found.agreement:.2f} % same answer, "
    explained = "" if found.r_squared is None else f", R² {found.r_squared:.4g}"
    return f"{same}largest error {found.max_error:.3g}{sqnr}{explained}"


def _executed_facts(found: Measurement) -> Iterator[Fact]:
    declared = f"{100 * found.artifact.int8_mac_fraction:.1f} %"
    ran = found.executed.int8_mac_fraction if found.executed else None
    if ran is None:
        yield "Computed in int8", f"{declared} of multiply-accumulates"
    else:
        said = f"{100 * ran:.1f} % of multiply-accumulates"
        yield "Computed in int8", f"{said} (onnxruntime's CPU: {declared})"
    share = found.executed.provider_fraction if found.executed else None
    if share is not None:
        yield "On the provider", f"{100 * share:.1f} % of operators"


def _operator_words(operators: Mapping[str, int]) -> str:
    ranked = sorted(operators.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [f"{number} {sanitize(name, 40)}" for name, number in ranked[:_OPERATORS_SHOWN]]
    rest = sum(number for _, number in ranked[_OPERATORS_SHOWN:])
    return ", ".join(shown) + (f", {rest} others" if rest else "")
