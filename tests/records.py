"""Synthetic records: what `compresskit run` writes, without a run."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from compress.record import (
    Accuracy,
    ArtifactFacts,
    Latency,
    Measurement,
    Memory,
    ParityFacts,
    Record,
    Row,
    Speedup,
    TaskFacts,
)

DEVICE = {
    "device_id": "a3f1c09b",
    "cpu": "AMD EPYC 7763 64-Core Processor",
    "cores": 2,
    "isa": ["avx2"],
    "memory_gib": 23.0,
    "governor": ["performance"],
    "onnxruntime": "1.32.0",
}


@dataclass
class Spec:
    """The facts of a row that tests care about; ``seconds=None`` means not timed."""

    stage: str
    kind: str
    accuracy: float | None
    seconds: float | None
    bytes: int
    int8: float = 0.0
    parameters: int = 100_000
    peak_mib: float | None = 4.0
    latency_half: float = 0.02
    accuracy_half: float = 0.005
    flips: tuple[int, int] | None = None
    warnings: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def measure(spec: Spec, baseline: Spec, target: str, n: int, metric: str) -> Measurement:
    """A measurement with the intervals that ``spec`` asks for."""
    return Measurement(
        target=target,
        runtime="onnxruntime",
        artifact=ArtifactFacts(
            path="stages/00-input/model.onnx",
            sha256="0" * 64,
            bytes=spec.bytes,
            int8_mac_fraction=spec.int8,
            operators={"Conv": 9, "Relu": 8, "Gemm": 1},
            weight_bytes={"int8": spec.bytes // 2} if spec.int8 else {"float32": spec.bytes // 2},
            graph_bytes=spec.bytes - spec.bytes // 2,
            nonzero_weights=spec.parameters,
            float_islands=["ReduceMean"] if spec.int8 else [],
        ),
        accuracy=_accuracy(spec, baseline, n, metric),
        latency=_latency(spec),
        speedup=_speedup(spec, baseline),
        memory=_memory(spec),
        parity=ParityFacts(agreement=0.998, max_error=0.031, sqnr_db=38.2, samples=512),
        warnings=spec.warnings,
    )


def _accuracy(spec: Spec, baseline: Spec, n: int, metric: str) -> Accuracy | None:
    if spec.accuracy is None:
        return None
    half = spec.accuracy_half
    versus = None
    if baseline.accuracy is not None and spec is not baseline:
        change = spec.accuracy - baseline.accuracy
        flips = round(change * n) if metric == "accuracy" else 0
        lost, gained = spec.flips or (max(0, -flips) + 40, max(0, flips) + 40)
        # Wald's interval of a paired difference, which is near enough for so many samples.
        width = 1.96 * math.sqrt(lost + gained) / n if metric == "accuracy" else half
        versus = {
            "lost": float(lost),
            "gained": float(gained),
            "p_value": 0.012,
            "delta": change,
            "delta_ci_lo": change - width,
            "delta_ci_hi": change + width,
        }
    interval = (spec.accuracy - half, spec.accuracy + half)
    return Accuracy(value=spec.accuracy, ci95=interval, n=n, versus_baseline=versus)


def _latency(spec: Spec) -> Latency | None:
    if spec.seconds is None:
        return None
    low, high = spec.seconds * (1 - spec.latency_half), spec.seconds * (1 + spec.latency_half)
    return Latency(
        p50_s=spec.seconds,
        p90_s=spec.seconds * 1.2,
        p99_s=None,
        ci95_p50_s=(low, high),
        processes=7,
        samples=210,
        runs_per_sample=1,
    )


def _speedup(spec: Spec, baseline: Spec) -> Speedup | None:
    if spec.seconds is None or baseline.seconds is None:
        return None
    if spec is baseline:
        return Speedup(value=1.0, ci95=(1.0, 1.0), verdict="baseline", noise_floor=0.01)
    ratio, half = baseline.seconds / spec.seconds, spec.latency_half
    low, high = ratio * (1 - half), ratio * (1 + half)
    verdict = "faster" if low > 1 else "slower" if high < 1 else "no difference shown"
    return Speedup(value=ratio, ci95=(low, high), verdict=verdict, noise_floor=0.01)


def _memory(spec: Spec) -> Memory | None:
    if spec.peak_mib is None:
        return None
    peak, runtime = int(spec.peak_mib * 2**20), 48 * 2**20
    return Memory(peak_rss_bytes=peak + runtime, model_peak_bytes=peak, runtime_bytes=runtime)


def build(
    specs: Sequence[Spec],
    *,
    name: str = "fashion-mnist-distill-quantize-prune",
    baseline: int = 0,
    targets: Sequence[str] = ("laptop",),
    metric: str = "accuracy",
    budget: dict[str, float] | None = None,
    status: str = "done",
    error: str | None = None,
    n: int = 10_000,
    devices: dict[str, str] | None = None,
) -> Record:
    """A record of ``specs``, one row each; the same on every target, each 3 times the slower."""
    rows = []
    for index, spec in enumerate(specs):
        slow = [_slowed(specs, index, baseline, 3.0**number) for number in range(len(targets))]
        rows.append(
            Row(
                index=index,
                stage=spec.stage,
                kind=spec.kind,
                seconds=12.5 * (index + 1),
                cached=False,
                fingerprint=f"fp{index}",
                parent=f"fp{index - 1}" if index else None,
                parameters=spec.parameters,
                nonzero_parameters=spec.parameters,
                macs=spec.parameters * 100,
                measurements=[
                    measure(mine, base, target, n, metric)
                    for target, (mine, base) in zip(targets, slow, strict=True)
                ],
                history=spec.history,
            )
        )
    ids = devices or {}
    recipe: dict[str, Any] = {
        "schema": 1,
        "name": name,
        "description": "The seeds' order, on a small residual teacher.",
        "task": "fashion-mnist",
        "stages": [{"kind": spec.kind} for spec in specs[1:]],
    }
    if budget:
        recipe["budget"] = budget
    return Record(
        name=name,
        recipe=recipe,
        environment={
            "date": "2026-03-01T12:00:00+00:00",
            "python": "3.12.3",
            "packages": {"torch": "2.13.0", "onnxruntime": "1.32.0"},
            "targets": {t: {**DEVICE, "device_id": ids.get(t, "a3f1c09b")} for t in targets},
        },
        seed=0,
        status=status,
        error=error,
        task=TaskFacts(
            name="fashion-mnist",
            metric=metric,
            higher_is_better=metric != "mse",
            test_samples=n,
        ),
        baseline=baseline,
        rows=rows,
    )


def _slowed(specs: Sequence[Spec], index: int, baseline: int, factor: float) -> tuple[Spec, Spec]:
    def slower(spec: Spec) -> Spec:
        seconds = None if spec.seconds is None else spec.seconds * factor
        return Spec(**{**vars(spec), "seconds": seconds})

    base = slower(specs[baseline])
    return (base if index == baseline else slower(specs[index])), base


def history(epochs: int, start: float = 2.3) -> list[dict[str, Any]]:
    """A training curve that goes down and settles."""
    return [
        {
            "epoch": epoch,
            "loss": start * math.exp(-epoch / 4) + 0.2,
            "validation": 0.92 - 0.6 * math.exp(-epoch / 3),
        }
        for epoch in range(1, epochs + 1)
    ]


def four_rows() -> list[Spec]:
    """Train, distill, quantize (slower here), prune."""
    return [
        Spec("input", "input", 0.1032, 392e-6, 724_948, parameters=170_202, peak_mib=6.1),
        Spec(
            "train",
            "train",
            0.9352,
            392e-6,
            724_948,
            parameters=170_202,
            peak_mib=6.1,
            history=history(10),
        ),
        Spec(
            "distill",
            "distill",
            0.9196,
            64e-6,
            225_901,
            parameters=49_418,
            peak_mib=3.4,
            history=history(12, 1.4),
            flips=(350, 194),
        ),
        Spec(
            "quantize",
            "quantize",
            0.9192,
            90e-6,
            92_560,
            int8=0.97,
            parameters=49_418,
            peak_mib=3.0,
            flips=(354, 194),
            warnings=["1 float operator between int8 ones: ReduceMean"],
        ),
        Spec(
            "prune",
            "prune",
            0.9137,
            59e-6,
            62_738,
            int8=0.96,
            parameters=23_874,
            peak_mib=2.6,
            flips=(400, 185),
            history=history(2, 0.8),
        ),
    ]


@pytest.fixture
def make() -> SimpleNamespace:
    """The builders themselves, for records of a test's own."""
    return SimpleNamespace(
        build=build, Spec=Spec, four_rows=four_rows, history=history, hostile=HOSTILE, budget=BUDGET
    )


BUDGET = {"latency_p50_ms": 0.3, "artifact_kib": 256, "accuracy_drop": 0.02}


@pytest.fixture
def chain() -> Record:
    """Train, distill, quantize, prune on one target, with a budget."""
    return build(four_rows(), baseline=1, budget=BUDGET)


@pytest.fixture
def one_row() -> Record:
    """Only the model that came in."""
    return build(four_rows()[1:2])


@pytest.fixture
def failed() -> Record:
    """A recipe whose third row could not be timed and whose fourth stage failed."""
    specs = four_rows()[1:4]
    specs[2].seconds = specs[2].peak_mib = None
    return build(specs, status="failed", error="stages[3] prune: nothing was pruned.")


@pytest.fixture
def lower_is_better() -> Record:
    """A metric that is to be small."""
    specs = [
        Spec("input", "input", 0.0213, 1.9e-3, 2_400_000, accuracy_half=0.0008),
        Spec("quantize", "quantize", 0.0221, 1.1e-3, 640_000, int8=0.9, accuracy_half=0.0008),
        Spec("prune", "prune", 0.0342, 0.7e-3, 410_000, int8=0.9, accuracy_half=0.0011),
    ]
    return build(specs, metric="mse", name="denoiser")


@pytest.fixture
def perfect() -> Record:
    """A baseline without any error, as where it is scored against itself."""
    specs = [
        Spec("input", "input", 0.0, 1.9e-3, 2_400_000, accuracy_half=0.0),
        Spec("quantize", "quantize", 0.0021, 1.1e-3, 640_000, int8=0.9, accuracy_half=0.0008),
        Spec("prune", "prune", 0.0342, 0.7e-3, 410_000, int8=0.9, accuracy_half=0.0011),
    ]
    record = build(specs, metric="mse", name="embedder")
    record.task.reference = "row 0"
    return record


@pytest.fixture
def two_targets() -> Record:
    """The chain on two devices."""
    return build(
        four_rows(),
        baseline=1,
        targets=("laptop", "raspberry pi"),
        devices={"laptop": "aaa", "raspberry pi": "bbb"},
    )


HOSTILE = "<script>alert(1)</script> $\\frac{a}{$ %s {x} \x1b[31m\u202e\n'\"&日本"


@pytest.fixture
def adversarial() -> Record:
    """Every free text of the record is hostile."""
    specs = four_rows()
    for spec in specs:
        spec.stage = HOSTILE
        spec.warnings = [HOSTILE]
    record = build(
        specs, baseline=1, name=HOSTILE, targets=(HOSTILE,), status="failed", error=HOSTILE
    )
    record.recipe["description"] = HOSTILE
    record.recipe[HOSTILE] = {HOSTILE: [HOSTILE]}
    record.environment[HOSTILE] = HOSTILE
    record.task.name = HOSTILE
    for row in record.rows:
        row.notes = [HOSTILE]
        row.fingerprint = HOSTILE
        for found in row.measurements:
            found.artifact.float_islands = [HOSTILE]
            found.artifact.operators = {HOSTILE: 1}
            found.artifact.path = HOSTILE
            found.runtime = HOSTILE
    return record


@pytest.fixture
def clustered() -> Record:
    """Fifteen rows within a few percent of one another."""
    rng = random.Random(7)
    specs = [Spec("input", "input", 0.9352, 392e-6, 724_948)]
    kinds = ("distill", "quantize", "prune", "train")
    specs += [
        Spec(
            f"{kinds[number % 4]}-{number}",
            kinds[number % 4],
            0.915 + rng.uniform(-0.003, 0.003),
            80e-6 * (1 + rng.uniform(-0.05, 0.05)),
            90_000 + 1000 * number,
            int8=0.9 if number % 4 == 1 else 0.0,
        )
        for number in range(14)
    ]
    return build(specs, name="sweep")
