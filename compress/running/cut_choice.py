"""Ratios of layers under a budget, for a recipe's ``prune: {ratios: ...}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from compress.candidate import Candidate, count_parameters
from compress.errors import AlreadySo, RecipeError, StageError
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.quantization.fakequant import called_layers, layers_with_formats
from compress.quantization.sensitivity import outputs_of, relative_error
from compress.running.job import Job
from compress.stages.cut_costs import Counted, cost_of_elements
from compress.stages.cut_table import RATIOS, CutTable, cut_table
from compress.stages.goals import count_macs
from compress.training.data import spread
from compress.training.rng import isolated

__all__ = ["COUNTED", "ChosenCuts", "choose_cuts", "cuts_of"]

#: What a budget of cuts may be about.
COUNTED: tuple[Counted, ...] = ("macs", "parameters")
_MOST_TRIES = 8


@dataclass(frozen=True)
class ChosenCuts:
    """What was chosen.

    Args:
        ratios: by layer; those that stay, and those that are cut with another, are left out.
        error: the sum of the groups' errors.
        joint_error: of the outputs where all are cut at once, without training.
        cost: what the cut model has, by what was asked for.
        groups: of layers that there were to choose from.
    """

    ratios: Mapping[str, float]
    error: float
    joint_error: float
    cost: Mapping[str, float]
    groups: int


def cuts_of(
    candidate: Candidate,
    job: Job,
    samples: int,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> CutTable:
    """What each cut of each group of layers does to the outputs on validation samples.

    Raises:
        StageError: no layer can be cut.
    """
    module, called = candidate.module, called_layers(candidate.module, candidate.example)
    layers = [name for name in layers_with_formats(module) if name in called]
    inputs = spread(job.task.validation, samples).inputs
    found = cut_table(module, candidate.example, [inputs], layers, ChannelPruning(ratio=0.0), tell)
    if not found.groups:
        raise StageError("sensitivity: the model has no layer that channels can be cut from.")
    return found


def choose_cuts(
    table: CutTable, candidate: Candidate, job: Job, samples: int, what: Counted, asked: float
) -> ChosenCuts:
    """The ratios with the least sum of errors under a budget; the cut is made and counted.

    Args:
        table: of the candidate.
        candidate: what is cut; it stays as it is.
        job: whose validation samples the cut is looked at with.
        samples: how many.
        what: one of ``COUNTED``.
        asked: below 1 a share of what the candidate has, and else a number.

    Raises:
        AlreadySo: the candidate is within it.
        StageError: no choice of ratios is.
        RecipeError: the candidate has nothing that is counted.
    """
    before = _count(what, candidate.module, candidate)
    if not before:
        raise RecipeError(f"--prune-budget {what}: the model has none that are counted.")
    most = asked * before if asked < 1 else asked
    if before <= most:
        raise AlreadySo(f"--prune-budget {what}={asked:g}: the model has {before:,} already.")
    each = cost_of_elements(what, candidate)
    room = most - before
    for _ in range(_MOST_TRIES):
        chosen = table.choose([table.limit_of_elements(each, room)])
        if chosen is None:
            break
        ratios = table.ratios(chosen)
        small = _cut(candidate, ratios)
        have = _count(what, small, candidate)
        if have <= most:
            joint = _joint_error(candidate, small, job, samples)
            return ChosenCuts(ratios, table.error(chosen), joint, {what: have}, len(table.groups))
        room -= have - most
    all_cut = table.ratios([len(RATIOS) - 1] * len(table.groups))
    least = _count(what, _cut(candidate, all_cut), candidate)
    raise StageError(
        f"--prune-budget {what}={asked:g}: no choice of ratios keeps it; with "
        f"{RATIOS[-1]:g} of every layer cut the model has {least:,} of {before:,}; allow more, or "
        "distill into a smaller student."
    )


def _cut(candidate: Candidate, ratios: Mapping[str, float]) -> nn.Module:
    small = candidate.fork().module
    with isolated(0):
        prune_channels(small, candidate.example, ChannelPruning(ratio=0.0, layer_ratios=ratios))
    return small


def _count(what: Counted, module: nn.Module, candidate: Candidate) -> int:
    if what == "macs":
        return count_macs(module, candidate.example)
    return count_parameters(module)[0]


def _joint_error(candidate: Candidate, small: nn.Module, job: Job, samples: int) -> float:
    batches = [spread(job.task.validation, samples).inputs]
    return relative_error(outputs_of(candidate.module, batches), outputs_of(small, batches))
