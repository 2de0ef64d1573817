"""What a model is fed: samples that a job gives, or inputs drawn to its signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compress.measure.ondevice.drawn_inputs import FEEDS, DrawnInputs
from compress.measure.ondevice.jobs import JobError
from compress.measure.ondevice.tensor_spec import TensorSpec, specs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.runtimes.base import InferenceSession
    from compress.measure.ondevice.tensor_spec import Array, Feed

__all__ = ["GivenInputs", "rotation_of", "shapes_of"]


class GivenInputs:
    """Batches of a model's inputs, cut from arrays whose rows are samples.

    An array with one axis more than its input belongs to an input without a batch axis; it is fed
    one row at a time.
    """

    def __init__(self, session: InferenceSession, job: WorkerJob) -> None:
        self.specs = specs_of(session.get_inputs())
        self.arrays = self._arrays(job.get("inputs") or {})
        self.single = {p.name for p in self.specs if self.arrays[p.name].ndim == len(p.shape) + 1}
        self.batch = self._batch(int(job.get("batch", 1)))
        lengths = {name: len(array) for name, array in self.arrays.items()}
        self.samples = min(lengths.values(), default=1)
        if len(set(lengths.values())) > 1 or self.samples == 0:
            raise JobError(f"inputs need the same number of samples, at least one; got {lengths}.")

    def _batch(self, wanted: int) -> int:
        """The batch that the model fixes, or else ``wanted``; 1 if an input has no batch axis."""
        fixed = sorted({p.shape[0] for p in self.specs if p.name not in self.single and p.shape[0]})
        if len(fixed) > 1:
            raise JobError(f"the model's inputs fix different batch sizes: {fixed}.")
        if self.single and fixed not in ([], [1]):
            raise JobError(
                f"the input {min(self.single)!r} has no batch axis, yet another fixes a batch of "
                f"{fixed[0]}."
            )
        if self.single:
            return 1
        return fixed[0] if fixed else wanted

    def _arrays(self, given: dict[str, str]) -> dict[str, Array]:
        if list(given) == [""] and len(self.specs) == 1:
            given = {self.specs[0].name: given[""]}
        missing = [spec.name for spec in self.specs if spec.name not in given]
        if missing:
            raise JobError(
                f"the model's input {missing[0]!r} was not given; given are {sorted(given)}."
            )
        return {spec.name: self._load(spec, given[spec.name]) for spec in self.specs}

    @staticmethod
    def _load(spec: TensorSpec, path: str) -> Array:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim - len(spec.shape) not in (0, 1) or array.ndim == 0:
            raise JobError(
                f"the input {spec.name!r} takes {spec.declared()}; got samples {array.shape}."
            )
        return spec.taken(array)

    def take(self, rows: Array) -> Feed:
        """One batch: the samples with these row numbers."""
        feed = {}
        for spec in self.specs:
            chosen = rows[0] if spec.name in self.single else rows
            feed[spec.name] = np.array(self.arrays[spec.name][chosen], spec.dtype, order="C")
        return feed

    def rotation(self, most: int) -> list[Feed]:
        """Up to ``most`` different batches, spread over the samples."""
        count = min(most, self.samples)
        starts = [i * self.samples // count for i in range(count)]
        return [self.take((start + np.arange(self.batch)) % self.samples) for start in starts]


def rotation_of(
    session: InferenceSession, job: WorkerJob, most: int = FEEDS
) -> tuple[int, list[Feed]]:
    """The batch of a run, and up to ``most`` different inputs to rotate over."""
    if job.get("inputs"):
        given = GivenInputs(session, job)
        return given.batch, given.rotation(most)
    drawn = DrawnInputs(session, job)
    return drawn.batch, drawn.rotation(most)


def shapes_of(rotation: Sequence[Feed]) -> dict[str, list[int]]:
    """Sizes of the inputs of one run, by their names."""
    return {name: list(array.shape) for name, array in rotation[0].items()}
