"""A dry run of a training: what it would fail with, and about how long it would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from compress.candidate import Candidate
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import RequiredOutputs, teacher_forward
from compress.distillation.losses import LossSettings
from compress.distillation.objective import WeightedLoss, WeightedSum, weighted_losses
from compress.distillation.teacher_cache import TeacherCache
from compress.events import CacheSize, Pace, StageWarning
from compress.modules.memory_format import arrange, laid_out, layout_of
from compress.quantization.fakequant import learned_clips, simulate
from compress.stage import Context, Teacher, formats_of, ranges_of
from compress.stages.by_length import training_data
from compress.stages.fit import distillation_context
from compress.stages.loss_checks import about_few_steps, check_losses
from compress.stages.training_settings import Training
from compress.training.data import SeededEpochs
from compress.training.lengths import padded_length
from compress.training.optim import make_optimizer
from compress.training.rng import isolated

__all__ = ["dry_run_losses"]

# A loss may be on a generated text in some steps only: more than one call has to be timed.
_TIMED_CALLS = 2
_T = TypeVar("_T")


def dry_run_losses(
    candidate: Candidate,
    context: Context,
    training: Training,
    losses: Sequence[LossSettings],
    teacher: Teacher | None,
) -> None:
    """Compute every loss once, on two samples, so that errors come before the training.

    Reports the size of the teacher's cached outputs, and about how long the training will take.
    Arguments are those of :func:`compress.stages.fit.fit`.

    Raises:
        CompressError: what ``fit`` would fail with.
    """
    losses = [loss.resolved(context.references) for loss in losses]
    distillation = distillation_context(candidate, context, losses, teacher)
    check_losses(losses, distillation, training)
    with isolated(context.seed):
        weighted = weighted_losses(losses, distillation, training.epochs)
        functions = [distillation.dry_run(one.name, one.function) for one in weighted]
        planned, distinct = training_data(distillation, training), training.repeated_epochs
        data = planned.epochs
        if distinct is not None and any(loss.needs_teacher for loss in losses):
            cache = TeacherCache(distillation, functions, data, distinct, training.cache)
            cache.check_room()
            context.report(CacheSize(cache.nbytes))
        for text in about_few_steps(len(data) * training.epochs):
            context.report(StageWarning(text))
        seconds = _seconds(candidate, training, weighted, distillation, data)
        context.report(Pace(seconds))


def _seconds(
    candidate: Candidate,
    training: Training,
    weighted: Sequence[WeightedLoss],
    distillation: DistillationContext,
    data: SeededEpochs,
) -> float:
    """About how long the training will take, from timing its first batch; without validation.

    The batch is as the loop has it: augmented, in the memory format of the module, with its formats
    simulated.
    """
    student = candidate.fork().module
    layout = layout_of(student, candidate.example)
    arrange(student.train(), layout)
    first = next(iter(data.batches(0)))
    batch = replace(first, inputs=laid_out(first.inputs, layout))
    optimizer = make_optimizer(list(student.parameters()), training.optimization())
    teacher = distillation.teacher
    required = RequiredOutputs.of(one.function for one in weighted)
    taught, teacher_s = None, 0.0
    if teacher is not None and not required.is_empty:
        taught, teacher_s = _timed(lambda: teacher_forward(teacher, batch, required))
    objective = WeightedSum(student, weighted, None if taught is None else lambda _: taught)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(objective(student, batch))
        optimizer.step()

    formats = formats_of(candidate)
    ranges = ranges_of(candidate.module, formats, distillation.stage.task)
    with simulate(student, formats, ranges, clips=learned_clips(student, formats)):
        _, step_s = _timed(step)
    teacher_epochs = training.repeated_epochs or training.epochs
    if (length := padded_length(first.inputs)) is not None and data.by_length:
        # The first batch may be of short texts or of long ones.
        share = data.positions(0) / (len(data.dataset) * length)
        step_s, teacher_s = step_s * share, teacher_s * share
    return len(data) * (training.epochs * step_s + teacher_epochs * teacher_s)


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """The result of ``work``, and its seconds once memory and kernels are planned."""
    work()
    start = time.perf_counter()
    results = [work() for _ in range(_TIMED_CALLS)]
    return results[-1], (time.perf_counter() - start) / _TIMED_CALLS
