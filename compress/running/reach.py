"""Reach: whether quantizing and pruning bring a model within its budget, or only another model.

What is compared with the budget are files: the model as it comes in, all of it in int8, and the
least that pruning leaves, with every block gone that can go and with 95 % of the channels of each
layer cut. The last is no model to use; it is what no cut gets below. Its outputs hardly depend on
its inputs, which no range for int8 fits: it is written in float32, and its size is taken with each
weight in a byte.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.artifact import Artifact
from compress.budget import Budget
from compress.candidate import Candidate, count_parameters
from compress.distillation.teachers import frozen_teacher
from compress.errors import AlreadySo, CompressError, NoEffect
from compress.measure.compare import compare
from compress.measure.local import LocalTarget
from compress.quantization.numerics import Numerics
from compress.quantization.stored import saved_bytes
from compress.running.encoding import encode
from compress.running.job import Job, context_of
from compress.running.planned_rows import PlannedStage
from compress.running.split_arrays import SplitArrays
from compress.stage import Stage, apply_stage, formats_of
from compress.stages.goals import count_macs
from compress.stages.prune import PruneStage
from compress.stages.quantize import QuantizeStage
from compress.training.rng import isolated

__all__ = ["Point", "reach_of", "verdict"]

_MOST_CUT = 0.95
# Less than this share of a model is hardly ever worth what is lost with the rest.
_LITTLE = 0.1
_TIMED_SAMPLES = 32


@dataclass(frozen=True)
class Point:
    """A file of the model.

    Args:
        kib: its size.
        parameters: of the model in it.
        macs: of one sample.
        ms: the median time of one inference; ``None`` where nothing was timed.
    """

    kib: float
    parameters: int
    macs: int
    ms: float | None = None


def reach_of(job: Job) -> list[str]:
    """What to say of a job's budget; nothing where it has no limit of time or size.

    Times are of this machine, in the quick mode; those of a device that has to be contacted are
    left out.
    """
    budget = job.budget
    if budget is None or (budget.artifact_kib is None and budget.latency_p50_ms is None):
        return []
    is_timed = budget.latency_p50_ms is not None and isinstance(job.targets[0], LocalTarget)
    with tempfile.TemporaryDirectory(prefix="compresskit-reach-") as folder, isolated(job.seed):
        try:
            points = _points(job, Path(folder), is_timed=is_timed)
        except CompressError as error:
            why = str(error).rstrip(".")
            return [f"budget: what quantizing and pruning reach could not be told ({why})"]
    return list(verdict(budget, points))


def verdict(budget: Budget, points: Sequence[Point]) -> Iterator[str]:
    """A sentence for each limit that has a number to be compared with.

    Args:
        budget: the limits.
        points: the model as it comes in, in int8, and the least that pruning leaves of that.
    """
    sizes = [point.kib for point in points]
    parameters = [float(point.parameters) for point in points]
    times = [point.ms for point in points if point.ms is not None]
    macs = [float(point.macs) for point in points]
    if budget.artifact_kib is not None:
        limit = f"artifact_kib {budget.artifact_kib:g}"
        yield _of_limit(limit, "KiB", budget.artifact_kib, sizes, parameters, "parameters")
    if budget.latency_p50_ms is not None and len(times) == len(points):
        limit = f"latency_p50_ms {budget.latency_p50_ms:g}"
        what = "multiply-accumulates"
        yield _of_limit(limit, "ms", budget.latency_p50_ms, times, macs, what)


def _of_limit(
    limit: str, unit: str, most: float, costs: Sequence[float], counts: Sequence[float], what: str
) -> str:
    whole, quantized, least = costs
    begins = f"budget {limit}: "
    if whole <= most:
        return f"{begins}the model keeps it as it comes in, with {whole:.3g} {unit}"
    if quantized <= most:
        return f"{begins}quantizing alone reaches it: all in int8 it takes {quantized:.3g} {unit}"
    if least > most:
        return (
            f"{begins}no quantizing and pruning of this model reaches it: in int8, with every "
            f"block gone that can go and {_MOST_CUT:.0%} of the channels cut, it still takes "
            f"{least:.3g} {unit}; only another architecture fits: distill into a smaller student"
        )
    # Between the two files costs are taken to follow what is counted.
    share = (most - least) / (quantized - least)
    left = (counts[2] + share * (counts[1] - counts[2])) / counts[1]
    said = (
        f"{begins}quantizing alone does not reach it, with {quantized:.3g} {unit}; with pruning "
        f"about {left:.0%} of the {what} may stay"
    )
    if left < _LITTLE:
        said += ", of which little can be hoped: another architecture is likelier to fit"
    return said


def _points(job: Job, folder: Path, *, is_timed: bool) -> list[Point]:
    target, task = job.targets[0], job.task
    quantized, least = _smaller(job)
    candidates = [job.candidate, quantized, replace(least, numerics=Numerics())]
    made = [
        encode(one, task, target, folder / f"{place}.model") for place, one in enumerate(candidates)
    ]
    saved = [0, 0, saved_bytes(least.module, formats_of(least))]
    times = _times_ms(job, made) if is_timed else [None] * len(made)
    return [
        Point(
            (file.bytes - saved[place]) / 1024,
            count_parameters(candidates[place].module)[0],
            count_macs(candidates[place].module, candidates[place].example),
            times[place],
        )
        for place, file in enumerate(made)
    ]


def _times_ms(job: Job, files: Sequence[Artifact]) -> list[float | None]:
    """Of each file by that of the first and their ratio, which is known better than either."""
    inputs = SplitArrays.spread(job.task.validation, _TIMED_SAMPLES).inputs
    timed = compare([one.path for one in files], job.targets[0], "quick", inputs=inputs)
    first = timed[0].latency
    return [
        None if first is None or one.speedup is None else 1e3 * first.p50_s / one.speedup.value
        for one in timed
    ]


def _smaller(job: Job) -> tuple[Candidate, Candidate]:
    """The model in int8, and what pruning leaves of that at least."""
    teacher = frozen_teacher(job.candidate.fork().module, job.candidate.example)

    def after(stage: Stage, candidate: Candidate) -> Candidate:
        planned = PlannedStage(1, "reach", 0, stage)
        context = context_of(job, teacher, job.candidate, planned)
        try:
            return apply_stage(stage, candidate, context, dry_run=True)
        except (NoEffect, AlreadySo):  # nothing of it can be cut so
            return candidate

    quantized = after(QuantizeStage(), job.candidate)
    shorter = after(PruneStage(granularity="blocks", ratio=0.99), quantized)
    return quantized, after(PruneStage(ratio=_MOST_CUT), shorter)
