"""Probabilities where a loss takes logits: found on the first samples, before any training.

A softmax of probabilities is nearly the same for all classes, so that a student would learn next to
nothing from them, and no number of the run would say why.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import RequiredOutputs, teacher_forward
from compress.distillation.probabilities import are_probabilities
from compress.distillation.teachers import Ensemble, ModuleTeacher, OutputTeacher
from compress.errors import RecipeError
from compress.events import StageWarning
from compress.quoting import in_yaml
from compress.stage import Teacher

__all__ = ["check_logits"]


def check_logits(kind: str, context: DistillationContext) -> None:
    """Check that student and teacher both return logits, for a loss that takes a softmax of them.

    Where both return probabilities, the minimum of the loss is still right and only its gradients
    are small: that is reported as a warning.

    Args:
        kind: of the loss.
        context: student, teacher and samples of the data, for the output that the loss is about.

    Raises:
        RecipeError: one of the two returns probabilities.
        CompressError: the teacher fails on the samples.
    """
    if context.teacher is None:
        return
    teachers = list(_one_by_one(context.teacher))
    wrong = [(name, one) for name, one in teachers if _returns_probabilities(one, context)]
    takes = f"the loss {kind!r} takes logits"
    if not are_probabilities(context.example_outputs):
        if wrong:
            name, one = wrong[0]
            raise RecipeError(f"{takes}, and {name} returns {_remedy(one, context)}.")
    elif len(wrong) < len(teachers):
        raise RecipeError(
            f"{takes}, as the teacher returns, and the student returns probabilities; leave the "
            "softmax at its end out."
        )
    else:
        text = f"{takes}, and student and teacher both return probabilities"
        cure = "the student learns slowly; leave the softmax at their ends out"
        context.stage.report(StageWarning(f"{text}, from which {cure}"))


def _one_by_one(teacher: Teacher) -> Iterator[tuple[str, Teacher]]:
    if not isinstance(teacher, Ensemble):
        yield _named("the teacher", teacher), teacher
        return
    for number, member in enumerate(teacher.members):
        yield _named(f"teacher[{number}]", member), member


def _named(who: str, teacher: Teacher) -> str:
    return f"{who} {teacher.name}" if isinstance(teacher, OutputTeacher) else who


def _returns_probabilities(teacher: Teacher, context: DistillationContext) -> bool:
    with torch.no_grad():
        given = teacher_forward(teacher, context.example, RequiredOutputs())
        outputs = context.of_teacher(given.every)
    if are_probabilities(outputs):
        return True
    return are_probabilities(outputs, coarse=True) and _softmax_of(teacher, context) is not None


def _remedy(teacher: Teacher, context: DistillationContext) -> str:
    fact = _softmax_of(teacher, context)
    what = "probabilities" if fact is None else f"probabilities ({fact})"
    if teacher is context.stage.teacher:
        return f"{what}; leave the softmax at the end of the model out"
    own = _own_name(teacher, context)
    which = "true" if own is None else f"[{in_yaml(own)}]"
    return (
        f"{what}; add `from_probabilities: {which}` to its block, to learn from their logarithm, "
        "or leave its softmax out"
    )


def _softmax_of(teacher: Teacher, context: DistillationContext) -> str | None:
    if not isinstance(teacher, OutputTeacher):
        return None
    return teacher.softmax(_own_name(teacher, context))


def _own_name(teacher: Teacher, context: DistillationContext) -> str | None:
    """The teacher's name of the output that a loss is about; ``None`` where it gives one tensor."""
    if not isinstance(teacher, (ModuleTeacher, OutputTeacher)):
        return None
    with torch.no_grad():
        given = teacher(context.example.inputs)
    if isinstance(given, Tensor):
        return None
    name = context.taught_name(given)
    return teacher.reading.of_teacher(name)
