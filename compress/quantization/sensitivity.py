"""Which layers a number format hurts: the error of the outputs with one layer alone in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import by_name
from compress.quantization.fakequant import Ranges, simulate
from compress.quantization.numerics import LayerFormat

__all__ = ["output_errors"]


@torch.no_grad()
def output_errors(
    module: nn.Module,
    formats: Mapping[str, LayerFormat],
    ranges: Ranges,
    batches: Sequence[Inputs],
) -> dict[str, float]:
    """How far the outputs move when one layer at a time is computed in its format.

    The mean squared error over the variance of the outputs in float32, summed over outputs: 0 where
    the format changes nothing. Needs no labels.

    Args:
        module: in eval mode.
        formats: of the layers, by path; those in float32 are left out of the result.
        ranges: of the layers with static activations.
        batches: of inputs.
    """
    expected = [_floats(module, batch) for batch in batches]
    found = {}
    for name, format in formats.items():
        if not format.is_float32:
            with simulate(module, {name: format}, ranges):
                found[name] = _error(expected, [_floats(module, batch) for batch in batches])
    return found


def _floats(module: nn.Module, batch: Inputs) -> dict[str, Tensor]:
    outputs = by_name(forward(module, batch))
    return {name: one.double() for name, one in outputs.items() if one.is_floating_point()}


def _error(
    expected: Sequence[Mapping[str, Tensor]], actual: Sequence[Mapping[str, Tensor]]
) -> float:
    total = 0.0
    for name in expected[0]:
        right = torch.cat([one[name] for one in expected])
        wrong = torch.cat([one[name] for one in actual]) - right
        spread = (right - right.mean(0)).square().mean()
        total += float(wrong.square().mean() / spread.clamp_min(torch.finfo(spread.dtype).tiny))
    return total
