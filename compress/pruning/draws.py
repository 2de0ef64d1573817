"""Random weights and inputs, that let every channel be seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs

__all__ = ["random_inputs", "random_weights"]


def random_weights(module: nn.Module, seed: int) -> None:
    """Give a module random weights that keep activations alive, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.dim() > 1:
                fan_in = max(1, parameter.numel() // parameter.shape[0])
                parameter.copy_(draw / math.sqrt(fan_in))
            else:
                parameter.copy_(0.3 * draw + (0.0 if name.endswith("bias") else 1.0))
        for buffer in module.buffers():
            if not buffer.is_floating_point():
                continue
            if bool((buffer >= 0).all() and (buffer > 0).any()):  # variances, frequencies
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator).double())
            else:
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator).double())


def random_inputs(inputs: Inputs, seed: int) -> Inputs:
    """A batch like ``inputs``: other numbers where they are floats, the same integers."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)

    if isinstance(inputs, dict):
        return {name: draw(tensor) for name, tensor in inputs.items()}
    return draw(inputs)
