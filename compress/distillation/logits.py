"""Probabilities where a loss takes logits: found on the first samples, before any training.

A softmax of probabilities is nearly the same for all classes, so that a student would learn next to
nothing from them, and no number of the run would say why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from compress.distillation.context import Question, Scene, ask
from compress.distillation.losses.base import LossBlock
from compress.distillation.probabilities import are_probabilities
from compress.distillation.teachers import Ensemble, OutputTeacher
from compress.errors import RecipeError
from compress.stage import Teacher

__all__ = ["check_logits"]


def check_logits(losses: Sequence[LossBlock], scene: Scene) -> None:
    """See that student and teacher both answer with logits where a loss takes a softmax of them.

    Where both answer with probabilities, what the loss asks for is still right and only its
    gradients are small: that is a warning.

    Raises:
        RecipeError: one of them answers with probabilities; the message says what would do.
        CompressError: a teacher that cannot be asked.
    """
    kind = next((loss.kind for loss in losses if loss.takes_logits), None)
    if kind is None or scene.teacher is None:
        return
    teachers = list(_one_by_one(scene.teacher))
    wrong = [(name, one) for name, one in teachers if _gives_probabilities(one, scene)]
    takes = f"the loss {kind!r} takes logits"
    if not are_probabilities(scene.example_outputs):
        if wrong:
            name, one = wrong[0]
            raise RecipeError(f"{takes}, and {name} answers with {_remedy(one, scene)}.")
    elif len(wrong) < len(teachers):
        raise RecipeError(
            f"{takes}, as the teacher gives, and the student answers with probabilities; leave the "
            "softmax at its end out."
        )
    else:
        text = f"{takes}, and student and teacher both answer with probabilities"
        cure = "it teaches slowly; leave the softmax at their ends out"
        scene.context.report({"event": "warning", "text": f"{text}, from which {cure}"})


def _one_by_one(teacher: Teacher) -> Iterator[tuple[str, Teacher]]:
    if not isinstance(teacher, Ensemble):
        yield _named("the teacher", teacher), teacher
        return
    for number, member in enumerate(teacher.members):
        yield _named(f"teacher[{number}]", member), member


def _named(who: str, teacher: Teacher) -> str:
    return f"{who} {teacher.name}" if isinstance(teacher, OutputTeacher) else who


def _gives_probabilities(teacher: Teacher, scene: Scene) -> bool:
    with torch.no_grad():
        outputs = ask(teacher, scene.example, Question()).outputs
    if are_probabilities(outputs):
        return True
    return are_probabilities(outputs, coarse=True) and _softmax_of(teacher) is not None


def _remedy(teacher: Teacher, scene: Scene) -> str:
    fact = _softmax_of(teacher)
    what = "probabilities" if fact is None else f"probabilities ({fact})"
    if teacher is scene.context.teacher:
        return f"{what}; leave the softmax at the end of the model out"
    return (
        f"{what}; add `from_probabilities: true` to its block, to learn from their logarithm, or "
        "leave its softmax out"
    )


def _softmax_of(teacher: Teacher) -> str | None:
    return teacher.softmax() if isinstance(teacher, OutputTeacher) else None
