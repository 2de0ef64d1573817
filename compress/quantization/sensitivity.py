"""Which layers a number format hurts: the error of the outputs with one layer alone in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import by_name
from compress.quantization.fakequant import Ranges, simulate
from compress.quantization.numerics import LayerFormat

__all__ = ["as_probabilities", "output_errors", "outputs_of", "relative_error"]


@torch.no_grad()
def output_errors(
    module: nn.Module,
    formats: Mapping[str, LayerFormat],
    ranges: Ranges,
    batches: Sequence[Inputs],
    class_scores: Collection[str] = (),
) -> dict[str, float]:
    """How far the outputs move when one layer at a time is computed in its format.

    The mean squared error over the variance of the outputs in float32, summed over outputs: 0 where
    the format changes nothing. Needs no labels.

    Args:
        module: in eval mode.
        formats: of the layers, by path; those in float32 are left out of the result.
        ranges: of the layers with static activations.
        batches: of inputs.
        class_scores: the outputs that are compared as probabilities of classes.
    """
    expected = as_probabilities(outputs_of(module, batches), class_scores)
    found = {}
    for name, format in formats.items():
        if not format.is_float32:
            with simulate(module, {name: format}, ranges):
                outputs = as_probabilities(outputs_of(module, batches), class_scores)
                found[name] = relative_error(expected, outputs)
    return found


@torch.no_grad()
def outputs_of(module: nn.Module, batches: Sequence[Inputs]) -> dict[str, Tensor]:
    """What a module gives for all batches, by the names of its outputs."""
    each = [by_name(forward(module, batch)) for batch in batches]
    return {name: torch.cat([one[name] for one in each]) for name in each[0]}


def as_probabilities(
    outputs: Mapping[str, Tensor], class_scores: Collection[str]
) -> dict[str, Tensor]:
    """The same outputs, with probabilities of classes in place of the logits of some.

    What moves all logits of a sample, or the lowest of them, changes no answer: errors of
    probabilities tell better which layers a format hurts (``benchmarks/layer_order.py``).

    Args:
        outputs: by name; logits are ``(n, classes, ...)``.
        class_scores: the names of those that are logits of classes.
    """
    return {
        name: tensor.softmax(1) if name in class_scores else tensor
        for name, tensor in outputs.items()
    }


def relative_error(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> float:
    """The mean squared error over the variance over samples, summed over outputs of numbers."""
    total = 0.0
    for name, right in expected.items():
        if right.is_floating_point():
            right = right.double()
            wrong = (actual[name].double() - right).square().mean()
            spread = (right - right.mean(0)).square().mean()
            total += float(wrong / spread.clamp_min(torch.finfo(spread.dtype).tiny))
    return total
