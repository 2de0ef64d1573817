"""The losses where a recipe names none, for all outputs of a student."""

from __future__ import annotations

from collections.abc import Collection

from compress.distillation.losses import LabelLoss, LossSettings, default_losses, teacher_loss
from compress.errors import StageError
from compress.modules.outputs import Outputs, by_name
from compress.quoting import in_yaml
from compress.training.supervision import Supervision, has_a_label

__all__ = ["losses_by_default", "teacher_losses"]


def teacher_losses(supervision: Supervision) -> tuple[LossSettings, ...]:
    """The loss on the teacher's outputs that fits each output.

    Raises:
        DataError: the kind of one cannot be derived.
    """
    outputs = supervision.by_output
    return tuple(
        _on(teacher_loss(one.output_kind()), None if one.is_only else name)
        for name, one in outputs.items()
    )


def losses_by_default(supervision: Supervision, taught: Outputs) -> tuple[LossSettings, ...]:
    """The losses on the teacher's outputs that fit, and that on the labels if there are any.

    Of several outputs each has its own: those that the teacher does not have learn from their
    labels alone. A loss of the task's own stands for all losses on labels.

    Args:
        supervision: of the student's outputs.
        taught: the teacher's outputs for some samples; only names count.

    Raises:
        DataError: the kind of an output cannot be derived.
        StageError: the teacher has none of several outputs.
    """
    train, names = supervision.task.train, list(supervision.by_output)
    if len(names) == 1:
        one = supervision.on(None)
        labeled = has_a_label(train, supervision)
        return default_losses(one.output_kind(), one.outputs, labeled=labeled)
    known = [name for name in names if name in by_name(taught)]
    if not known:
        raise _nothing_shared(names, by_name(taught))
    losses: list[LossSettings] = []
    for name in names:
        losses += _of_output(supervision, name, is_taught=name in known)
    if supervision.task.loss is None or not has_a_label(train, supervision):
        return tuple(losses)
    return (*(loss for loss in losses if loss.kind != "label"), LabelLoss())


def _of_output(supervision: Supervision, name: str, *, is_taught: bool) -> list[LossSettings]:
    output = supervision.on(name)
    labeled = output.facts is not None and has_a_label(supervision.task.train, supervision, name)
    if not is_taught:
        return [LabelLoss(on=name)] if labeled else []
    made = default_losses(output.output_kind(), output.outputs, labeled=labeled)
    return [_on(loss, name) for loss in made]


def _on(loss: LossSettings, name: str | None) -> LossSettings:
    return loss if name is None else loss.model_copy(update={"on": name})


def _nothing_shared(names: Collection[str], taught: Collection[str]) -> StageError:
    first, other = in_yaml(next(iter(names))), in_yaml(next(iter(taught)))
    return StageError(
        f"the student gives {', '.join(names)} and the teacher {', '.join(taught)}, which have no "
        "name in common; say in the teacher's block which teaches which, as in outputs: "
        f"{{{first}: {other}}}, or name losses with on: {first}."
    )
