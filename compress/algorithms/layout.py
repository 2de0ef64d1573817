"""Layout: how the weights of 2-D convolutions lie in memory while a module computes in torch."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["arrange", "layout_of"]


def layout_of(module: nn.Module) -> torch.memory_format:
    """The layout that the module runs fastest in.

    Channels last is what convolutions run fastest on. With widths that fill no vector of eight, as
    an unrounded prune leaves them, torch 2.13 aborts the process in their backward pass.
    """
    widths = [p.shape[0] for p in module.parameters() if p.dim() == 4]
    return torch.channels_last if all(w % 8 == 0 for w in widths) else torch.contiguous_format


def arrange(module: nn.Module, layout: torch.memory_format) -> None:
    """Lay the weights out, in place; their values stay."""
    for parameter in module.parameters():
        if parameter.dim() == 4:  # layouts are for 2-D convolutions only
            # Not `contiguous`: it leaves a weight of one input channel, or of one pixel, as it is,
            # since its values lie alike in both; convolutions go by the strides.
            parameter.data = parameter.data.to(memory_format=layout)
