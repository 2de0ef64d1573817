"""States: the tensors of modules and optimizers by name, copied out and put back in place.

In place, so that memory layouts, and with them the order of every sum, are what they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["copied", "optimizer_tensors", "put_back", "put_back_optimizer", "tensors_of"]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module, persistent or not, by path; not copies."""
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: tensor.detach() for name, tensor in named}


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies with the same memory layout."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


@torch.no_grad()
def put_back(tensors: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` into those of the same name in ``live``."""
    for name, tensor in live.items():
        tensor.copy_(tensors[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, by ``<number of the parameter>.<what>``; not copies."""
    return {
        f"{number}.{what}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for what, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def put_back_optimizer(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Make an optimizer remember what :func:`optimizer_tensors` gave, and nothing else."""
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for name, tensor in tensors.items():
        number, _, what = name.partition(".")
        parameter = parameters[int(number)]
        # Moments lie like their parameter; the count of steps is a scalar on the CPU.
        is_moment = what != "step" and tensor.shape == parameter.shape
        value = torch.empty_like(parameter).copy_(tensor) if is_moment else tensor.clone()
        optimizer.state.setdefault(parameter, {})[what] = value.detach()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
