"""What the modules at the bottom of a model make, to say which of them something is wrong with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.backends.onnx.graph import Array
from compress.modules.inputs import Inputs, copied, forward

__all__ = ["first_not_finite", "leaf_outputs"]


def first_not_finite(module: nn.Module, inputs: Inputs) -> str:
    """The first module that makes values which are not finite, in words."""
    with torch.no_grad():
        for name, (kind, values) in leaf_outputs(module, inputs).items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                return f"the module {name!r} ({kind})"
    return "the model's own forward"


def leaf_outputs(module: nn.Module, inputs: Inputs) -> dict[str, tuple[str, Array]]:
    """Class and first output of every module without children, in the order of their calls.

    Args:
        module: run once.
        inputs: one batch.
    """
    made: dict[str, tuple[str, Array]] = {}

    def listener(name: str, kind: str) -> Callable[[nn.Module, Any, Any], None]:
        def listen(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim():
                made.setdefault(name, (kind, output.detach().numpy()))

        return listen

    handles = [
        layer.register_forward_hook(listener(name, type(layer).__name__))
        for name, layer in module.named_modules()
        if name and not list(layer.children())
    ]
    try:
        forward(module, copied(inputs))
    finally:
        for handle in handles:
            handle.remove()
    return made
