"""Layout: how the weights of 2-D convolutions lie in memory while a module computes in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs, forward

__all__ = ["arrange", "laid_out", "layout_of"]


@torch.no_grad()
def layout_of(module: nn.Module, example: Inputs) -> torch.memory_format:
    """The layout that the module runs fastest in.

    Channels last is what convolutions run fastest on. With widths that fill no vector of eight, as
    an unrounded prune leaves them, torch 2.13 aborts the process in their backward pass; and a net
    that calls ``view`` on a map may not run in it at all, which is tried on the example.
    """
    widths = [p.shape[0] for p in module.parameters() if p.dim() == 4]
    if not widths or any(width % 8 for width in widths):
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
