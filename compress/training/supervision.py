"""Supervision: what a model's outputs are, and the loss on labels that fits them.

Derived once for outputs of some names and shapes, and used by the loss on labels, by validation and
by the default losses: none of them looks at shapes and types by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from types import MappingProxyType

import torch
from torch import Tensor

from compress.errors import DataError
from compress.modules.inputs import Inputs
from compress.modules.outputs import Outputs, by_name, each_output
from compress.outputs import (
    CLASS_KINDS,
    Implied,
    LabelFacts,
    OutputKind,
    derive_kind,
)
from compress.quoting import in_yaml
from compress.task import Dataset, Loss, Task
from compress.training.data import Batch, is_labeled, read
from compress.training.labels import Labels, facts_of, labeled_samples
from compress.training.output_supervision import OutputSupervision, checked_mean

__all__ = ["OutputSupervision", "Supervision", "has_a_label"]

# Enough to derive what labels are; before a run all are checked (running/preflight.py).
_SAMPLES = 64


@dataclass(frozen=True)
class Supervision:
    """What is known of a task's labels, for all outputs of a model that ship.

    Those are the ones that it gives in eval mode, or of these the ones that the task names.

    Args:
        task: has the labels.
        by_output: what is known of each, by name, in the model's order; a model that returns one
            tensor has an ``output``.
        labels_on: the outputs that labels of one tensor are for, where there are several outputs.
    """

    task: Task
    by_output: Mapping[str, OutputSupervision]
    labels_on: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        task: Task,
        outputs: Outputs,
        implied: Collection[Implied] = (),
        inputs: Inputs | None = None,
    ) -> Supervision:
        """Derive it from the task, its first labels, and the losses.

        Args:
            task: has the labels.
            outputs: of a model of the task in eval mode; only names and shapes count.
            implied: what the chosen losses imply of the outputs.
            inputs: of the model; ``None`` where they are not known.

        Raises:
            DataError: the task names outputs that the model does not have.
        """
        shipping = _shipping(task, outputs)
        about = [one for one in implied if isinstance(one, tuple)]
        labels_on = frozenset(name for name, kind in about if kind is None) & shipping.keys()
        is_only = len(shipping) == 1
        by_output = {}
        for name, tensor in shipping.items():
            named = name if isinstance(outputs, dict) else None
            picked = partial(_label_of, name, is_only or name in labels_on, is_only)
            kinds = [kind for one, kind in about if kind is not None and one == name]
            if is_only:
                kinds += [one for one in implied if not isinstance(one, tuple)]
            facts = _label_facts(task, picked)
            kind = _kind_of(task, name, tensor, facts, kinds, inputs, is_only=is_only)
            by_output[name] = OutputSupervision(
                task, kind, tuple(tensor.shape), facts, named, is_only
            )
        return cls(task, MappingProxyType(by_output), labels_on)

    @property
    def class_scores(self) -> frozenset[str]:
        """The names of the outputs that are logits of classes."""
        return frozenset(name for name, one in self.by_output.items() if one.kind in CLASS_KINDS)

    def on(self, name: str | None) -> OutputSupervision:
        """What is known of one output.

        Args:
            name: of the output; ``None`` for the only one.

        Raises:
            DataError: there is none of this name, or there are several and none is named.
        """
        if name is None and len(self.by_output) == 1:
            return next(iter(self.by_output.values()))
        listed = ", ".join(self.by_output)
        if name is None:
            raise DataError(
                f"task {self.task.name!r}: the model gives {len(self.by_output)} outputs "
                f"({listed}); say which is meant."
            )
        if name not in self.by_output:
            raise DataError(
                f"task {self.task.name!r}: the model has no output {name!r}; its outputs are "
                f"{listed}."
            )
        return self.by_output[name]

    def of_training(
        self, name: str, tensor: Tensor, implied: Collection[Implied] = ()
    ) -> OutputSupervision:
        """What is known of an output that a model gives in training mode only.

        Labels of its own name are for it, and those of the only output are for it, too.

        Args:
            name: of the output.
            tensor: that output; only its shape counts.
            implied: what the chosen losses imply of the outputs.
        """
        is_only = len(self.by_output) == 1
        kinds = [one[1] for one in implied if isinstance(one, tuple) and one[0] == name]
        known = [kind for kind in kinds if kind is not None]
        facts = _label_facts(self.task, partial(_label_of, name, True, is_only))
        kind = _kind_of(self.task, name, tensor, facts, known, None, is_only=is_only)
        if kind is None and is_only:
            kind = self.on(None).kind
        return OutputSupervision(self.task, kind, tuple(tensor.shape), facts, name, is_only)

    def shipped(self, outputs: Outputs) -> Outputs:
        """What of a model's outputs ships: one tensor, or several by name.

        In training mode a model may give more than in eval mode, and by other names: of a model
        that ships one output, that is the one of the same name, or else the first.

        Raises:
            DataError: some of several outputs are missing.
        """
        given = by_name(outputs)
        if len(self.by_output) == 1:
            return given[self.shipped_name(outputs)]
        if missing := [name for name in self.by_output if name not in given]:
            raise DataError(
                f"task {self.task.name!r}: the model gives {', '.join(given)} in training mode and "
                f"lacks {', '.join(missing)}, which it gives in eval mode; return the same names."
            )
        return {name: given[name] for name in self.by_output}

    def shipped_name(self, outputs: Outputs) -> str:
        """The name in ``outputs`` of the only output that ships; see :meth:`shipped`."""
        given, [name] = by_name(outputs), self.by_output
        return name if name in given else next(iter(given))

    def labels_for(self, name: str | None, labels: Labels) -> Tensor | None:
        """The labels of one output, which may be one of training mode only.

        Args:
            name: of the output; ``None`` for the only one.
            labels: as the data has them.

        Returns:
            ``None`` where none are for it. Labels of one tensor are for any output that is named.
        """
        is_only = len(self.by_output) == 1
        wanted = next(iter(self.by_output)) if name is None and is_only else name
        return _label_of(wanted or "", True, is_only, labels)

    def labeled(self, labels: Labels) -> Tensor:
        """Which samples of a batch have a label for one output at least, ``(n,)``."""
        pairs = self._pairs(labels)
        if pairs:
            known = [self.by_output[name].labeled(given) for name, given in pairs.items()]
        else:
            tensors = list(labels.values()) if isinstance(labels, dict) else [labels]
            known = [labeled_samples(one, None, self.task.ignore_index) for one in tensors]
        return torch.stack(known).any(0)

    def loss(self, outputs: Outputs, labels: Labels) -> Tensor:
        """The task's loss, or the sum over outputs with labels of the loss of their kind.

        Args:
            outputs: of a model, ``(n, ...)`` each; those that do not ship are left out.
            labels: as the data has them, ``(n, ...)`` each.

        Returns:
            A scalar, the mean over samples with a label; where no sample has one, zero, with a
            gradient of zero.

        Raises:
            DataError: labels that do not fit, that are for no output, or of which nothing says
                which output they are for; or a loss of the task's own that gives no scalar.
        """
        shipped = self.shipped(outputs)
        if self.task.loss is not None and (isinstance(shipped, dict) or isinstance(labels, dict)):
            return self._loss_of_task(self.task.loss, shipped, labels)
        pairs = self._pairs(labels)
        if not pairs and bool(self.labeled(labels).any()):
            raise self._unnamed(labels)
        if not pairs:
            return _zero_of(shipped)
        tensors = shipped if isinstance(shipped, dict) else dict.fromkeys(self.by_output, shipped)
        parts = [self.by_output[name].loss(tensors[name], given) for name, given in pairs.items()]
        return reduce(add, parts)

    def has_loss(self, labels: Labels) -> bool:
        """Whether something says what the loss on labels is: the task, or the kind of outputs."""
        if self.task.loss is not None:
            return True
        pairs = self._pairs(labels)
        return bool(pairs) and all(self.by_output[name].kind is not None for name in pairs)

    def check_classes(self, who: str) -> None:
        """Check that a model has an output for each class that the task names.

        Args:
            who: which model, for the message.

        Raises:
            DataError: none of its outputs that are class scores is for so many.
        """
        scored = [one for one in self.by_output.values() if one.kind == "class-scores"]
        if scored and all(one.outputs[1] != len(self.task.classes) for one in scored):
            scored[0].check_classes(who)

    def check_loss(self, labels: Labels | None = None) -> None:
        """Check that there is a loss on labels.

        Args:
            labels: of a few samples, to see that they are for some output; ``None`` where they are
                not known.

        Raises:
            DataError: the task has none of its own, and nothing says which output labels are for,
                or the kind of an output with labels.
        """
        if self.task.loss is not None:
            return
        if labels is not None and not self._pairs(labels):
            raise self._unnamed(labels)
        outputs = [one for one in self.by_output.values() if one.facts is not None]
        for one in outputs or self.by_output.values():
            one.output_kind()

    def _pairs(self, labels: Labels) -> dict[str, Tensor]:
        """The labels of each output that has some, by its name, in the model's order."""
        is_only = len(self.by_output) == 1
        found = {
            name: _label_of(name, is_only or name in self.labels_on, is_only, labels)
            for name in self.by_output
        }
        return {name: given for name, given in found.items() if given is not None}

    def _loss_of_task(self, loss: Loss, outputs: Outputs, labels: Labels) -> Tensor:
        known = self.labeled(labels)
        if not bool(known.any()):
            return _zero_of(outputs)
        if not bool(known.all()):
            outputs = each_output(outputs, lambda one: one[known])
            labels = each_output(labels, lambda one: one[known])
        return checked_mean(self.task, loss(outputs, labels))

    def _unnamed(self, labels: Labels) -> DataError:
        task, listed = f"task {self.task.name!r}", ", ".join(self.by_output)
        first = in_yaml(next(iter(self.by_output)))
        if isinstance(labels, dict):
            return DataError(
                f"{task}: its labels are for {', '.join(labels)} and the model's outputs are "
                f"{listed}; give labels the names of outputs, as with fields: {{label: {{{first}: "
                "KEY}}."
            )
        return DataError(
            f"{task}: its labels are one tensor and the model's outputs are {listed}; say which "
            f"they are for, as in losses: [{{kind: label, on: {first}}}], give them names, as in "
            f"fields: {{label: {{{first}: KEY}}}}, or give the task a loss of its own."
        )


def has_a_label(dataset: Dataset, supervision: Supervision, on: str | None = None) -> bool:
    """Whether any sample of a data set has a label; reads until one has, mostly the first batch.

    Args:
        dataset: what is read.
        supervision: of the outputs.
        on: the output that the label is to be for; ``None`` for any.
    """
    return is_labeled(dataset) and any(
        batch.labels is not None and bool(_known(supervision, on, batch.labels).any())
        for batch in read(dataset, _SAMPLES)
    )


def _known(supervision: Supervision, on: str | None, labels: Labels) -> Tensor:
    """Which samples of a batch have a label for an output, or for any."""
    if on is None:
        return supervision.labeled(labels)
    given = supervision.labels_for(on, labels)
    if given is None:
        return torch.zeros(1, dtype=torch.bool)
    kind = supervision.by_output[on].kind if on in supervision.by_output else None
    return labeled_samples(given, kind, supervision.task.ignore_index)


def _zero_of(outputs: Outputs) -> Tensor:
    return reduce(add, (0.0 * one.sum() for one in by_name(outputs).values()))


def _shipping(task: Task, outputs: Outputs) -> dict[str, Tensor]:
    """The outputs of eval mode that ship, by name."""
    given = by_name(outputs)
    if not isinstance(task.outputs, Mapping):
        return given
    if unknown := [name for name in task.outputs if name not in given]:
        raise DataError(
            f"task {task.name!r}: the model has no output {unknown[0]!r}, which the task names in "
            f"outputs; its outputs are {', '.join(given)}."
        )
    return {name: tensor for name, tensor in given.items() if name in task.outputs}


def _kind_of(
    task: Task,
    name: str,
    tensor: Tensor,
    facts: LabelFacts | None,
    implied: Collection[OutputKind],
    inputs: Inputs | None,
    *,
    is_only: bool,
) -> OutputKind | None:
    """The kind of an output, as the task says it or as it can be derived."""
    said = task.kind_of(name)
    metric = task.built_in_metric(name, is_only=is_only)
    given = inputs if isinstance(inputs, Tensor) and inputs.is_floating_point() else None
    return said or derive_kind(
        tuple(tensor.shape),
        facts,
        metric=metric,
        implied=implied,
        inputs=None if given is None or not is_only else tuple(given.shape),
    )


def _label_of(name: str, takes_one: bool, is_only: bool, labels: Labels) -> Tensor | None:
    """The labels of an output; ``None`` where none are for it.

    Args:
        name: of the output.
        takes_one: whether labels of one tensor are for it.
        is_only: whether the model ships one output, so that labels of one name are for it too.
        labels: as the data has them.
    """
    if not isinstance(labels, dict):
        return labels if takes_one else None
    if name in labels:
        return labels[name]
    return next(iter(labels.values())) if is_only and len(labels) == 1 else None


def _label_facts(task: Task, picked: Callable[[Labels], Tensor | None]) -> LabelFacts | None:
    """Facts about the first labels of the first split that has any.

    Args:
        task: has the splits.
        picked: takes the labels of one output out of those of a batch.
    """
    for split in (task.train, task.validation, task.test):
        if is_labeled(split):
            for batch in _first(split):
                given = None if batch.labels is None else picked(batch.labels)
                facts = None if given is None else facts_of(given, task.ignore_index)
                if facts is not None:
                    return facts
    return None


def _first(dataset: Dataset) -> Iterator[Batch]:
    with torch.no_grad():
        yield from read(dataset, _SAMPLES, _SAMPLES)
