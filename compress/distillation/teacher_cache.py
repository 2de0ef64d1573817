"""The teacher cache: where seeded epochs repeat, the teacher's outputs are computed once.

Outputs, with the features that losses compare, are kept in the stage's folder under a key of all
that they depend on: the teacher, the data, the order and augmentation of epochs. With every batch
goes a checksum of the teacher's inputs, which is compared with that of the student's inputs
whenever the batch is read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from compress.config.fields import Whole
from compress.config.settings import Settings
from compress.distillation.batch_checksum import batch_checksum
from compress.distillation.cache_files import Array, ArraySpec, EpochArrays
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import (
    LossFunction,
    ModelOutputs,
    RequiredOutputs,
    teacher_forward,
)
from compress.distillation.teachers import LabelTeacher, identity_of
from compress.errors import DataError, StageError, StorageError
from compress.events import StageProgress, StageWarning
from compress.modules.inputs import device_of, to_device
from compress.modules.memory_format import laid_out
from compress.modules.outputs import Outputs
from compress.training.data import Batch, SeededEpochs
from compress.training.lengths import cut_inputs, padded_length

__all__ = ["CacheSettings", "TeacherCache", "TeacherForward", "cached_teacher"]

#: The teacher's outputs for a batch.
TeacherForward = Callable[[Batch], ModelOutputs]

_OUTPUTS = "outputs"
_LARGEST_FLOAT16 = 65504.0
_LARGEST_MIB = 2**30  # 1 PiB
_INTEGER = "int32"


class CacheSettings(Settings):
    """How a teacher's outputs are cached where ``views`` repeat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the numbers on disk; ``float16`` takes half of the room."""
    most_mib: Whole = Field(default=2048, ge=1, le=_LARGEST_MIB)
    """The most that the cached outputs may take on disk; where they would take more, the stage ends
    with an error before it trains."""


def cached_teacher(
    context: DistillationContext,
    losses: Sequence[LossFunction],
    data: SeededEpochs,
    distinct_epochs: int | None,
    settings: CacheSettings | None,
) -> TeacherForward:
    """The teacher by batch; where seeded epochs repeat, its outputs are computed once and cached.

    Args:
        context: has the teacher.
        losses: say what of its outputs is needed.
        data: the batches that it will be called with.
        distinct_epochs: how many epoch seeds there are; ``None`` where none repeats.
        settings: of the cache; ``None`` for the defaults.

    Raises:
        StageError: the outputs would take more than they may; or, when called, cannot be cached.
        StorageError: they would not fit on the disk.
    """
    teacher, required = context.teacher, RequiredOutputs.of(losses)
    assert teacher is not None
    # Labels come with each batch.
    if distinct_epochs is None or required.is_empty or isinstance(teacher, LabelTeacher):
        return lambda batch: teacher_forward(teacher, batch, required)
    cache = TeacherCache(context, losses, data, distinct_epochs, settings)
    cache.check_room()
    cache.remove_others()
    return cache


class TeacherCache:
    """A teacher's outputs for seeded epochs that repeat; see the module's docstring.

    Args:
        context: has the teacher.
        losses: say what of its outputs is needed.
        data: the batches that it will be called with.
        distinct_epochs: how many epoch seeds there are.
        settings: of the cache; ``None`` for the defaults.

    Raises:
        StageError: the teacher's outputs for a few samples are not usable.
    """

    def __init__(
        self,
        context: DistillationContext,
        losses: Iterable[LossFunction],
        data: SeededEpochs,
        distinct_epochs: int,
        settings: CacheSettings | None,
    ) -> None:
        assert context.teacher is not None
        self._context, self._teacher = context, context.teacher
        self._data, self._distinct_epochs = data, distinct_epochs
        self._required = RequiredOutputs.of(losses)
        extra = (one.name for one in self._required.extra_outputs)
        self._features = (*self._required.layers, *extra)
        self._settings = settings or CacheSettings()
        example = teacher_forward(self._teacher, context.example, self._required)
        self._outputs = tuple(example.named) if self._required.outputs else ()
        self._dtypes = {name: tensor.dtype for name, tensor in self._named(example)}
        self._specs = {
            name: ArraySpec(tuple(tensor.shape[1:]), self._dtype_on_disk(tensor))
            for name, tensor in self._named(example)
        }
        self._axes = self._axes_of_length()
        self._root = _root_of(context.stage.workdir, data)
        key = self._key(example)
        self._folder = self._root / key
        self._arrays = EpochArrays(self._folder, key, self._specs, data.batch_sizes())

    @property
    def nbytes(self) -> int:
        """Bytes on disk for all seeded epochs."""
        return self._distinct_epochs * self._epoch_bytes

    def check_room(self) -> None:
        """Refuse outputs that would not fit, before any is computed.

        Raises:
            StageError: they would take more than ``most_mib``.
            StorageError: they would take more than the disk has free.
        """
        what = "outputs and features" if self._features else "outputs"
        subject = (
            f"the teacher's {what} for {self._distinct_epochs} views would take "
            f"{_size(self.nbytes)}"
        )
        cure = "set fewer views, or views: null to run the teacher in every epoch."
        if self._settings.dtype == "float32":
            cure = f"set cache: {{dtype: float16}}, {cure}"
        if self.nbytes > self._settings.most_mib << 20:
            limit = _size(self._settings.most_mib << 20)
            raise StageError(f"{subject} of disk; the limit cache.most_mib is {limit}: {cure}")
        missing = sum(seed not in self._arrays for seed in range(self._distinct_epochs))
        free = _free_bytes(self._root, self._folder)
        if missing * self._epoch_bytes > free:
            raise StorageError(f"{subject}, and {self._root} has {_size(free)} free: {cure}")

    def remove_others(self) -> None:
        """Remove what was cached for other teachers or data, so that it never piles up."""
        for other in _others(self._root, self._folder):
            shutil.rmtree(other, ignore_errors=True)

    def __call__(self, batch: Batch) -> ModelOutputs:
        """The teacher's outputs for a batch of one of the seeded epochs.

        They are computed for all batches of its epoch where they are not cached, or are damaged.

        Raises:
            DataError: the data differ when the same epoch seed is used again.
            StageError: outputs that cannot be cached.
            StorageError: they could not be written.
        """
        checksum, report = batch_checksum(batch.inputs), self._context.stage.report
        arrays: Mapping[str, Array] | None = None
        try:
            arrays = self._arrays.read(batch.epoch_seed, batch.index, checksum)
        except DataError as damage:
            text = f"{str(damage).rstrip('.')}; the teacher's outputs are computed again."
            report(StageWarning(text))
        if arrays is None:
            view, views = batch.epoch_seed + 1, self._distinct_epochs
            report(StageProgress("running the teacher, view", view, views))
            self._arrays.write(batch.epoch_seed, self._computed(batch))
            arrays = self._read_back(batch, checksum)
        device = device_of(batch.inputs)
        tensors = {
            name: torch.from_numpy(self._cut(name, array, batch)).to(device, self._dtypes[name])
            for name, array in arrays.items()
        }
        rows = len(next(iter(arrays.values())))
        every: Outputs = torch.empty(rows, 0, device=device)
        if self._outputs:
            named = {name: tensors.pop(self._array_name(name)) for name in self._outputs}
            every = named if len(named) > 1 else next(iter(named.values()))
        return ModelOutputs(every, dict(zip(self._features, tensors.values(), strict=True)))

    def _read_back(self, batch: Batch, checksum: str) -> Mapping[str, Array]:
        try:
            arrays = self._arrays.read(batch.epoch_seed, batch.index, checksum)
        except DataError as error:
            raise DataError(
                f"the training data of task {self._context.stage.task.name!r} are other ones when "
                "the same view is read again, so that teacher and student would not see the same: "
                "all randomness must come from the generator that `augment` is given; or set "
                "views: null."
            ) from error
        assert arrays is not None
        return arrays

    @property
    def _epoch_bytes(self) -> int:
        return sum(self._data.batch_sizes()) * sum(spec.nbytes for spec in self._specs.values())

    def _computed(self, like: Batch) -> Iterator[tuple[str, dict[str, Array]]]:
        """Checksum and arrays of every batch of the epoch that ``like`` is of."""
        for batch in self._data.batches(like.epoch_seed):
            shown = _laid_out(batch, like)
            outputs = teacher_forward(self._teacher, shown, self._required)
            arrays = {name: self._array(name, tensor) for name, tensor in self._named(outputs)}
            yield batch_checksum(shown.inputs), arrays

    def _named(self, outputs: ModelOutputs) -> Iterator[tuple[str, Tensor]]:
        named = outputs.named
        for name in self._outputs:
            # The only one may have any name.
            given = next(iter(named.values())) if len(named) == 1 else named.get(name)
            if given is None or len(named) != len(self._outputs):
                raise StageError(
                    f"the teacher gives {', '.join(self._outputs)} for one batch and "
                    f"{', '.join(named)} for another, which cannot be cached; set views: null to "
                    "run the teacher in every epoch."
                )
            yield self._array_name(name), given
        # Features are numbered: their names may hold what a file's may not.
        for number, name in enumerate(self._features):
            if name not in outputs.features:
                raise StageError(
                    f"the teacher's layer {name!r} did not run for some batch, so that its "
                    "features cannot be cached; set views: null to run the teacher in every epoch."
                )
            yield f"feature-{number}", outputs.features[name]

    def _array_name(self, output: str) -> str:
        """Of an output; numbered where there are several, as features are."""
        if len(self._outputs) == 1:
            return _OUTPUTS
        return f"output-{self._outputs.index(output)}"

    def _words(self, array: str) -> str:
        """An array, for a sentence."""
        names = {self._array_name(name): f"outputs {name!r}" for name in self._outputs}
        return array if len(names) < 2 else names.get(array, array)

    def _axes_of_length(self) -> Mapping[str, int]:
        """The axis of each array, without that of samples, that is as long as the inputs are.

        Only where batches are cut to their longest text: then shorter ones are filled up on disk.
        """
        example = self._context.example
        padded = padded_length(example.inputs) if self._data.by_length else None
        if padded is None or padded < 2:
            return {}
        cut_example = replace(example, inputs=cut_inputs(example.inputs, padded, padded - 1))
        shorter = teacher_forward(self._teacher, cut_example, self._required)
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in self._named(shorter)}
        return {
            name: axis
            for name, shape in shapes.items()
            for axis, sizes in enumerate(zip(shape, self._specs[name].shape, strict=True))
            if sizes == (padded - 1, padded)
        }

    def _cut(self, name: str, array: Array, batch: Batch) -> Array:
        length = padded_length(batch.inputs)
        if name not in self._axes or length is None:
            return array
        return np.ascontiguousarray(
            array[(slice(None),) * (1 + self._axes[name]) + (slice(length),)]
        )

    def _filled(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._axes:
            return tensor
        axis, size = self._axes[name], self._specs[name].shape[self._axes[name]]
        missing = [0, 0] * (tensor.dim() - 2 - axis) + [0, size - tensor.shape[1 + axis]]
        return torch.nn.functional.pad(tensor, missing)

    def _dtype_on_disk(self, tensor: Tensor) -> str:
        # Integers, such as tokens, must not be rounded.
        return self._settings.dtype if tensor.is_floating_point() else _INTEGER

    def _array(self, name: str, tensor: Tensor) -> Array:
        tensor = self._filled(name, tensor)
        if tuple(tensor.shape[1:]) != self._specs[name].shape:
            raise StageError(
                f"the teacher's {self._words(name)} are {self._specs[name].shape} for one sample "
                f"and {tuple(tensor.shape[1:])} for another, which cannot be cached; set views: "
                "null to run the teacher in every epoch."
            )
        if self._specs[name].dtype == _INTEGER:
            return tensor.detach().cpu().numpy().astype(_INTEGER)
        values = tensor.detach().to("cpu", torch.float32)
        if self._settings.dtype == "float16" and values.numel():
            largest = float(values.abs().max())
            if largest > _LARGEST_FLOAT16:
                raise StageError(
                    f"the teacher's {self._words(name)} reach {largest:.3g}, and float16 ends at "
                    f"{_LARGEST_FLOAT16:g}; set cache: {{dtype: float32}}."
                )
        return values.numpy().astype(self._settings.dtype)

    def _key(self, example: ModelOutputs) -> str:
        """Identifies all that the outputs depend on; data are compared by checksums of batches."""
        digest = hashlib.blake2b(digest_size=16)
        data = self._data
        facts = {
            "teacher": identity_of(self._teacher),
            "features": list(self._features),
            "specs": {name: [spec.shape, spec.dtype] for name, spec in self._specs.items()},
            "content": self._context.stage.teacher_cache_key,
            "batch_sizes": data.batch_sizes(),
            "seed": data.seed,
            "augment": data.augment is not None,
            **({"by_length": True} if data.by_length else {}),
            **({"outputs": list(self._outputs)} if len(self._outputs) > 1 else {}),
            "mix": None if data.mix is None else [data.mix.kind, data.mix.alpha],
            "torch": torch.__version__,
        }
        digest.update(json.dumps(facts, sort_keys=True).encode())
        # Of a callable, its outputs are all that is known.
        for _, tensor in self._named(example):
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()


def _laid_out(batch: Batch, like: Batch) -> Batch:
    """The batch as the training loop lays out ``like``: same device, same memory format."""
    inputs, wanted = to_device(batch.inputs, device_of(like.inputs)), like.inputs
    layout = torch.contiguous_format
    if isinstance(wanted, Tensor) and wanted.dim() == 4:
        is_last = wanted.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_last else layout
    return replace(batch, inputs=laid_out(inputs, layout))


def _root_of(workdir: Path, data: SeededEpochs) -> Path:
    """Each process computes, and caches, its own part of every batch."""
    folder = workdir / "answers"
    if data.world_size == 1:
        return folder
    return folder / f"part-{data.rank + 1}-of-{data.world_size}"


def _others(root: Path, own: Path) -> list[Path]:
    return [path for path in root.iterdir() if path != own] if root.is_dir() else []


def _free_bytes(root: Path, own: Path) -> int:
    """What the disk has free, once outputs that are not used any more are removed."""
    place = root
    while not place.exists():
        place = place.parent
    stale = [file for other in _others(root, own) for file in other.rglob("*.npy")]
    return shutil.disk_usage(place).free + sum(file.stat().st_size for file in stale)


def _size(nbytes: float) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"
