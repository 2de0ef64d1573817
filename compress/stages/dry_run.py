"""Rehearsal: what a training would fail with, and about how long it would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from compress.candidate import Candidate
from compress.distillation.context import Question, Scene, ask
from compress.distillation.losses import LossSettings
from compress.distillation.objective import Weighted, WeightedSum, weighted
from compress.distillation.teacher_cache import TeacherMemory
from compress.modules.memory_format import arrange, laid_out, layout_of
from compress.quantization.fakequant import simulate
from compress.stage import Context, Teacher, formats_of, ranges_of
from compress.stages.fit import Training, check_losses, scene_of
from compress.training.data import Views
from compress.training.optim import make_optimizer
from compress.training.rng import isolated

__all__ = ["rehearse_losses"]

# Of a loss that is about another text in some steps only, more than one call has to be seen.
_TIMED_CALLS = 2
# On digits, after 27 steps a small residual net is right for two thirds of what it will be, after
# 90 for nearly all (benchmarks/defaults.py).
_FEW_STEPS = 50
_T = TypeVar("_T")


def rehearse_losses(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> None:
    """Work out every loss once, on two samples: what does not fit is found before the training.

    Reports what the teacher's answers will take on disk, and how long the training will about take.

    Raises:
        CompressError: what :func:`fit` would fail with.
    """
    scene = scene_of(candidate, context, losses, teacher)
    check_losses(losses, scene, training)
    with isolated(context.seed):
        made = weighted(losses, scene, training.epochs)
        terms = [scene.tried(one.name, one.term) for one in made]
        views, kept = training.data(context), training.repeated_views
        if kept is not None and any(loss.asks_teacher for loss in losses):
            memory = TeacherMemory(scene, terms, views, kept, training.cache)
            memory.check_room()
            context.report({"event": "answers", "bytes": memory.nbytes})
        _warn_of_few_steps(len(views) * training.epochs, context)
        seconds = _seconds(candidate, training, made, scene, views)
        context.report({"event": "pace", "seconds": seconds})


def _warn_of_few_steps(steps: int, context: Context) -> None:
    if steps < _FEW_STEPS:
        text = (
            f"{steps} step{'s' * (steps > 1)} of training are too few to learn from: set more "
            f"epochs or a smaller batch_size, for {_FEW_STEPS} steps at least"
        )
        context.report({"event": "warning", "text": text})


def _seconds(
    candidate: Candidate,
    training: Training,
    made: Sequence[Weighted],
    scene: Scene,
    views: Views,
) -> float:
    """How long the training will about take, from trying its first batch; validation is left out.

    The batch is as the loop has it: augmented, in the layout of the module, its formats simulated.
    """
    student = candidate.fork().module
    layout = layout_of(student, candidate.example)
    arrange(student.train(), layout)
    first = next(iter(views.batches(0)))
    batch = replace(first, inputs=laid_out(first.inputs, layout))
    optimizer = make_optimizer(list(student.parameters()), training.optimization())
    teacher, question = scene.teacher, Question.of(one.term for one in made)
    answer, answer_s = None, 0.0
    if teacher is not None and not question.is_empty:
        answer, answer_s = _timed(lambda: ask(teacher, batch, question))
    objective = WeightedSum(student, made, None if answer is None else lambda _: answer)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(objective(student, batch))
        optimizer.step()

    formats = formats_of(candidate)
    with simulate(student, formats, ranges_of(candidate.module, formats, scene.context.task)):
        _, step_s = _timed(step)
    asked = training.repeated_views or training.epochs
    return len(views) * (training.epochs * step_s + asked * answer_s)


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """What the work gives, and how long it takes once memory and kernels are planned."""
    work()
    start = time.perf_counter()
    results = [work() for _ in range(_TIMED_CALLS)]
    return results[-1], (time.perf_counter() - start) / _TIMED_CALLS
