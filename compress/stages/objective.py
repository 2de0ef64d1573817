"""The objective of one training: the weighted sum of its losses, and what each came to.

Owns the teacher's memory: where views repeat, its answers, with the features that losses look at,
are worked out once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from compress.algorithms.batches import Batch
from compress.errors import StageError
from compress.inputs import batch_size_of
from compress.stages.base import unique_name
from compress.stages.losses import LossSettings
from compress.stages.terms import Answer, Scene, Term, ask, watch

__all__ = ["Ask", "Weighted", "WeightedSum", "remembering", "weighted"]

_LARGEST_TEACHER_CACHE_BYTES = 2 << 30

#: The teacher, by batch.
Ask = Callable[[Batch], Answer]


@dataclass(frozen=True)
class Weighted:
    """A term with its name, unlike any other's, and its weight by epoch, counted from 0."""

    name: str
    weight: Callable[[int], float]
    term: Term


def weighted(losses: Sequence[LossSettings], scene: Scene, epochs: int) -> list[Weighted]:
    """The losses ready for one training of ``epochs``."""
    made: list[Weighted] = []
    for loss in losses:
        name = unique_name(loss.kind, [other.name for other in made])
        weight = partial(loss.weight_at, epochs=epochs)
        made.append(Weighted(name, weight, loss.term(scene)))
    return made


class WeightedSum:
    """An objective for the training loop.

    Args:
        student: the module that is trained.
        terms: what is summed.
        ask: the teacher; ``None`` where no loss asks it.
    """

    def __init__(self, student: nn.Module, terms: Sequence[Weighted], ask: Ask | None) -> None:
        self._student, self._terms, self._ask = student, terms, ask
        self._watched = _distinct(weighted.term.student_layers for weighted in terms)
        self._epoch = 0
        self._totals: dict[str, Tensor] = {}
        self._samples = 0

    def start_epoch(self, epoch: int) -> None:
        """Take the weights of ``epoch``, counted from 0, and forget the means of the one before."""
        self._epoch = epoch
        self._totals, self._samples = {}, 0

    def means(self) -> dict[str, float]:
        """Each loss over this epoch so far: before its weight, averaged over samples."""
        return {name: float(total) / self._samples for name, total in self._totals.items()}

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum for one batch; ``module`` is the student, perhaps wrapped."""
        student = watch(module, self._student, batch, self._watched)
        teacher = self._ask(batch) if self._ask else Answer(student.outputs.detach())
        count, parts = batch_size_of(batch.inputs), []
        for one in self._terms:
            value = one.term.function(student, teacher, batch.labels)
            parts.append(one.weight(self._epoch) * value)
            total = value.detach() * count
            self._totals[one.name] = self._totals.get(one.name, torch.zeros_like(total)) + total
        self._samples += count
        return torch.stack(parts).sum()


def remembering(
    scene: Scene, terms: Sequence[Weighted], samples: int, repeated_views: int | None
) -> Ask:
    """The teacher by batch; where views repeat, each answer is worked out once and kept.

    Args:
        scene: has the teacher.
        terms: say which of its layers are looked at.
        samples: of one view.
        repeated_views: how many different views there are; ``None`` where none comes again.

    Raises:
        StageError: (when asked) the answers would not fit in memory, or are not usable.
    """
    teacher = scene.teacher
    assert teacher is not None
    layers = _distinct(weighted.term.teacher_layers for weighted in terms)
    if repeated_views is None:
        return lambda batch: ask(teacher, batch, layers)
    cache: dict[tuple[int, int], Answer] = {}

    def answer(batch: Batch) -> Answer:
        key = (batch.view, batch.index)
        if key not in cache:
            cache[key] = ask(teacher, batch, layers)
            each = cache[key].nbytes / batch_size_of(batch.inputs)
            _check_cache(each * samples * repeated_views, repeated_views, bool(layers))
        return cache[key]

    return answer


def _check_cache(expected_bytes: float, views: int, has_features: bool) -> None:
    if expected_bytes > _LARGEST_TEACHER_CACHE_BYTES:
        what = "outputs and features" if has_features else "outputs"
        raise StageError(
            f"the teacher's {what} for {views} views would take "
            f"{expected_bytes / 2**30:.1f} GiB of memory; the limit is "
            f"{_LARGEST_TEACHER_CACHE_BYTES >> 30} GiB: set fewer views, or views: null to ask "
            "the teacher in every epoch."
        )


def _distinct(layers: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in layers for name in some))
