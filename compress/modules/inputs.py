"""Inputs: one batch for a model, and the one way to call a model with it."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from compress.errors import DataError
from compress.modules.outputs import Outputs, as_outputs

__all__ = [
    "Inputs",
    "at_batch",
    "at_least_float32",
    "batch_size_of",
    "copied",
    "device_of",
    "forward",
    "own_tokens",
    "to_device",
]

#: One batch: a tensor, or tensors by the name of the forward argument. Samples are on axis 0.
Inputs = Tensor | dict[str, Tensor]


def forward(module: nn.Module, inputs: Inputs) -> Outputs:
    """The module's outputs for one batch, which stays as it is whatever the module does to it.

    Raises:
        ContractViolation: the outputs are no tensors.
        DataError: the batch holds what the module does not take, or lacks what it needs.
    """
    if isinstance(inputs, dict):
        _check_names(module, inputs)
    # A layer that works in place would change what others are shown of the same batch.
    own = copied(inputs)
    return as_outputs(module(**own) if isinstance(own, dict) else module(own))


def _check_names(module: nn.Module, inputs: dict[str, Tensor]) -> None:
    parameters = inspect.signature(module.forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [f"holds {name!r}" for name in inputs if name not in parameters]
    missing = [
        f"lacks {name!r}"
        for name, parameter in parameters.items()
        if name not in inputs
        and parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_POSITIONAL
    ]
    if problems := [*unknown, *missing]:
        first = next(iter(parameters), "NAME")
        cure = (
            "give the task's data these names, or say which part is which input: "
            f"fields: {{inputs: {{{first}: KEY}}}}"
            if missing
            else "leave it out by naming the inputs: "
            f"fields: {{inputs: [{', '.join(name for name in inputs if name in parameters)}]}}"
        )
        raise DataError(
            f"the batch {problems[0]}, and the model ({type(module).__name__}) takes "
            f"{', '.join(parameters)}; {cure} (in Python, compress.Fields)."
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """A tensor in half precision as float32, and any other as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def batch_size_of(inputs: Inputs) -> int:
    """Number of samples in a batch."""
    return _first(inputs).shape[0]


def device_of(inputs: Inputs) -> torch.device:
    """Where a batch is."""
    return _first(inputs).device


def copied(inputs: Inputs) -> Inputs:
    """The batch in memory of its own."""
    if isinstance(inputs, dict):
        return {name: tensor.clone() for name, tensor in inputs.items()}
    return inputs.clone()


def own_tokens(inputs: Inputs) -> Tensor | None:
    """Which tokens are the texts' own and not padding, ``(n, tokens)``; ``None`` if none says so.

    It is ``attention_mask`` that says so, as transformers have it.
    """
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
    return None if mask is None else mask.bool()


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The batch on ``device``."""
    if isinstance(inputs, dict):
        return {name: tensor.to(device) for name, tensor in inputs.items()}
    return inputs.to(device)


def _first(inputs: Inputs) -> Tensor:
    return next(iter(inputs.values())) if isinstance(inputs, dict) else inputs


def at_batch(inputs: Inputs, size: int) -> Inputs:
    """``inputs`` cut, or repeated from the start, to ``size`` samples."""

    def fit(tensor: Tensor) -> Tensor:
        return tensor[torch.arange(size) % len(tensor)]

    if isinstance(inputs, dict):
        return {name: fit(tensor) for name, tensor in inputs.items()}
    return fit(inputs)
