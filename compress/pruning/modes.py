"""The modes in which a module is followed: as it ships, and as it trains where that is more."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from compress.errors import StageError
from compress.modules.inputs import Inputs
from compress.pruning.trace import Node, Trace, TraceFailed, in_float64, record
from compress.pruning.walk import arguments

__all__ = ["Mode", "modes_of"]

# One sample alone is a case of its own in many forwards; of large ones two would take too much.
_SAMPLES = 2
_LARGE_SAMPLE = 150_000


@dataclass(frozen=True)
class Mode:
    """A module in double precision, and what it does; ``is_random`` where it draws numbers."""

    module: nn.Module
    trace: Trace
    is_random: bool


def modes_of(module: nn.Module, example: Inputs) -> tuple[list[Mode], Inputs]:
    """The modes of a module, inference first, and the inputs that they were recorded with.

    Raises:
        StageError: it does not run, or draws random numbers in inference.
    """
    double, inputs = in_float64(module, _few_samples(example))
    try:
        trace = record(double, inputs)
    except TraceFailed as error:
        place = f" in {error.module!r}" if error.module else ""
        raise StageError(
            f"prune: the model does not run in double precision on the example{place} "
            f"({error}); compute in the type of its inputs, or prune weights."
        ) from error
    if any(_is_random(node) for node in trace.nodes):
        raise StageError(
            "prune: the model draws random numbers in inference, so that no cut of it can be "
            "proved; draw them in training mode alone."
        )
    modes = [Mode(double, trace, is_random=False)]
    if any(name not in trace.named() for name, _ in double.named_parameters()):
        modes += _in_training(double, inputs)
    return modes, inputs


def _in_training(double: nn.Module, inputs: Inputs) -> list[Mode]:
    """What training computes beside: auxiliary heads, say. Norms and dropout stay in eval."""
    other = copy.deepcopy(double)
    for layer in other.modules():
        layer.training = not _is_of_torch(layer)
    try:
        trace = record(other, inputs)
    except TraceFailed:
        return []
    return [Mode(other, trace, any(_is_random(node) for node in trace.nodes))]


def _few_samples(inputs: Inputs) -> Inputs:
    named = inputs if isinstance(inputs, dict) else {"": inputs}
    is_large = sum(tensor[:1].numel() for tensor in named.values()) > _LARGE_SAMPLE
    few = {name: tensor[: 1 if is_large else _SAMPLES] for name, tensor in named.items()}
    return few if isinstance(inputs, dict) else few[""]


def _is_random(node: Node) -> bool:
    # Attention draws what it drops itself; the rate is one of its arguments.
    drawn = arguments(node).get("dropout_p", 1.0) != 0.0
    return drawn and torch.Tag.nondeterministic_seeded in node.op.tags


def _is_of_torch(layer: nn.Module) -> bool:
    return type(layer).__module__.startswith("torch.nn.") and not isinstance(
        layer, (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    )
