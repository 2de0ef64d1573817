"""The teacher's memory: where views repeat, its answers are worked out once and kept on disk.

Answers are outputs with the features that losses look at. They lie in the stage's folder, under a
key of all that they depend on: the teacher, the data, the order and augmentation of the views. With
every batch goes a mark of what the teacher was shown, which is compared with what the student is
shown whenever an answer is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from compress.config.fields import Whole
from compress.distillation.cache_files import Array, Form, ViewStore
from compress.distillation.context import Answer, Question, Scene, Term, ask
from compress.distillation.teachers import identity_of
from compress.errors import DataError, StageError, StorageError
from compress.modules.inputs import Inputs, device_of, to_device
from compress.modules.memory_format import laid_out
from compress.training.data import Batch, Views

__all__ = ["Ask", "CacheSettings", "TeacherMemory", "remembering"]

#: The teacher, by batch.
Ask = Callable[[Batch], Answer]

_OUTPUTS = "outputs"
_MARKED_VALUES = 32
_LARGEST_FLOAT16 = 65504.0
_LARGEST_MIB = 2**30  # 1 PiB
_WHOLE = "int32"


class CacheSettings(BaseModel):
    """How a teacher's answers are kept where views repeat.

    ``float16`` halves them; ``most_mib`` is what they may take on disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["float32", "float16"] = "float32"
    most_mib: Whole = Field(default=2048, ge=1, le=_LARGEST_MIB)


def remembering(
    scene: Scene,
    terms: Sequence[Term],
    views: Views,
    repeated_views: int | None,
    settings: CacheSettings | None,
) -> Ask:
    """The teacher by batch; where views repeat, each answer is worked out once and kept.

    Args:
        scene: has the teacher.
        terms: say what of its answers is looked at.
        views: the data.
        repeated_views: how many different views there are; ``None`` where none comes again.
        settings: how answers are kept; ``None`` for the defaults.

    Raises:
        StageError: the answers would take more than they may; or, when asked, are not usable.
        StorageError: they would not fit on the disk.
    """
    teacher, question = scene.teacher, Question.of(terms)
    assert teacher is not None
    if repeated_views is None or question.is_empty:
        return lambda batch: ask(teacher, batch, question)
    memory = TeacherMemory(scene, terms, views, repeated_views, settings)
    memory.check_room()
    memory.forget_others()
    return memory


class TeacherMemory:
    """A teacher's answers to views that repeat; see the module's docstring.

    Args:
        scene: has the teacher.
        terms: say what of its answers is looked at.
        views: the data.
        count: how many different views there are.
        settings: how answers are kept; ``None`` for the defaults.
    """

    def __init__(
        self,
        scene: Scene,
        terms: Iterable[Term],
        views: Views,
        count: int,
        settings: CacheSettings | None,
    ) -> None:
        assert scene.teacher is not None
        self._scene, self._teacher = scene, scene.teacher
        self._views, self._count, self._question = views, count, Question.of(terms)
        self._features = (*self._question.layers, *(one.name for one in self._question.lessons))
        self._settings = settings or CacheSettings()
        example = ask(self._teacher, scene.example, self._question)
        self._dtypes = {name: tensor.dtype for name, tensor in self._named(example)}
        self._forms = {
            name: Form(tuple(tensor.shape[1:]), self._kept_as(tensor))
            for name, tensor in self._named(example)
        }
        self._root = _root_of(scene.context.workdir, views)
        key = self._key(example)
        self._folder = self._root / key
        self._store = ViewStore(self._folder, key, self._forms, views.rows())

    @property
    def nbytes(self) -> int:
        """What all answers take on disk."""
        return self._count * self._view_bytes

    def check_room(self) -> None:
        """Refuse answers that would not fit, before any is worked out.

        Raises:
            StageError: they would take more than they may.
            StorageError: they would take more than the disk has.
        """
        what = "outputs and features" if self._features else "outputs"
        subject = f"the teacher's {what} for {self._count} views would take {_size(self.nbytes)}"
        cure = "set fewer views, or views: null to ask the teacher in every epoch."
        if self._settings.dtype == "float32":
            cure = f"set cache: {{dtype: float16}}, {cure}"
        if self.nbytes > self._settings.most_mib << 20:
            limit = _size(self._settings.most_mib << 20)
            raise StageError(f"{subject} of disk; the limit cache.most_mib is {limit}: {cure}")
        missing = sum(view not in self._store for view in range(self._count)) * self._view_bytes
        free = _free_bytes(self._root, self._folder)
        if missing > free:
            raise StorageError(f"{subject}, and {self._root} has {_size(free)} free: {cure}")

    def forget_others(self) -> None:
        """Remove answers of other teachers or to other data, so that they never pile up."""
        for other in _others(self._root, self._folder):
            shutil.rmtree(other, ignore_errors=True)

    def __call__(self, batch: Batch) -> Answer:
        """The answer to a batch of one of the views.

        Raises:
            StageError: answers that are not usable.
            StorageError: the disk refused.
        """
        mark, report = _mark(batch.inputs), self._scene.context.report
        kept: Mapping[str, Array] | None = None
        try:
            kept = self._store.read(batch.view, batch.index, mark)
        except DataError as damage:
            text = f"{str(damage).rstrip('.')}; the teacher is asked again about this view."
            report({"event": "warning", "text": text})
        if kept is None:
            report({"event": "teacher", "view": batch.view + 1, "views": self._count})
            self._store.write(batch.view, self._answers(batch))
            kept = self._just_written(batch, mark)
        device = device_of(batch.inputs)
        tensors = {
            name: torch.from_numpy(array).to(device, self._dtypes[name])
            for name, array in kept.items()
        }
        nothing = torch.empty(len(next(iter(kept.values()))), 0, device=device)
        outputs = tensors.pop(_OUTPUTS, nothing)
        return Answer(outputs, dict(zip(self._features, tensors.values(), strict=True)))

    def _just_written(self, batch: Batch, mark: str) -> Mapping[str, Array]:
        try:
            kept = self._store.read(batch.view, batch.index, mark)
        except DataError as error:
            raise DataError(
                f"the training data of task {self._scene.context.task.name!r} are other ones when "
                "the same view is asked for again, so that teacher and student would not see the "
                "same: all randomness must come from the generator that `augment` is given; or "
                "set views: null."
            ) from error
        assert kept is not None
        return kept

    @property
    def _view_bytes(self) -> int:
        return sum(self._views.rows()) * sum(form.nbytes for form in self._forms.values())

    def _answers(self, like: Batch) -> Iterator[tuple[str, dict[str, Array]]]:
        for batch in self._views.batches(like.view):
            shown = _laid_out(batch, like)
            answer = ask(self._teacher, shown, self._question)
            arrays = {name: self._array(name, tensor) for name, tensor in self._named(answer)}
            yield _mark(shown.inputs), arrays

    def _named(self, answer: Answer) -> Iterator[tuple[str, Tensor]]:
        if self._question.outputs:
            yield _OUTPUTS, answer.outputs
        # Features are numbered: their names may hold what a file's may not.
        for number, name in enumerate(self._features):
            if name not in answer.features:
                raise StageError(
                    f"the teacher's layer {name!r} did not run for some batch, so that its "
                    "features cannot be kept; set views: null to ask it in every epoch."
                )
            yield f"feature-{number}", answer.features[name]

    def _kept_as(self, tensor: Tensor) -> str:
        # Whole numbers, such as tokens, are not to be rounded.
        return self._settings.dtype if tensor.is_floating_point() else _WHOLE

    def _array(self, name: str, tensor: Tensor) -> Array:
        if tuple(tensor.shape[1:]) != self._forms[name].shape:
            raise StageError(
                f"the teacher's {name} are {self._forms[name].shape} for one sample and "
                f"{tuple(tensor.shape[1:])} for another, which cannot be kept; set views: null to "
                "ask it in every epoch."
            )
        if self._forms[name].dtype == _WHOLE:
            return tensor.detach().cpu().numpy().astype(_WHOLE)
        values = tensor.detach().to("cpu", torch.float32)
        if self._settings.dtype == "float16" and values.numel():
            largest = float(values.abs().max())
            if largest > _LARGEST_FLOAT16:
                raise StageError(
                    f"the teacher's {name} reach {largest:.3g}, and float16 ends at "
                    f"{_LARGEST_FLOAT16:g}; set cache: {{dtype: float32}}."
                )
        return values.numpy().astype(self._settings.dtype)

    def _key(self, example: Answer) -> str:
        """Of all that the answers depend on; the data themselves are compared by marks."""
        digest = hashlib.blake2b(digest_size=16)
        views = self._views
        facts = {
            "teacher": identity_of(self._teacher),
            "features": list(self._features),
            "forms": {name: [form.shape, form.dtype] for name, form in self._forms.items()},
            "content": self._scene.context.content,
            "rows": views.rows(),
            "seed": views.seed,
            "augment": views.augment is not None,
            "mix": None if views.mix is None else [views.mix.kind, views.mix.alpha],
            "torch": torch.__version__,
        }
        digest.update(json.dumps(facts, sort_keys=True).encode())
        # Of a callable, what it says is all that is known of it.
        for _, tensor in self._named(example):
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()


def _laid_out(batch: Batch, like: Batch) -> Batch:
    """The batch as the training loop lays out ``like``: same device, same order in memory."""
    inputs, wanted = to_device(batch.inputs, device_of(like.inputs)), like.inputs
    layout = torch.contiguous_format
    if isinstance(wanted, Tensor) and wanted.dim() == 4:
        is_last = wanted.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_last else layout
    return replace(batch, inputs=laid_out(inputs, layout))


def _mark(inputs: Inputs) -> str:
    """Of a few values of every sample, as they are shown to both nets."""
    digest = hashlib.blake2b(digest_size=8)
    tensors = inputs if isinstance(inputs, dict) else {"": inputs}
    for name, tensor in sorted(tensors.items()):
        seen: Any = tensor
        if tensor.dim() > 1:
            seen = tensor[_marked_places(tensor.shape[1:])]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(seen.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _marked_places(sample: tuple[int, ...]) -> tuple[Any, ...]:
    """An index of a few values of every sample of that shape."""
    places = np.linspace(0, math.prod(sample) - 1, _MARKED_VALUES).astype(np.int64)
    # By coordinates: flattening would copy a batch whose channels are last.
    coordinates = np.unravel_index(np.unique(places), sample)
    return (slice(None), *(torch.from_numpy(one) for one in coordinates))


def _root_of(workdir: Path, views: Views) -> Path:
    """Each process has its own part of every batch, and looks after its own answers."""
    part, count = views.part
    folder = workdir / "answers"
    return folder if count == 1 else folder / f"part-{part + 1}-of-{count}"


def _others(root: Path, own: Path) -> list[Path]:
    return [path for path in root.iterdir() if path != own] if root.is_dir() else []


def _free_bytes(root: Path, own: Path) -> int:
    """What the disk has, once answers that are of no use any more are gone."""
    place = root
    while not place.exists():
        place = place.parent
    stale = [file for other in _others(root, own) for file in other.rglob("*.npy")]
    return shutil.disk_usage(place).free + sum(file.stat().st_size for file in stale)


def _size(nbytes: float) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"
