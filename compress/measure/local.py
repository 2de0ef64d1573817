"""LocalTarget: this machine, with one of the runtimes that it has."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from compress.artifact import Lowering, file_sha256
from compress.config.fields import LONGEST_S, MOST_THREADS, Number, Whole
from compress.errors import MeasurementError
from compress.io.scratch import scratch
from compress.measure.arrays import on_disk
from compress.measure.machine import describe, saturates
from compress.measure.ondevice import machine
from compress.measure.ondevice.runtimes import PROVIDERS, RUNTIMES
from compress.measure.open_sizes import Batch, OpenSizes
from compress.measure.process import run_interleaved, run_side_by_side, run_worker
from compress.measure.raw_samples import RawLog
from compress.measure.rounds import Device, run_session
from compress.measure.session import few_samples
from compress.measure.target import Array, BenchmarkConfig, Failure, Timing
from compress.measure.target_kind import NAME_PATTERN, TargetKind

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import Answer, FitAnswer, InspectAnswer
    from compress.measure.ondevice.loop import Settings

    RuntimeName = str
    ProviderName = str
else:
    # One file for each runtime says what it is called, and what it can run a model on.
    RuntimeName = Literal[tuple(RUNTIMES)]
    ProviderName = Literal[PROVIDERS]

__all__ = ["LocalSettings", "LocalTarget", "RuntimeSettings"]


# Scoring: a process for fewer samples would take longer to start than it saves, and one that loads
# a large model may take several times the file.
_LEAST_SAMPLES, _MOST_PROCESSES, _ROOM = 1000, 8, 10


class RuntimeSettings(OpenSizes):
    """What runs a model, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: RuntimeName = "onnxruntime"
    """What runs the file; ``compresskit doctor`` lists what is there."""
    provider: ProviderName = "cpu"
    """What onnxruntime runs it on; ``compresskit doctor`` lists what is there."""
    threads: Whole = Field(default=1, ge=1, le=MOST_THREADS)
    """Threads of one operator."""
    batch: Batch = 1
    """Samples of one inference, for models that do not fix it; ``any`` makes files that take any
    number of them."""

    @model_validator(mode="after")
    def _runtime_has_provider(self) -> RuntimeSettings:
        known = RUNTIMES[self.runtime].providers
        if self.provider not in known:
            others = (each.name for each in RUNTIMES.values() if self.provider in each.providers)
            raise ValueError(
                f"the runtime {self.runtime} runs models on {', '.join(known)}; got provider "
                f"{self.provider}, which {' and '.join(others)} has"
            )
        return self


class LocalTarget(RuntimeSettings):
    """This machine. Every job is a fresh process; see :mod:`.ondevice.worker`.

    ``timeout_s`` bounds a process that loads, times or sizes a model; one that scores a data set
    may take as long for every thousand samples.
    """

    kind: Literal["local"] = "local"
    name: str = "local"
    timeout_s: Number = Field(default=600, gt=0, le=LONGEST_S)

    def lowering(self) -> Lowering:
        """Weights on the narrower grid where this CPU's int8 kernels would saturate."""
        runtime = RUNTIMES[self.runtime]
        avoid = runtime.int8_may_saturate and saturates(
            arch=platform.machine(), system=platform.system(), flags=machine.cpu_flags()
        )
        return Lowering(
            batch=self.run_batch,
            avoid_saturation=avoid,
            refused=self.refused_formats,
            open=self.open,
        )

    @property
    def refused_formats(self) -> tuple[tuple[str, str], ...]:
        """The formats that the runtime does not compute, as it declares them itself."""
        return RUNTIMES[self.runtime].refused_formats

    def environment(self) -> dict[str, Any]:
        """``device_id`` and ``state_id``, what they are made of, and the load right now.

        Raises:
            MeasurementError: this machine lacks the runtime or its provider; says how to get it.
        """
        job = {"kind": "environment", "runtime": self.runtime, "provider": self.provider}
        facts = run_worker(job, timeout_s=self.timeout_s)
        return describe(facts, threads=self.threads, batch=self.run_batch)

    def predict(self, model: Path, inputs: Mapping[str, Array]) -> list[Array]:
        """The model's outputs for every sample, at this target's batch.

        Raises:
            MeasurementError: the runtime cannot load or run the model; carries its words.
        """
        self.check_settings()
        samples = max((len(array) for array in inputs.values()), default=0)
        cuts = _cuts(samples, self.run_batch, self.scoring_processes(model))
        parts = [{n: a[start:end] for n, a in inputs.items()} for start, end in cuts]
        longest = max(end - start for start, end in cuts)
        with ExitStack() as stack:
            jobs = []
            for part in parts:
                files = stack.enter_context(on_disk(part))
                folder = stack.enter_context(scratch())
                jobs.append(self._job("predict", model, {"inputs": files, "folder": folder}))
            answers = run_side_by_side(jobs, timeout_s=self.timeout_s * max(1, longest / 1000))
            outputs = [
                [np.load(path, allow_pickle=False) for path in answer["outputs"]]
                for answer in answers
            ]
        return [np.concatenate(whole) for whole in zip(*outputs, strict=True)]

    def scoring_processes(self, model: Path) -> int:
        """How many processes may score at once: one a core, if there is memory for so many."""
        if self.provider != "cpu" or not os.path.isfile(model):
            return 1
        room = machine.free_memory_bytes() / (_ROOM * max(1, os.path.getsize(model)))
        return max(1, min(machine.cpu_count() // self.threads, int(min(room, _MOST_PROCESSES))))

    def measure(
        self, models: Sequence[Path], config: BenchmarkConfig, raw: Path | None = None
    ) -> list[Timing | Failure]:
        """Time ``models`` in interleaved rounds, against the first one; see :mod:`.rounds`.

        Raises:
            MeasurementError: this process may not use as many cores as ``threads``.
            StorageError: ``raw`` cannot be written.
        """
        self.check_settings()
        few = few_samples(config.inputs, self.run_batch)
        with RawLog(raw) as log, on_disk(few) as files, on_disk(config.values) as values:
            if raw is not None:
                log.write(self._header(models, config))

            def fed(model: Path, settings: Settings) -> Settings:
                drawn = {"shapes": config.shapes.get(model, {}), "values": values}
                return {"inputs": files, "seed": config.seed, **drawn, **settings}

            def run_job(kind: str, model: Path, settings: Settings) -> Answer:
                return self.work(kind, model, fed(model, settings))

            def interleaved(jobs: Sequence[tuple[Path, Settings]], seed: int) -> Sequence[Answer]:
                whole = [self._job("turns", model, fed(model, own)) for model, own in jobs]
                return run_interleaved(whole, seed=seed, timeout_s=self.timeout_s)

            device = Device(run_job, self.threads, self.run_batch, machine.cpu_count(), interleaved)
            return run_session(models, config, device, log)

    def work(self, kind: str, model: Path, settings: Settings) -> Answer:
        """One job (of :data:`.ondevice.worker.JOBS`) on ``model``, in a fresh process.

        Raises:
            MeasurementError: the job failed, or its process was killed or took too long.
        """
        longer_s = settings.get("sustain_s", 0)  # a job that is meant to be long
        assert isinstance(longer_s, int | float)
        return run_worker(self._job(kind, model, settings), timeout_s=self.timeout_s + longer_s)

    def fit(self, model: Path, settings: Settings) -> FitAnswer:
        """Whether and with which sizes the model runs, as the worker's ``fit`` says.

        Raises:
            MeasurementError: the runtime cannot load the model; carries its words.
        """
        return cast("FitAnswer", self.work("fit", model, settings))

    def inspect(self, model: Path) -> InspectAnswer:
        """Names, types and shapes of the model's ``inputs`` and ``outputs``.

        Raises:
            MeasurementError: the runtime cannot load the model; carries its words.
        """
        return cast("InspectAnswer", self.work("inspect", model, {}))

    def _job(self, kind: str, model: Path, settings: Settings) -> dict[str, object]:
        own = self.model_dump(include=set(RuntimeSettings.model_fields) - {"length", "sizes"})
        return {**own, "batch": self.run_batch, "kind": kind, "model": str(model), **settings}

    def _header(self, models: Sequence[Path], config: BenchmarkConfig) -> dict[str, object]:
        return {
            "schema": 1,
            "kind": "session",
            "target": self.model_dump(),
            "mode": config.mode,
            "seed": config.seed,
            "models": [{"path": str(model), "sha256": _digest(model)} for model in models],
            "environment": self.environment(),
        }

    def check_settings(self) -> None:
        """Refuse more threads than this process may use.

        Raises:
            MeasurementError: there are more.
        """
        usable = machine.cpu_count()
        if self.threads > usable:
            raise MeasurementError(
                f"target {self.name!r}: threads is {self.threads}, but this process may use "
                f"{usable} core(s) (affinity and container limit counted); lower threads."
            )


class LocalSettings(RuntimeSettings, TargetKind):
    """This machine, with one of the runtimes that it has."""

    options: ClassVar[tuple[str, ...]] = ("runtime", "provider")

    name: str = Field(default="local", pattern=NAME_PATTERN)
    """What the target is called in tables and files; unique within a recipe."""
    kind: Literal["local"] = "local"

    @classmethod
    def target_type(cls) -> type[LocalTarget]:
        """The target itself."""
        return LocalTarget


def _digest(model: Path) -> str | None:
    try:
        return file_sha256(model) if os.path.isfile(model) else None
    except OSError:  # whoever opens it says so
        return None


def _cuts(samples: int, batch: int, most: int) -> list[tuple[int, int]]:
    """Where each of at most ``most`` parts begins and ends: at whole batches, of a good length."""
    parts = max(1, min(most, samples // _LEAST_SAMPLES))
    length = max(1, -(-samples // (parts * batch))) * batch
    return [(start, start + length) for start in range(0, max(1, samples), length)]
