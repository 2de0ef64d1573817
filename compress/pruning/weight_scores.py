"""What single weights are ranked by, where that is more than their size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs, forward
from compress.pruning.importance import CRITERIA, accumulate_gradients
from compress.pruning.layer_inputs import axis_of_channels, listen
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

    def adder(name: str, layer: nn.Module) -> Callable[[Tensor], None]:
        def add(inputs: Tensor) -> None:
            values = inputs.detach().double()
            rows = values.square().movedim(axis_of_channels(layer, values), 0)
            found = rows.flatten(1).sum(1)
            squares[name] = squares[name] + found if name in squares else found

        return add

    with ExitStack() as hooks:
        for name in layers:
            layer = module.get_submodule(name)
            hooks.callback(listen(layer, adder(name, layer)).remove)
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


def _beside(layer: nn.Module, norms: Tensor) -> Tensor:
    """The sizes of a layer's weights, each times the norm of its input."""
    weight = layer.get_parameter("weight").detach().abs()
    ones = (1,) * (weight.dim() - 2)
    if channel_axis(layer):  # of a transposed convolution the inputs come first
        return weight * norms.to(weight).view(-1, 1, *ones)
    groups = getattr(layer, "groups", 1)
    each = norms.to(weight).view(groups, -1).repeat_interleave(len(weight) // groups, 0)
    return weight * each.view(*each.shape, *ones)
