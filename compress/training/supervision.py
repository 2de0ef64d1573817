"""Supervision: what a model's outputs are, and the loss on labels that fits them.

Derived once for outputs of one shape, and used by the loss on labels, by validation and by the
default losses: none of them looks at shapes and types by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.errors import DataError
from compress.modules.inputs import Inputs
from compress.outputs import (
    LabelFacts,
    OutputKind,
    Shape,
    derive_kind,
    unknown_output_kind,
)
from compress.task import Dataset, Task
from compress.training.data import Batch, is_labeled, read
from compress.training.labels import IGNORED, facts_of, fit_labels, labeled_samples

__all__ = ["Supervision", "has_a_label", "not_a_mean"]

# Enough to derive what labels are; before a run all are checked (running/preflight.py).
_SAMPLES = 64
_MOST_NAMED = 6


def _mean_over_known(each: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss ``each`` over the values that have a label, which is not NaN."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        known = ~labels.isnan()
        if bool(known.all()):
            return each(outputs, labels)
        return each(outputs[known], labels[known])

    return loss


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, ignore_index=IGNORED)


_LOSSES: Mapping[OutputKind, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "class-scores": _cross_entropy,
        "tokens": _cross_entropy,
        "values": _mean_over_known(F.mse_loss),
        "image": _mean_over_known(F.mse_loss),
        "independent-logits": _mean_over_known(F.binary_cross_entropy_with_logits),
    }
)


@dataclass(frozen=True)
class Supervision:
    """What is known of a task's labels, for outputs of one shape.

    Args:
        task: has the labels.
        kind: of the outputs; ``None`` where it cannot be derived.
        outputs: their shape, ``(n, ...)``.
        facts: about the first labels; ``None`` where there are none.
    """

    task: Task
    kind: OutputKind | None
    outputs: Shape
    facts: LabelFacts | None

    @classmethod
    def of(
        cls,
        task: Task,
        outputs: Tensor,
        implied: Collection[OutputKind] = (),
        inputs: Inputs | None = None,
    ) -> Supervision:
        """Derive it from the task, its first labels, and the losses.

        Args:
            task: has the labels.
            outputs: of a model of the task; only their shape counts.
            implied: kinds of outputs that the chosen losses are for.
            inputs: of the model; ``None`` where they are not known.
        """
        facts = _label_facts(task)
        metric = task.metric if isinstance(task.metric, str) else None
        given = inputs if isinstance(inputs, Tensor) and inputs.is_floating_point() else None
        kind = task.outputs or derive_kind(
            tuple(outputs.shape),
            facts,
            metric=metric,
            implied=implied,
            inputs=None if given is None else tuple(given.shape),
        )
        return cls(task, kind, tuple(outputs.shape), facts)

    def output_kind(self) -> OutputKind:
        """The kind of the outputs.

        Raises:
            DataError: it cannot be derived; the message says how to give it.
        """
        if self.kind is None:
            raise unknown_output_kind(self.task.name, self.outputs, self.facts)
        return self.kind

    def labeled(self, labels: Tensor) -> Tensor:
        """Which samples of a batch have a label, ``(n,)``."""
        return labeled_samples(labels, self.kind, self.task.ignore_index)

    def fitted(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The labels of a batch in the type and shape that a loss on its outputs takes.

        Args:
            outputs: of a model, ``(n, ...)``.
            labels: as the data has them, ``(n, ...)``.

        Raises:
            DataError: labels that do not fit; the message names the task.
        """
        if self.kind is None:
            return labels
        try:
            return fit_labels(outputs, labels, self.kind, self.task.ignore_index)
        except DataError as error:
            raise DataError(f"task {self.task.name!r}: {error}") from error

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The task's loss, or that of its kind of outputs: the mean over samples with a label.

        Args:
            outputs: of a model, ``(n, ...)``.
            labels: as the data has them, ``(n, ...)``.

        Returns:
            A scalar; where no sample has a label, zero, with a gradient of zero.

        Raises:
            DataError: labels that do not fit, or a loss of the task's own that gives no scalar.
        """
        known = self.labeled(labels)
        if not bool(known.any()):
            return 0.0 * outputs.sum()
        if not bool(known.all()):
            outputs, labels = outputs[known], labels[known]
        if self.task.loss is None:
            return _LOSSES[self.output_kind()](outputs.float(), self.fitted(outputs, labels))
        value = self.task.loss(outputs, self.fitted(outputs, labels))
        if (problem := not_a_mean(value)) is not None:
            raise DataError(f"task {self.task.name!r}: its loss must give {problem}.")
        return value

    def check_classes(self, who: str) -> None:
        """Check that a model has an output for each class that the task names.

        Args:
            who: which model, for the message.

        Raises:
            DataError: it has more or fewer.
        """
        names = self.task.classes
        if self.kind != "class-scores" or not names or self.outputs[1] == len(names):
            return
        listed = ", ".join(names[:_MOST_NAMED]) + ", ..." * (len(names) > _MOST_NAMED)
        raise DataError(
            f"task {self.task.name!r}: {who} has outputs for {self.outputs[1]} classes and the "
            f"task has {len(names)} ({listed}); build it with classes: {len(names)}."
        )

    def check_loss(self) -> None:
        """Check that there is a loss on labels.

        Raises:
            DataError: the task has none of its own, and the kind of its outputs is not known.
        """
        if self.task.loss is None:
            self.output_kind()


def not_a_mean(value: Any) -> str | None:
    """A clause that says that ``value`` is not the scalar that a loss gives; ``None`` if it is."""
    if isinstance(value, Tensor) and value.shape == ():
        return None
    given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    return f"a tensor of one number, the mean over the batch; got {given}"


def has_a_label(dataset: Dataset, supervision: Supervision) -> bool:
    """Whether any sample of a data set has a label; reads until one has, mostly the first batch."""
    return is_labeled(dataset) and any(
        batch.labels is not None and bool(supervision.labeled(batch.labels).any())
        for batch in read(dataset, 64)
    )


def _label_facts(task: Task) -> LabelFacts | None:
    """Facts about the first labels of the first split that has any."""
    for split in (task.train, task.validation, task.test):
        if is_labeled(split):
            labels = [labels for batch in _first(split) if (labels := batch.labels) is not None]
            if labels and (facts := facts_of(labels[0], task.ignore_index)) is not None:
                return facts
    return None


def _first(dataset: Dataset) -> Iterator[Batch]:
    with torch.no_grad():
        yield from read(dataset, _SAMPLES, _SAMPLES)
