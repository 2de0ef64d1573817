"""Inputs drawn at random to what a model's file says of its inputs."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from compress.measure.ondevice.jobs import JobError
from compress.measure.ondevice.tensor_spec import TensorSpec, pairs, specs_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.runtimes.base import InferenceSession
    from compress.measure.ondevice.tensor_spec import Array, Feed

    OpenShapes = dict[str, list[int | None]]

__all__ = ["FEEDS", "FEEDS_BYTES", "DrawnInputs"]

FEEDS = 8  # distinct batches to rotate over, so that no single sample's branches decide the time
FEEDS_BYTES = 2**28  # fewer are drawn where they would take more
_LENGTH, _SIDE, _CHANNELS = 16, 224, (3, 1, 4)  # the last two of an image
_SHORT_VECTOR = 8


class DrawnInputs:
    """Inputs drawn for a model of which no more is known than its signature.

    A size is what the job gives for it, by ``values`` or ``shapes``; else what the file fixes; else
    that of an axis of the same name, or what a name such as ``past + 1`` comes to; else the job's
    ``batch`` where :func:`_batch_axes` sees one; else ``guess``, or the usual guess if that is 0.
    ``shapes`` are by name, and so are ``guessed``, which are axes. Optional inputs are left out
    unless the job gives something for them.
    """

    def __init__(self, session: InferenceSession, job: WorkerJob, guess: int = 0) -> None:
        given, values = dict(job.get("shapes") or {}), job.get("values") or {}
        self.specs = [
            spec
            for spec in specs_of(session.get_inputs())
            if not spec.type.startswith("optional(") or spec.name in {**given, **values}
        ]
        self.values = {
            p.name: _complete_input(p, values[p.name]) for p in self.specs if p.name in values
        }
        given.update((name, list(array.shape)) for name, array in self.values.items())
        self.guessed: dict[str, list[int]] = {}
        axes = {name: sizes[0] for name, sizes in given.items() if len(sizes) == 1}
        shapes = {spec.name: _given_shape(spec, given.get(spec.name)) for spec in self.specs}
        batch_axes = _batch_axes(self.specs)
        self.shapes = self._settled(shapes, axes, batch_axes, int(job.get("batch", 1)), guess)
        self.batch = _batch_of(self.shapes, batch_axes)
        self._seed = job.get("seed", 0)

    def _settled(
        self,
        shapes: OpenShapes,
        axes: dict[str, int],
        batch_axes: set[tuple[str, int]],
        batch: int,
        guess: int,
    ) -> dict[str, list[int]]:
        """``shapes`` with a size for every open axis, given those of some named ``axes``."""
        for spec in self.specs:
            named = pairs(spec.axes, shapes[spec.name])
            axes.update((name, size) for name, size in named if name and size is not None)
        for spec, axis in _open_axes(self.specs):
            name, size = spec.axes[axis], shapes[spec.name][axis]
            if size is None:
                size = _worked_out(name, axes)
            if size is None and (spec.name, axis) in batch_axes:
                size = batch
            elif size is None:
                size = _guess(spec, axis, guess)
                self.guessed.setdefault(spec.name, []).append(axis)
            shapes[spec.name][axis] = size
            if name:
                axes.setdefault(name, size)
        return {
            name: [size for size in sizes if size is not None] for name, sizes in shapes.items()
        }

    @property
    def feed_bytes(self) -> int:
        """Of the inputs of one run."""
        return sum(math.prod(self.shapes[p.name]) * p.dtype.itemsize for p in self.specs)

    def rotation(self, most: int) -> list[Feed]:
        """Up to ``most`` different inputs for a run."""
        rng = np.random.default_rng(self._seed)
        drawn = [spec for spec in self.specs if spec.name not in self.values]
        count = max(1, min(most, FEEDS_BYTES // max(1, self.feed_bytes)))
        return [
            {**{p.name: _draw(p, self.shapes[p.name], rng) for p in drawn}, **self.values}
            for _ in range(count)
        ]


def _complete_input(spec: TensorSpec, path: str) -> Array:
    return np.array(spec.taken(np.load(path, allow_pickle=False)), spec.dtype, order="C")


def _given_shape(spec: TensorSpec, sizes: Sequence[int] | None) -> list[int | None]:
    """A new shape: the file's, or one that fits it."""
    if sizes is None:
        return list(spec.shape)
    fits = len(sizes) == len(spec.shape) and all(
        fixed in (None, size) for fixed, size in pairs(spec.shape, sizes)
    )
    if spec.shape and not fits:
        given = "x".join(map(str, sizes)) or "a scalar"
        raise JobError(f"the input {spec.name!r} takes {spec.declared()}; got {given}.")
    return list(sizes)


def _open_axes(specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, int]]:
    """Inputs and axes; names that are made of others come last."""
    found = [(p, axis) for p in specs for axis, size in enumerate(p.shape) if size is None]
    return sorted(found, key=lambda place: bool(re.search("[+*]", place[0].axes[place[1]])))


def _worked_out(name: str, known: Mapping[str, int]) -> int | None:
    """The size of an axis by its name: itself known, or a sum of products of what is."""
    if name in known:
        return known[name]
    terms = [term.split("*") for term in name.replace(" ", "").split("+")]
    try:
        return sum(math.prod(int(f) if f.isdigit() else known[f] for f in term) for term in terms)
    except KeyError:
        return None


def _batch_axes(specs: Sequence[TensorSpec]) -> set[tuple[str, int]]:
    """Open axes that count samples, by the name of the input.

    They are called so, or else come first, and so are others of their name. Without a name it is
    the first open axis, if an open one comes first here or in another input: the state of a
    recurrent model often has its layers before its batch.
    """
    places = _open_axes(specs)
    first = {spec.axes[0] for spec in specs if spec.shape[:1] == [None]}
    names = {spec.axes[axis] for spec, axis in places}
    called = {name for name in names if "batch" in name.lower()} or first
    return {
        (spec.name, axis)
        for spec, axis in places
        if (
            spec.axes[axis] in called
            if spec.axes[axis]
            else first and axis == spec.shape.index(None)
        )
    }


def _batch_of(shapes: Mapping[str, Sequence[int]], batch_axes: set[tuple[str, int]]) -> int:
    """How many samples a run has: without an open batch axis, a first size that all inputs have."""
    if batch_axes:
        name, axis = min(batch_axes)
        return shapes[name][axis]
    tables = [shape for shape in shapes.values() if len(shape) > 1]
    return tables[0][0] if tables and all(tables[0][0] in shape for shape in tables) else 1


def _guess(spec: TensorSpec, axis: int, guess: int) -> int:
    """A length; of what may be an image, a side or the number of channels."""
    if len(spec.shape) != 4 or spec.dtype.kind not in "fu":
        return guess or _LENGTH
    channels = 3 if spec.shape[3] in _CHANNELS and spec.shape[1] not in _CHANNELS else 1
    if axis == channels:
        return _CHANNELS[0]
    sides = {1, 2, 3} - {channels}
    image = spec.shape[channels] in (None, *_CHANNELS) or all(spec.shape[s] is None for s in sides)
    return guess or (_SIDE if image and axis in sides else _LENGTH)


def _draw(spec: TensorSpec, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Standard normal floats, pixels for uint8, else zeros and ones: ids, masks and flags alike.

    A scalar is 1, and so are the numbers of a short vector: they may be a shape, or scales.
    """
    if spec.dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    if len(shape) < 2 and math.prod(shape) <= _SHORT_VECTOR:
        return np.ones(shape, spec.dtype)
    if spec.dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(spec.dtype)
    return rng.integers(0, 256 if spec.dtype == np.uint8 else 2, shape).astype(spec.dtype)
