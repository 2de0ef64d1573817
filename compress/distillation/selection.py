"""Which of the outputs of both nets, and of the labels, a loss is about."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.errors import StageError
from compress.modules.outputs import by_name
from compress.quoting import in_yaml
from compress.training.labels import Labels
from compress.training.supervision import Supervision

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """Which outputs and labels one loss is about.

    Args:
        kind: of the loss, for messages.
        on: the student's output; ``None`` for the only one that ships.
        supervision: of all outputs that ship.
        takes_every_output: whether without ``on`` the loss is about all of them, and about the
            labels as the data have them.
    """

    kind: str
    on: str | None
    supervision: Supervision
    takes_every_output: bool = False

    @property
    def output(self) -> str | None:
        """The student's output by the name that it has in eval mode; ``None`` for several."""
        names = list(self.supervision.by_output)
        return names[0] if self.on is None and len(names) == 1 else self.on

    def check_named(self) -> None:
        """Check that one output is meant.

        Raises:
            StageError: there are several, and none is named.
        """
        if self.output is None:
            names = list(self.supervision.by_output)
            raise StageError(
                f"the loss {self.kind!r} is about one output, and the student gives "
                f"{', '.join(names)}; say which: on: {in_yaml(names[0])}."
            )

    def of_student(self, given: ModelOutputs) -> ModelOutputs:
        """The student's outputs, with the one that the loss is about.

        In training mode the only output that ships may have another name than in eval mode.
        """
        name = self.output
        if name in self.supervision.by_output and len(self.supervision.by_output) == 1:
            name = self.supervision.shipped_name(given.every)
        return replace(given, on=name, who=f"the loss {self.kind!r}: the student")

    def of_teacher(self, given: ModelOutputs) -> ModelOutputs:
        """The teacher's outputs, with the one of the same name, or the only one."""
        names = list(by_name(given.every))
        if len(names) == 1 or self.output is None:
            return replace(given, on=names[0] if len(names) == 1 else None)
        is_only = len(self.supervision.by_output) == 1 and self.on is None
        about = "the student's only output" if is_only else f"the student's output {self.output!r}"
        missing = (
            f"the loss {self.kind!r} is about {about}, and the teacher gives {', '.join(names)}; "
            f"say in the teacher's block which one teaches it: outputs: "
            f"{{{in_yaml(self.output)}: {in_yaml(names[0])}}}."
        )
        return replace(given, on=self.output, missing=missing)

    def of_labels(self, labels: Labels | None) -> Labels | None:
        """The labels of the output; as the data have them for a loss about all outputs.

        Where labels by name have none for the output, every sample has NaN, which is no label.
        """
        if labels is None or (self.takes_every_output and self.on is None):
            return labels
        if (found := self.supervision.labels_for(self.output, labels)) is not None:
            return found
        first = next(iter(by_name(labels).values()))
        return torch.full((len(first),), torch.nan, device=first.device)

    def applied(self, function: LossFunction) -> LossFunction:
        """The loss function on the outputs and labels that it is about."""
        compute, mask = function.compute, function.sample_mask

        def selected(student: ModelOutputs, teacher: ModelOutputs, labels: Labels | None) -> Tensor:
            return compute(
                self.of_student(student), self.of_teacher(teacher), self.of_labels(labels)
            )

        return replace(
            function,
            compute=selected,
            sample_mask=None if mask is None else lambda labels: mask(self.of_labels(labels)),
            on=frozenset(self.supervision.by_output if self.output is None else [self.output]),
        )
