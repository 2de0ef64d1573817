"""Target: a device and a runtime that can run, score and time an artifact.

One seam with two methods; everything hard (processes, rounds, remote shells) hides behind it.
``ReplayTarget`` is the test double and ships with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from compress.artifact import Lowering
from compress.backends import ONNX, Backend
from compress.errors import RecipeError
from compress.record import (
    Energy,
    Executed,
    Latency,
    MeasuredQuantity,
    Measurement,
    Memory,
    Speedup,
)

__all__ = [
    "Array",
    "BenchmarkConfig",
    "Failure",
    "Mode",
    "Shapes",
    "Target",
    "Timing",
    "backend_of",
    "refused_formats",
]

#: Numbers of any type and shape.
Array = np.ndarray[Any, Any]
Mode = Literal["quick", "default", "strict"]
#: Sizes of inputs, by their name.
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure with: real inputs, and how hard to try.

    ``inputs`` are arrays whose first axis counts samples, by the model's input name or, for a
    single input, under the empty name. ``seed`` fixes the order of rounds.

    Without ``inputs`` they are drawn to each model's own signature, also from ``seed``: with the
    ``shapes`` of a model's inputs, and ``values`` for those whose whole content is known, by name.
    """

    inputs: Mapping[str, Array]
    mode: Mode = "default"
    seed: int = 0
    shapes: Mapping[Path, Shapes] = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """One configuration; ``speedup`` is paired against the first one of the session.

    ``shapes`` are those of the inputs that it was timed with, where the target tells them;
    ``quantities`` has what was measured beyond the blocks, by the names of
    :mod:`compress.measure.quantities`.
    """

    latency: Latency
    speedup: Speedup
    memory: Memory | None
    warnings: tuple[str, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)
    executed: Executed | None = None
    energy: Energy | None = None
    shapes: Shapes = field(default_factory=dict)
    quantities: Mapping[str, MeasuredQuantity] = field(default_factory=dict)

    def note_in(self, measurement: Measurement) -> None:
        """Put what was measured, all but the speedup and the warnings, into ``measurement``."""
        measurement.latency, measurement.memory = self.latency, self.memory
        measurement.energy, measurement.quantities = self.energy, dict(self.quantities)


@dataclass(frozen=True)
class Failure:
    """One configuration that could not be measured: ``error`` says why in a sentence."""

    error: str


@runtime_checkable
class Target(Protocol):
    """A device and a runtime."""

    @property
    def name(self) -> str:
        """Unique within a record."""
        ...

    @property
    def runtime(self) -> str:
        """As in ``onnxruntime``."""
        ...

    def lowering(self) -> Lowering:
        """The encoding that this device wants."""
        ...

    def environment(self) -> dict[str, Any]:
        """Fingerprint and state of the device."""
        ...

    def predict(self, model: Path, inputs: Mapping[str, Array]) -> list[Array]:
        """The model's outputs for every sample, in order, each with the samples on axis 0.

        Raises:
            MeasurementError: the runtime cannot load or run the model; carries its words.
        """
        ...

    def measure(
        self, models: Sequence[Path], config: BenchmarkConfig, raw: Path | None = None
    ) -> list[Timing | Failure]:
        """Time ``models`` in interleaved rounds, the first being the baseline of the ratios.

        Raw samples are appended to ``raw`` as JSON lines. A model that fails is a :class:`Failure`
        in its place; the others are still measured.
        """
        ...


def backend_of(target: Target) -> Backend:
    """What makes the files that a target runs: its own ``backend``; ONNX where it names none.

    Raises:
        RecipeError: what it names is no backend.
    """
    own = getattr(target, "backend", ONNX)
    if isinstance(own, type) or not isinstance(own, Backend):
        given = f"the class {own.__name__}" if isinstance(own, type) else type(own).__name__
        raise RecipeError(
            f"target {target.name!r}: its backend is an object with the attributes and methods of "
            f"compress.backends.Backend, such as compress.backends.ONNX; got {given}."
        )
    return own


def check_settings(target: Target) -> None:
    """Have a target look at its own settings before anything runs: its ``check_settings()``.

    Raises:
        MeasurementError: they cannot be had on this machine.
    """
    check: Callable[[], None] | None = getattr(target, "check_settings", None)
    if check is not None:
        check()


def refused_formats(target: Target) -> tuple[tuple[str, str], ...]:
    """The formats that the target's runtime does not compute, each with what it does instead.

    A target that knows them without its device has them as ``refused_formats``; of any other they
    are those of its ``lowering()``.
    """
    known: tuple[tuple[str, str], ...] | None = getattr(target, "refused_formats", None)
    return target.lowering().refused if known is None else known
