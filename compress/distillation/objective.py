"""The objective of one training: the weighted sum of its losses, and what each came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from operator import add

from torch import Tensor, nn

from compress.distillation.context import Answer, Scene, Term, compared, watch
from compress.distillation.logits import check_logits
from compress.distillation.losses import LossSettings, teacher_loss
from compress.distillation.teacher_cache import Ask
from compress.errors import StageError
from compress.modules.inputs import batch_size_of
from compress.stage import unique_name
from compress.training.data import Batch

__all__ = ["Weighted", "WeightedSum", "weighted"]


@dataclass(frozen=True)
class Weighted:
    """A term with its name, unlike any other's, and its weight by epoch, counted from 0."""

    name: str
    weight: Callable[[int], float]
    term: Term


def weighted(losses: Sequence[LossSettings], scene: Scene, epochs: int) -> list[Weighted]:
    """The losses ready for one training of ``epochs``.

    Raises:
        CompressError: student and teacher do not fit them.
    """
    made: list[Weighted] = []
    for loss in losses:
        _check_kind(loss, scene)
        name = unique_name(loss.kind, [other.name for other in made])
        weight = partial(loss.weight_at, epochs=epochs)
        made.append(Weighted(name, weight, loss.term(scene)))
    check_logits(losses, scene)
    return made


def _check_kind(loss: LossSettings, scene: Scene) -> None:
    kind = scene.supervision.kind
    if kind is None or kind in loss.takes:
        return
    raise StageError(
        f"the loss {loss.kind!r} is for outputs that are {' or '.join(sorted(loss.takes))}, and "
        f"those of task {scene.context.task.name!r}, {scene.supervision.outputs}, are {kind}: use "
        f"{teacher_loss(kind).kind}, or say what they are in the task (outputs: ...)."
    )


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
        self._samples: dict[str, int] = {}
        self._range: dict[str, tuple[float, float]] = {}
        self._steps, self._apart = 0, False

    def start_epoch(self, epoch: int) -> None:
        """Take the weights of ``epoch``, counted from 0, and forget the means of the one before."""
        self._epoch = epoch
        self._totals, self._samples = {}, {}
        self._range, self._steps, self._apart = {}, 0, False

    def still(self) -> dict[str, float]:
        """The losses that had one value in every batch of the first epoch, with that value.

        Of an epoch of one batch, those that were 0.
        """
        return {
            name: low
            for name, (low, high) in self._range.items()
            if low == high and (self._steps > 1 or low == 0)
        }

    @property
    def answers_differ(self) -> bool:
        """Whether the student answered otherwise than the teacher in the first epoch."""
        return self._apart

    def means(self) -> dict[str, float]:
        """Each loss over this epoch so far: before its weight, averaged over its samples."""
        return {
            name: float(total) / max(1, self._samples[name]) for name, total in self._totals.items()
        }

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum for one batch; ``module`` is the student, perhaps wrapped."""
        plain = cache(lambda: watch(module, self._student, batch, self._watched))
        teacher = self._ask(batch) if self._ask else Answer(plain().outputs.detach())
        parts = []
        for one in self._terms:
            answers = compared(one.term, module, self._student, batch, teacher, plain)
            value = _value(one.term, *answers, batch)
            parts.append(one.weight(self._epoch) * value)
            count = _samples(one.term, batch)
            if self._epoch == 0:
                self._see(one.name, float(value.detach()))
            total = value.detach() * count
            self._totals[one.name] = self._totals.get(one.name, 0.0) + total
            self._samples[one.name] = self._samples.get(one.name, 0) + count
        self._steps += 1
        if self._epoch == 0 and not self._apart:
            ours = plain().outputs.detach()
            # Without a teacher there is nobody whom the student could be like already.
            differ = ours.shape != teacher.outputs.shape or not ours.equal(teacher.outputs)
            self._apart = self._ask is None or differ
        return reduce(add, parts)

    def _see(self, name: str, value: float) -> None:
        low, high = self._range.get(name, (value, value))
        self._range[name] = (min(low, value), max(high, value))


def _value(term: Term, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
    value = term.function(student, teacher, batch.labels)
    if batch.partners is None or not term.reads_labels:
        return value
    other = term.function(student, teacher, batch.partners)
    return batch.share * value + (1 - batch.share) * other


def _samples(term: Term, batch: Batch) -> int:
    if term.takes is None or batch.labels is None:
        return batch_size_of(batch.inputs)
    return int(term.takes(batch.labels).sum())


def _distinct(layers: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in layers for name in some))
