"""What single weights are ranked by, where that is more than their size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs, forward
from compress.pruning.importance import CRITERIA, accumulate_gradients
from compress.quantization.fakequant import channel_axis

__all__ = ["snip_scores", "wanda_scores"]


@torch.no_grad()
def wanda_scores(
    module: nn.Module, layers: Sequence[str], batches: Iterable[Inputs]
) -> dict[str, Tensor]:
    """Size of each weight times the norm of the inputs that it meets, by the weight's name.

    Of a convolution all places of a kernel meet the same channel, whose norm is taken. Weights are
    compared within each output (Sun et al. 2024, "A simple and effective pruning approach for large
    language models").

    Args:
        module: in eval mode.
        layers: paths of linear layers and convolutions that inference calls.
        batches: of inputs.
    """
    squares: dict[str, Tensor] = {}

    def add(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        values = inputs[0].detach().double()
        axis = values.dim() - 1 if isinstance(layer, nn.Linear) else _channels_of(layer, values)
        found = values.square().movedim(axis, 0).flatten(1).sum(1)
        squares[name] = squares[name] + found if name in squares else found

    with ExitStack() as hooks:
        for name in layers:
            layer = module.get_submodule(name)
            handle = layer.register_forward_pre_hook(
                lambda layer, inputs, name=name: add(name, layer, inputs)
            )
            hooks.callback(handle.remove)
        for batch in batches:
            forward(module, batch)
    return {
        f"{name}.weight": _beside(module.get_submodule(name), squares[name].sqrt())
        for name in layers
    }


def snip_scores(
    module: nn.Module, layers: Sequence[str], losses: Iterable[Tensor]
) -> dict[str, Tensor]:
    """What the loss would change by to the first order without each weight, by its name.

    Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity".

    Raises:
        StageError: there was no loss.
    """
    accumulate_gradients(module, losses, CRITERIA["snip"])
    scores = {}
    for name in layers:
        weight = module.get_parameter(f"{name}.weight")
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        scores[f"{name}.weight"] = (weight.detach() * gradient).abs()
    return scores


def _channels_of(layer: nn.Module, values: Tensor) -> int:
    """The axis of channels: inputs of a convolution may come without one for samples."""
    spatial = len(layer.kernel_size)  # type: ignore[arg-type]
    return values.dim() - 1 - spatial


def _beside(layer: nn.Module, norms: Tensor) -> Tensor:
    """The sizes of a layer's weights, each times the norm of its input."""
    weight = layer.get_parameter("weight").detach().abs()
    ones = (1,) * (weight.dim() - 2)
    if channel_axis(layer):  # of a transposed convolution the inputs come first
        return weight * norms.to(weight).view(-1, 1, *ones)
    groups = getattr(layer, "groups", 1)
    each = norms.to(weight).view(groups, -1).repeat_interleave(len(weight) // groups, 0)
    return weight * each.view(*each.shape, *ones)
