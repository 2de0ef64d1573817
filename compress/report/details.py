"""What the report says of each row beyond the table: labelled facts, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compress.measure.language import bits_per_token, perplexity
from compress.pareto.words import (
    count,
    duration,
    energy,
    plain,
    score,
    score_change,
    score_interval,
    size,
    times,
)
from compress.record import Accuracy, Energy, Latency, Measurement, Record, Row

__all__ = ["row_facts"]

Fact = tuple[str, str]

_OPERATORS_SHOWN = 8


def row_facts(record: Record, row: Row, target: str) -> list[Fact]:
    """Label and text of everything known about ``row`` on ``target``."""
    found = row.on(target)
    return [*_stage_facts(row), *(_measured_facts(record, found) if found is not None else ())]


def _stage_facts(row: Row) -> Iterator[Fact]:
    yield "Kind", plain(row.kind)
    yield "Took", duration(row.seconds) + (", from an earlier run" if row.cached else "")
    nonzero = f", {row.nonzero_parameters:,} non-zero"
    sparse = row.nonzero_parameters != row.parameters
    yield "Parameters", f"{row.parameters:,}{nonzero if sparse else ''}"
    yield "Multiply-accumulates", f"{count(row.macs)} for one sample"
    yield "Fingerprint", plain(row.fingerprint, 80)
    if row.parent:
        yield "Made from", plain(row.parent, 80)


def _measured_facts(record: Record, found: Measurement) -> Iterator[Fact]:
    metric = record.task.metric
    if found.accuracy is not None:
        yield plain(metric, 40).capitalize(), _accuracy_words(metric, found.accuracy)
        if found.accuracy.versus_baseline:
            yield "Against the baseline", _paired_words(metric, found.accuracy.versus_baseline)
    if found.latency is not None:
        yield "Latency", _latency_words(found.latency)
    if found.speedup is not None:
        low, high = found.speedup.ci95
        floor = found.speedup.noise_floor
        noise = f"; noise floor {100 * floor:.1f} %" if floor is not None else ""
        verdict = plain(found.speedup.verdict, 40) or "no verdict"
        ratio = times(found.speedup.value)
        yield "Speedup", f"{ratio}, 95 % interval {times(low)} to {times(high)}: {verdict}{noise}"
    if found.memory is not None:
        above, runtime = size(found.memory.model_peak_bytes), size(found.memory.runtime_bytes)
        total = size(found.memory.peak_rss_bytes)
        yield "Memory", f"peak {above} above the runtime's {runtime}; {total} in all"
    if found.energy is not None:
        yield "Energy", _energy_words(found.energy)
    yield from _artifact_facts(found)


def _accuracy_words(metric: str, accuracy: Accuracy) -> str:
    low, high = (score(metric, end) for end in accuracy.ci95)
    told = f"{score(metric, accuracy.value)}, 95 % interval {low} to {high}"
    if metric == bits_per_token.__name__:
        told += f" (perplexity {perplexity(accuracy.value):.4g})"
    return f"{told}, {accuracy.n:,} samples"


def _paired_words(metric: str, versus: Mapping[str, float]) -> str:
    """The comparison on the same samples; facts of other names are shown as they were stored."""
    facts = dict(versus)
    words = []
    if {"gained", "lost"} <= facts.keys():
        words.append(f"{facts.pop('gained'):.0f} samples gained, {facts.pop('lost'):.0f} lost")
    if {"delta", "delta_ci_lo", "delta_ci_hi"} <= facts.keys():
        change = score_change(metric, facts.pop("delta"))
        ends = facts.pop("delta_ci_lo"), facts.pop("delta_ci_hi")
        words.append(f"change {change} {score_interval(metric, *ends)}")
    if "p_value" in facts:
        test = "exact McNemar" if metric == "accuracy" else "paired"
        words.append(f"{test} p = {facts.pop('p_value'):.2g}")
    words += [f"{plain(name, 40)} {value:.4g}" for name, value in facts.items()]
    return "; ".join(words)


def _latency_words(latency: Latency) -> str:
    low, high = latency.ci95_p50_s
    tail = [
        f"p{name} {duration(value)}" if value is not None else f"p{name} needs more samples"
        for name, value in (("90", latency.p90_s), ("99", latency.p99_s))
    ]
    return (
        f"p50 {duration(latency.p50_s)}, 95 % interval {duration(low)} to {duration(high)}; "
        f"{', '.join(tail)}; {latency.processes} processes, {latency.samples:,} timed runs"
    )


def _energy_words(found: Energy) -> str:
    low, high = (energy(end) for end in found.range_j)
    return (
        f"{energy(found.inference_j)} an inference, {low} to {high} in its windows, "
        f"{energy(found.above_idle_j)} above idling; from {plain(found.source, 60)}"
    )


def _artifact_facts(found: Measurement) -> Iterator[Fact]:
    artifact, parity = found.artifact, found.parity
    weights = sum(artifact.weight_bytes.values())
    yield (
        "Artifact",
        f"{plain(artifact.path)}, {artifact.bytes:,} bytes, {plain(found.runtime, 40)}",
    )
    if artifact.weight_bytes:
        by_type = ", ".join(f"{plain(k, 20)} {size(v)}" for k, v in artifact.weight_bytes.items())
        yield (
            "Inside the file",
            f"weights {size(weights)} ({by_type}), graph {size(artifact.graph_bytes)}",
        )
    yield from _executed_facts(found)
    if artifact.float_islands:
        islands = [plain(name, 60) for name in artifact.float_islands[:_OPERATORS_SHOWN]]
        more = len(artifact.float_islands) - len(islands)
        yield "Float between int8", ", ".join(islands) + (f" and {more} more" if more else "")
    if artifact.operators:
        yield "Operators", _operator_words(artifact.operators)
    if parity is not None:
        sqnr = f", {parity.sqnr_db:.1f} dB" if parity.sqnr_db is not None else ", bitwise equal"
        error = f"largest error {parity.max_error:.3g}{sqnr}"
        same = "" if parity.agreement is None else f"{100 * parity.agreement:.2f} % same answer, "
        explained = "" if parity.r_squared is None else f", R² {parity.r_squared:.4g}"
        of = f"{parity.samples:,} samples"
        yield "Parity with its module", f"{same}{error}{explained}, {of}"
    yield "SHA-256", plain(artifact.sha256, 64)


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
    shown = [f"{number} {plain(name, 40)}" for name, number in ranked[:_OPERATORS_SHOWN]]
    rest = sum(number for _, number in ranked[_OPERATORS_SHOWN:])
    return ", ".join(shown) + (f", {rest} others" if rest else "")
