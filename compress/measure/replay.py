"""ReplayTarget: a target whose times and sizes are declared, so that nothing waits for a clock.

It goes through the same rounds, statistics and raw log as a real target; only the worker's
``time``, ``memory`` and ``check`` jobs are answered from rules. Outputs are computed for real.
For tests of recipes and for trying out what a device with such numbers would show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.artifact import Lowering, model_files
from compress.errors import MeasurementError
from compress.measure.local import LocalTarget
from compress.measure.raw_samples import RawLog
from compress.measure.rounds import Device, run_session
from compress.measure.target import Array, BenchmarkConfig, Failure, Timing

__all__ = ["ReplayTarget", "latency_by_bytes_s", "memory_by_bytes"]

#: A number for each model: by the end of its path (the longest that fits wins), or computed.
Rule = Mapping[str, float] | Callable[[Path], float]

_RUNTIME_BYTES = 50_000_000
_SAMPLES = 30


def latency_by_bytes_s(model: Path) -> float:
    """100 µs, and 1 ns for each byte of the file."""
    return 1e-4 + 1e-9 * _bytes(model)


def memory_by_bytes(model: Path) -> float:
    """Twice the file."""
    return 2.0 * _bytes(model)


def _bytes(model: Path) -> int:
    return sum(part.stat().st_size for part in model_files(model))


@dataclass(frozen=True)
class ReplayTarget:
    """Declared numbers behind the :class:`~compress.measure.target.Target` protocol.

    Args:
        name: as in a record.
        latency_s: seconds of one inference.
        model_peak_bytes: peak memory above the runtime's.
        errors: a sentence for each model, by the end of its path, that shall fail.
        noise: relative standard deviation of a process's time, drawn from the config's seed: the
            same session gives the same numbers.
        encoding: what :meth:`lowering` returns.
        run: computes outputs; by default onnxruntime, in one process.
    """

    name: str = "replay"
    latency_s: Rule = latency_by_bytes_s
    model_peak_bytes: Rule = memory_by_bytes
    errors: Mapping[str, str] = field(default_factory=dict)
    noise: float = 0.0
    encoding: Lowering = field(default_factory=Lowering)
    run: Callable[[Path, Mapping[str, Array]], list[Array]] | None = None
    runtime: str = "onnxruntime"

    def lowering(self) -> Lowering:
        """The declared encoding."""
        return self.encoding

    def environment(self) -> dict[str, Any]:
        """Says that nothing here was measured."""
        facts = {"replay": True}
        return {"device_id": "replay", "state_id": "replay", "device": facts, "state": {}}

    def predict(self, model: Path, inputs: Mapping[str, Array]) -> list[Array]:
        """Real outputs, from ``run``.

        Raises:
            MeasurementError: the model is declared to fail, or does.
        """
        self._fail_if_declared(model)
        run = self.run or LocalTarget(name=self.name, batch=self.encoding.batch).predict
        return run(model, inputs)

    def measure(
        self, models: Sequence[Path], config: BenchmarkConfig, raw: Path | None = None
    ) -> list[Timing | Failure]:
        """The declared numbers, through the statistics of a real session."""
        draws = np.random.default_rng(config.seed)

        def run_job(kind: str, model: Path, _: Mapping[str, object]) -> Mapping[str, object]:
            return self.answer(kind, model, float(draws.standard_normal()))

        with RawLog(raw) as log:
            device = Device(run_job, threads=1, batch=self.encoding.batch, cores=1)
            return run_session(models, config, device, log)

    def answer(self, kind: str, model: Path, draw: float) -> dict[str, object]:
        """What a worker would answer to a ``time``, ``memory`` or ``check`` job.

        ``draw`` is a standard normal number; the process's time is off by ``noise`` times that.

        Raises:
            MeasurementError: the model is declared to fail, or has no declared number.
        """
        self._fail_if_declared(model)
        if kind == "time":
            return self._time(model, draw)
        if kind == "memory":
            return self._memory(model)
        return {"denormal_ratio": 1.0, "saturation_sqnr_db": None, "repeatable": True}

    def _fail_if_declared(self, model: Path) -> None:
        error = _longest(self.errors, model)
        if error is not None:
            raise MeasurementError(f"{model}: {self.errors[error]}")

    def _number(self, rule: Rule, model: Path, what: str) -> float:
        if callable(rule):
            return rule(model)
        key = _longest(rule, model)
        if key is None:
            raise MeasurementError(
                f"{model}: target {self.name!r} declares no {what} for it, only for {sorted(rule)}."
            )
        return rule[key]

    def _memory(self, model: Path) -> dict[str, object]:
        peak = _RUNTIME_BYTES + int(self._number(self.model_peak_bytes, model, "memory"))
        return {
            "runtime_bytes": _RUNTIME_BYTES,
            "load_peak_bytes": peak,
            "run_peak_bytes": peak,
        }

    def _time(self, model: Path, draw: float) -> dict[str, object]:
        run_s = self._number(self.latency_s, model, "latency") * float(np.exp(self.noise * draw))
        run_ns = run_s * 1e9
        return {
            "batch": self.encoding.batch,
            "runs_per_sample": 1,
            "import_ns": 0,
            "create_ns": 0,
            "first_run_ns": run_ns,
            "samples_ns": [run_ns] * _SAMPLES,
            "steady": True,
            "finite": True,
            "wall_ns": run_ns * _SAMPLES,
            "cpu_ns": run_ns * _SAMPLES,
            "load": [0.0, 0.0],
            "probe_ns": [5_000_000, 5_000_000],
        }


def _longest(rule: Mapping[str, object], model: Path) -> str | None:
    path = model.as_posix()
    return max((key for key in rule if path.endswith(key)), key=len, default=None)
