"""Row timing: the sessions in which rows are timed beside the baseline.

Rows that come before the baseline wait for it, and are timed in its session: one of their own would
time the baseline once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.io.atomic import write_atomically
from compress.measure.open_sizes import MeasuredSize, Sized, size_timing, sizes_of
from compress.measure.target import Array, BenchmarkConfig, Failure, Mode, Target, Timing
from compress.record import Measurement

__all__ = ["RowModel", "RowTiming"]


@dataclass(frozen=True)
class RowModel:
    """The file of a row on a target; ``raw`` is where the samples of its session go."""

    index: int
    path: Path
    raw: Path


class RowTiming:
    """Times the models of rows; ``inputs`` gives the samples to time with.

    Args:
        mode: how hard to measure.
        seed: of the order of rounds, with the row's index.
        inputs: is asked for the samples when something is timed.
    """

    def __init__(self, mode: Mode, seed: int, inputs: Callable[[], Mapping[str, Array]]) -> None:
        self._mode: Mode = mode
        self._seed = seed
        self._inputs = inputs
        # What the baseline's session found of other rows, until they ask for it.
        self._found: dict[tuple[int, str, str], list[Timing | Failure]] = {}

    def timings(
        self,
        model: RowModel,
        baseline: RowModel,
        target: Target,
        measurement: Measurement,
        beside: Sequence[RowModel] = (),
    ) -> list[Timing | Failure]:
        """The timings of the baseline and, last, of ``model``, which may be the same.

        Those at every size of open files go into ``measurement``. The models ``beside`` are timed
        in the same session, and have no other when they are asked for.
        """
        first, *others = sizes_of(target) or (None,)
        timings = self._at(first, target, model, baseline, beside)
        if first is not None:
            assert isinstance(target, Sized)
            measurement.sizes.append(size_timing(first, timings))
            for size in others:
                assert size is not None
                found = self._at(size, target.at(size), model, baseline, beside, size.name)
                measurement.sizes.append(size_timing(size, found))
                if isinstance(found[-1], Failure):
                    measurement.warnings.append(f"at {size.name}: {found[-1].error}")
        return timings

    def _at(
        self,
        size: MeasuredSize | None,
        target: Target,
        model: RowModel,
        baseline: RowModel,
        beside: Sequence[RowModel],
        name: str = "",
    ) -> list[Timing | Failure]:
        if found := self._found.pop((model.index, target.name, name), None):
            return found
        inputs = self._inputs()
        given = inputs if size is None else size.cut(inputs)
        config = BenchmarkConfig(given, self._mode, self._seed + model.index)
        own = [] if model.index == baseline.index else [model]
        models, raw = [baseline, *own, *beside], _raw(model, name)
        raw.unlink(missing_ok=True)  # samples of what was measured before
        timings = target.measure([each.path for each in models], config, raw)
        for other, timing in zip(beside, timings[1 + len(own) :], strict=True):
            self._found[other.index, target.name, name] = [timings[0], timing]
            if raw.exists():
                write_atomically(_raw(other, name), raw.read_bytes())
        return timings[: 1 + len(own)]


def _raw(model: RowModel, size: str) -> Path:
    return model.raw.with_stem(f"{model.raw.stem}-{size}") if size else model.raw
