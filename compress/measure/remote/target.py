"""Remote targets: another device with onnxruntime on its CPU, by whichever shell leads to it.

Each kind is a file with its shell, its settings and its target, and a line in
:mod:`compress.measure.recipe_targets`.

Nothing has to be installed there but Python, numpy and onnxruntime. A session is a folder for the
program that devices run (:mod:`compress.measure.program`), which times on the device's own clock
with nobody listening; see :mod:`.device` for how it gets there and back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field

from compress.artifact import Lowering
from compress.config.fields import LONGEST_S, MOST_THREADS, Number, Whole
from compress.errors import MeasurementError
from compress.io.scratch import scratch
from compress.measure.local import LocalTarget
from compress.measure.machine import saturates
from compress.measure.ondevice.runtimes import RUNTIMES
from compress.measure.open_sizes import Batch, OpenSizes
from compress.measure.program import PROGRAM, write_program
from compress.measure.raw_samples import RawLog
from compress.measure.remote.device import Line, Location, RemoteDevice, SessionFiles
from compress.measure.remote.shell import Shell
from compress.measure.session import SessionResult, read_session, write_session
from compress.measure.target import Array, BenchmarkConfig, Failure, Timing
from compress.measure.target_kind import TargetKind

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import FitAnswer
    from compress.measure.ondevice.loop import Settings

__all__ = ["FOLDER_PATTERN", "RemoteSettings", "RemoteTarget"]


# A recipe may be a stranger's: it can name a Python on the device, and no other program.
_PYTHON = r"^(~?/)?([A-Za-z0-9_.+][A-Za-z0-9_.+-]*/)*(python|pypy)[0-9.]*$"
FOLDER_PATTERN = r"^~?(/\.?[A-Za-z0-9_+@][A-Za-z0-9_.+@-]*)+$"

_MARGIN_S = 60


class RemoteSettings(OpenSizes, TargetKind):
    """What the blocks of all kinds of remote target say."""

    options: ClassVar[tuple[str, ...]] = ("python", "folder")

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Literal["onnxruntime"] = "onnxruntime"
    """What runs the file on the device."""
    threads: Whole = Field(default=1, ge=1, le=MOST_THREADS)
    """Threads of one operator."""
    batch: Batch = 1
    """Samples of one inference, for models that do not fix it; ``any`` makes files that take any
    number of them."""
    python: str = Field(default="python3", pattern=_PYTHON, max_length=1000)
    """A Python on the device that has numpy and onnxruntime, by name or path."""
    folder: str = Field(default="~/.cache/compresskit", pattern=FOLDER_PATTERN, max_length=1000)
    """A folder of its own on the device, for models and samples."""
    timeout_s: Number = Field(default=600, gt=0, le=LONGEST_S)
    """The longest that one process there may take, and that a broken link is tried again."""


class RemoteTarget(RemoteSettings):
    """What targets on other devices share; a :class:`~compress.measure.target.Target`."""

    name: str = "remote"

    @abstractmethod
    def shell(self) -> Shell:
        """A new way onto the device."""
        ...

    def contact(self) -> dict[str, Any]:
        """Versions of ``python`` and ``libraries`` there, ``folder``, ``free_bytes``.

        Raises:
            MeasurementError: the device cannot be reached, or has no such Python.
        """
        with self.shell() as shell:
            return self._device(shell).hello()

    def lowering(self) -> Lowering:
        """Weights on the narrower grid where the device's int8 kernels would saturate.

        Raises:
            MeasurementError: the device cannot be asked.
        """
        device, state = self._known["device"], self._known["state"]
        avoid = saturates(arch=device["arch"], system=state["system"], flags=device["isa"])
        return Lowering(
            batch=self.run_batch,
            avoid_saturation=avoid,
            refused=self.refused_formats,
            open=self.open,
        )

    @property
    def refused_formats(self) -> tuple[tuple[str, str], ...]:
        """The formats that the runtime does not compute, whatever the device."""
        return RUNTIMES[self.runtime].refused_formats

    def environment(self) -> dict[str, Any]:
        """``device_id`` and ``state_id``, what they are made of, and the load right now.

        Raises:
            MeasurementError: the device cannot be reached, or has no onnxruntime.
        """
        return self._session([], None)[0].environment

    def predict(self, model: Path, inputs: Mapping[str, Array]) -> list[Array]:
        """The model's outputs for every sample, at this target's batch.

        Raises:
            MeasurementError: the device cannot load or run the model; carries its words.
        """
        self._check_threads()
        with scratch() as folder:
            result, _ = self._session([model], None, inputs, Path(folder))
            (outputs,) = result.outputs
            if outputs.error is not None:
                raise MeasurementError(outputs.error)
            return [np.load(Path(folder) / file.name, allow_pickle=False) for file in outputs.files]

    def measure(
        self, models: Sequence[Path], config: BenchmarkConfig, raw: Path | None = None
    ) -> list[Timing | Failure]:
        """Time ``models`` on the device in interleaved rounds, against the first one.

        ``raw`` gets the session's lines once they are all here. A session that was cut short goes
        on; one whose results were returned is measured anew.

        Raises:
            MeasurementError: the device cannot be reached, is busy, or cannot measure.
            StorageError: ``raw`` cannot be written.
        """
        self._check_threads()
        there = [model for model in models if model.is_file()]
        timings: list[Timing | Failure] = []
        if there:
            result, lines = self._session(there, config)
            timings = result.timings
            self._keep(raw, lines)
        return _placed(models, there, timings)

    def fit(self, model: Path, settings: Settings) -> FitAnswer:
        """Whether and with which sizes the model runs, which is tried on this machine.

        Raises:
            MeasurementError: onnxruntime here cannot load the model; carries its words.
        """
        return LocalTarget(batch=self.run_batch).fit(model, settings)

    def _session(
        self,
        models: Sequence[Path],
        config: BenchmarkConfig | None,
        inputs: Mapping[str, Array] | None = None,
        outputs: Path | None = None,
    ) -> tuple[SessionResult, list[Line]]:
        """One session from beginning to end; its output files go to ``outputs``."""
        with scratch() as folder, self.shell() as shell:
            write_session(
                Path(folder),
                models,
                config,
                threads=self.threads,
                batch=self.run_batch,
                inputs_for_predict=inputs,
                timeout_s=self.timeout_s,
            )
            write_program(Path(folder) / PROGRAM)
            session = SessionFiles.of(Path(folder))
            device = self._device(shell)
            device.prepare()
            lines = list(device.run(session, self._limit_s(inputs or {})))
            if outputs is not None:
                device.outputs(session, outputs)
            device.settle(session)
        return read_session(lines, models), lines

    def _device(self, shell: Shell) -> RemoteDevice:
        met = "_known" in vars(self)
        return RemoteDevice(shell, Location(self.folder, self.python), self.timeout_s, met)

    def _limit_s(self, inputs: Mapping[str, Array]) -> float:
        # As the program: a thousand samples may take what a process may.
        samples = max((len(array) for array in inputs.values()), default=0)
        return self.timeout_s * max(1.0, samples / 1000) + _MARGIN_S

    def _keep(self, raw: Path | None, lines: Sequence[Line]) -> None:
        with RawLog(raw) as log:
            for line in lines:
                own = {"target": self.model_dump(mode="json")} if line["kind"] == "session" else {}
                log.write({**line, **own})

    @cached_property
    def _known(self) -> dict[str, Any]:
        # Asked once: what a device is does not change, and every row wants to know.
        return self.environment()

    def _check_threads(self) -> None:
        if self.threads == 1:
            return
        state = self._known["state"]
        usable = len(state["affinity"])
        if state["cpu_limit"] is not None:
            usable = max(1, min(usable, int(np.ceil(state["cpu_limit"]))))
        if self.threads > usable:
            raise MeasurementError(
                f"{self.shell().where}: threads is {self.threads}, but a process there may use "
                f"{usable} core(s) (affinity and container limit counted); lower threads."
            )


def _placed(
    models: Sequence[Path], there: Sequence[Path], timings: Sequence[Timing | Failure]
) -> list[Timing | Failure]:
    """An outcome for each model: those that are no files never went to the device."""
    outcomes = iter(timings)
    placed = [
        next(outcomes) if model in there else Failure(f"{model}: there is no such file.")
        for model in models
    ]
    if there and models[0] not in there:
        note = f"the baseline {models[0]} is no file; speed-ups are against {there[0]}"
        placed = [
            replace(one, warnings=(note, *one.warnings)) if isinstance(one, Timing) else one
            for one in placed
        ]
    return placed
