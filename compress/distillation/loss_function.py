"""Loss functions made ready for one training, and the forward passes that feed them.

A setting in a recipe names layers by patterns; a :class:`LossFunction` knows the layers. It is made
for a student and a teacher (``compress.distillation.context``), computes a scalar from the outputs
of both for a batch, and says which of these it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.distillation.teachers import LabelTeacher, ModuleTeacher
from compress.errors import DataError, StageError
from compress.modules.features import capture
from compress.modules.inputs import (
    Inputs,
    at_least_float32,
    batch_size_of,
    device_of,
    forward,
    own_tokens,
)
from compress.modules.outputs import Outputs, by_name, each_output, selected
from compress.stage import Teacher
from compress.training.data import Batch
from compress.training.state import Stateful

__all__ = [
    "EXAMPLE",
    "ExtraOutput",
    "LossFunction",
    "ModelOutputs",
    "RequiredOutputs",
    "compared_outputs",
    "student_forward",
    "teacher_forward",
]

#: The epoch seed of a few samples that losses are tried on, which are of no epoch.
EXAMPLE = -1


@dataclass(frozen=True)
class ModelOutputs:
    """What one net gives for a batch.

    Args:
        every: all of its outputs, ``(n, ...)`` each; ``(n, 0)`` where a teacher's outputs were not
            required.
        features: by the name of a layer or of an extra output, ``(n, ...)``.
        own_tokens: of a student on padded texts, which tokens are no padding, ``(n, tokens)``.
        on: the output that a loss is about; ``None`` for the only one.
        who: gives them, for messages.
        missing: a sentence for where the output is not there; nothing for the usual one.
    """

    every: Outputs
    features: Mapping[str, Tensor] = field(default_factory=dict)
    own_tokens: Tensor | None = None
    on: str | None = None
    who: str = "the model"
    missing: str = ""

    @property
    def outputs(self) -> Tensor:
        """The output that the loss is about, ``(n, ...)``.

        Raises:
            DataError: it is not there, or there are several and none is named.
        """
        if self.missing and self.on not in self.named:
            raise DataError(self.missing)
        return selected(self.every, self.on, self.who)

    @property
    def named(self) -> Mapping[str, Tensor]:
        """All outputs by name, for a loss that looks at several."""
        return by_name(self.every)


@dataclass(frozen=True)
class ExtraOutput:
    """What a teacher computes for a batch besides its outputs, such as a continuation of a text.

    Args:
        name: identifies all that the result depends on, besides the teacher and the batch.
        compute: from the teacher and the inputs, a tensor with samples on axis 0.
    """

    name: str
    compute: Callable[[Teacher, Inputs], Tensor]


@dataclass(frozen=True)
class LossFunction:
    """One loss, ready for a training.

    Args:
        compute: from the student's outputs, the teacher's, and the labels if there are any; a
            scalar, the mean over the batch.
        student_layers: layers whose features the student's outputs must hold.
        teacher_layers: layers whose features the teacher's outputs must hold.
        auxiliary: a module that is trained with the student and thrown away afterwards.
        self_updating: modules and optimizers that ``compute`` updates itself; for checkpoints.
        reads_labels: whether the value depends on the labels.
        sample_mask: from the labels, which samples take part, ``(n,)``; ``None`` for all.
        reads_teacher_outputs: whether the value depends on the teacher's outputs for the batch.
        extra_outputs: what else the teacher's outputs must hold.
        on: the outputs that it is about, by the student's names; ``None`` for all.
        generated_batch: from the student, a batch and the teacher's outputs for it: another batch
            to compute the loss on, with the teacher's outputs for that; ``None`` to stay with the
            first. It draws from torch's global generator. On-policy losses generate by the student.
    """

    compute: Callable[[ModelOutputs, ModelOutputs, Any], Tensor]
    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()
    auxiliary: nn.Module | None = None
    self_updating: tuple[Stateful, ...] = ()
    reads_labels: bool = False
    sample_mask: Callable[[Any], Tensor] | None = None
    reads_teacher_outputs: bool = True
    extra_outputs: tuple[ExtraOutput, ...] = ()
    generated_batch: (
        Callable[[nn.Module, Batch, ModelOutputs], tuple[Batch, ModelOutputs] | None] | None
    ) = None
    on: frozenset[str] | None = None


@dataclass(frozen=True)
class RequiredOutputs:
    """What losses need from the teacher.

    Args:
        outputs: whether they need its outputs.
        layers: whose features they need.
        extra_outputs: what else they need.
        on: which of several outputs they need; ``None`` for all.
    """

    outputs: bool = True
    layers: tuple[str, ...] = ()
    extra_outputs: tuple[ExtraOutput, ...] = ()
    on: frozenset[str] | None = None

    def picked(self, outputs: Outputs) -> Outputs:
        """Those of a teacher's outputs that are needed; all where some of them are not there."""
        if self.on is None or not isinstance(outputs, dict) or not self.on <= outputs.keys():
            return outputs
        return {name: tensor for name, tensor in outputs.items() if name in self.on}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is needed."""
        return not (self.outputs or self.layers or self.extra_outputs)

    @classmethod
    def of(cls, losses: Iterable[LossFunction]) -> RequiredOutputs:
        """All that some losses need; layers and extra outputs are sorted by name."""
        given = list(losses)
        extra = {one.name: one for loss in given for one in loss.extra_outputs}
        reading = [loss.on for loss in given if loss.reads_teacher_outputs]
        named = frozenset(name for some in reading if some is not None for name in some)
        return cls(
            outputs=bool(reading),
            on=None if None in reading else named,
            layers=tuple(sorted({name for loss in given for name in loss.teacher_layers})),
            extra_outputs=tuple(one for _, one in sorted(extra.items())),
        )


def student_forward(
    wrapped: nn.Module, student: nn.Module, batch: Batch, layers: Sequence[str]
) -> ModelOutputs:
    """One forward pass of the student.

    Args:
        wrapped: the student, perhaps wrapped to run on several devices.
        student: the student itself, whose layers are watched.
        batch: with inputs on the student's device.
        layers: whose features to return.
    """
    with capture(student, layers) as features:
        outputs = forward(wrapped, batch.inputs)
    return ModelOutputs(outputs, dict(features), own_tokens(batch.inputs))


@torch.no_grad()
def teacher_forward(teacher: Teacher, batch: Batch, required: RequiredOutputs) -> ModelOutputs:
    """One forward pass of the teacher, without gradients; half precision becomes float32.

    Args:
        teacher: must be a module where features are required.
        batch: any batch of the task.
        required: what to return.

    Raises:
        StageError: outputs for another number of samples, or values that are not finite.
    """
    expected, features = batch_size_of(batch.inputs), dict[str, Tensor]()
    outputs: Outputs = torch.empty(expected, 0, device=device_of(batch.inputs))
    if required.layers:
        assert isinstance(teacher, ModuleTeacher)
        with capture(teacher.module, required.layers) as features:
            outputs = teacher(batch.inputs)
    elif required.outputs and isinstance(teacher, LabelTeacher):
        outputs = teacher.for_labels(batch.labels)
    elif required.outputs:
        outputs = teacher(batch.inputs)
    extra = {one.name: one.compute(teacher, batch.inputs) for one in required.extra_outputs}
    found = ModelOutputs(
        each_output(required.picked(outputs), at_least_float32),
        {name: at_least_float32(tensor) for name, tensor in {**features, **extra}.items()},
    )
    for name, tensor in found.named.items():
        if tensor.shape[:1] != (expected,):
            given = len(tensor) if tensor.dim() else "no separate"
            of = f" ({name})" if isinstance(found.every, dict) else ""
            raise StageError(
                f"the teacher gives {given} outputs{of} for a batch of {expected} samples."
            )
    _check_finite(found, batch)
    return found


def compared_outputs(
    loss: LossFunction,
    wrapped: nn.Module,
    student: nn.Module,
    batch: Batch,
    teacher_outputs: ModelOutputs,
    student_outputs: Callable[[], ModelOutputs],
) -> tuple[ModelOutputs, ModelOutputs]:
    """The student's and the teacher's outputs that a loss compares.

    Args:
        loss: may generate another batch.
        wrapped: the student, perhaps wrapped to run on several devices.
        student: the student itself.
        batch: of the data.
        teacher_outputs: for that batch.
        student_outputs: returns the student's for that batch; called only where they are compared.
    """
    generated = None
    if loss.generated_batch is not None:
        generated = loss.generated_batch(wrapped, batch, teacher_outputs)
    if generated is None:
        return student_outputs(), teacher_outputs
    other, taught = generated
    return student_forward(wrapped, student, other, loss.student_layers), taught


def _check_finite(found: ModelOutputs, batch: Batch) -> None:
    one = {"outputs": found.every} if isinstance(found.every, Tensor) else found.every
    for what, tensor in {**one, **found.features}.items():
        if not bool(torch.isfinite(tensor).all()):
            where = f"batch {batch.index + 1} of view {batch.epoch_seed + 1}"
            raise StageError(
                f"the teacher returned values that are not finite ({what}) for "
                f"{'the first samples' if batch.epoch_seed == EXAMPLE else where}; look at its "
                "weights and its inputs."
            )
