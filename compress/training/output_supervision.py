"""What one output of a model is, and the loss on labels that fits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from compress.errors import DataError
from compress.outputs import LabelFacts, OutputKind, Shape, unknown_output_kind
from compress.task import Task
from compress.training.labels import IGNORED, fit_labels, labeled_samples

__all__ = ["OutputSupervision", "checked_mean", "not_a_mean"]

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
class OutputSupervision:
    """What is known of the labels of one output, for outputs of one shape.

    Args:
        task: has the labels.
        kind: of the output; ``None`` where it cannot be derived.
        outputs: its shape, ``(n, ...)``.
        facts: about the first labels; ``None`` where there are none.
        name: of the output; ``None`` where the model returns one tensor.
        is_only: whether the task's own loss is about it; that of a model with several outputs takes
            all of them.
    """

    task: Task
    kind: OutputKind | None
    outputs: Shape
    facts: LabelFacts | None
    name: str | None = None
    is_only: bool = True

    def output_kind(self) -> OutputKind:
        """The kind of the output.

        Raises:
            DataError: it cannot be derived; the message says how to give it.
        """
        if self.kind is None:
            name = None if self.is_only else self.name
            raise unknown_output_kind(self.task.name, self.outputs, self.facts, name)
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
            raise DataError(f"{self.where}: {error}") from error

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
        if self.task.loss is None or not self.is_only:
            return _LOSSES[self.output_kind()](outputs.float(), self.fitted(outputs, labels))
        return checked_mean(self.task, self.task.loss(outputs, self.fitted(outputs, labels)))

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
            f"{self.where}: {who} has outputs for {self.outputs[1]} classes and the "
            f"task has {len(names)} ({listed}); build it with classes: {len(names)}."
        )

    def check_loss(self) -> None:
        """Check that there is a loss on labels.

        Raises:
            DataError: the task has none of its own, and the kind of its outputs is not known.
        """
        if self.task.loss is None or not self.is_only:
            self.output_kind()

    @property
    def where(self) -> str:
        """The task, and the output where there are several, for the front of a sentence."""
        of = "" if self.is_only else f", output {self.name!r}"
        return f"task {self.task.name!r}{of}"


def not_a_mean(value: Any) -> str | None:
    """A clause that says that ``value`` is not the scalar that a loss gives; ``None`` if it is."""
    if isinstance(value, Tensor) and value.shape == ():
        return None
    given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    return f"a tensor of one number, the mean over the batch; got {given}"


def checked_mean(task: Task, value: Tensor) -> Tensor:
    """A value that a task's own loss gave.

    Raises:
        DataError: it is no scalar.
    """
    if (problem := not_a_mean(value)) is not None:
        raise DataError(f"task {task.name!r}: its loss must give {problem}.")
    return value
