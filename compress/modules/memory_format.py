"""Layout: how the weights of 2-D convolutions lie in memory while a module computes in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs, forward

__all__ = ["arrange", "laid_out", "layout_of"]

_VECTOR = 16  # numbers of 32 bits in the widest vector of a CPU


@torch.no_grad()
def layout_of(module: nn.Module, example: Inputs) -> torch.memory_format:
    """The layout that the module runs fastest in.

    Channels last is what convolutions run fastest on, where oneDNN computes them right (see
    :func:`_is_safe`); and a net that calls ``view`` on a map may not run in it at all, which is
    tried on the example.
    """
    if not _is_safe(module):
        return torch.contiguous_format
    was_training = module.training
    arrange(module.eval(), torch.channels_last)
    try:
        forward(module, laid_out(example, torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    finally:
        arrange(module.train(was_training), torch.contiguous_format)
    return torch.channels_last


def _is_safe(module: nn.Module) -> bool:
    """Whether the backward pass of all convolutions in channels last is right, and ends.

    With widths that fill no vector of eight, as an unrounded prune leaves them, torch 2.13 aborts
    the process; and that of a 1 x 1 convolution with a stride writes beyond its memory where its
    input has fewer channels than a vector (github.com/uxlfoundation/oneDNN/issues/6035): gradients
    are wrong, or the process ends.
    """
    convs = (each for each in module.modules() if isinstance(each, nn.Conv2d))
    steps = {id(conv.weight): max(conv.stride) for conv in convs}
    maps = [p for p in module.parameters() if p.dim() == 4]
    return bool(maps) and not any(
        p.shape[0] % 8
        or (p.shape[1] < _VECTOR and p.shape[2:] == (1, 1) and steps.get(id(p), 2) > 1)
        for p in maps
    )


def laid_out(inputs: Inputs, layout: torch.memory_format) -> Inputs:
    """The batch in a layout; others than images have only one."""
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        return inputs.contiguous(memory_format=layout)
    return inputs


def arrange(module: nn.Module, layout: torch.memory_format) -> None:
    """Lay the weights out, in place; their values stay."""
    for parameter in module.parameters():
        if parameter.dim() == 4:  # layouts are for 2-D convolutions only
            # Not `contiguous`: it leaves a weight of one input channel, or of one pixel, as it is,
            # since its values lie alike in both; convolutions go by the strides.
            parameter.data = parameter.data.to(memory_format=layout)
