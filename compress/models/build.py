"""Modules from descriptions: an architecture that is built in, from a folder, or the user's own.

The one place that knows all three kinds; it looks into none of them.
"""

from __future__ import annotations

from torch import nn

from compress.candidate import Architecture
from compress.config.own_parts import OwnPart
from compress.config.references import CodeReferences, is_reference
from compress.errors import RecipeError
from compress.models.huggingface import ARCHITECTURE as HUGGING_FACE
from compress.models.huggingface import build_hub_model
from compress.models.settings import ModelSettings
from compress.pruning.depth import keep_blocks
from compress.zoo import build

__all__ = ["build_module"]


def build_module(architecture: Architecture, references: CodeReferences) -> nn.Module:
    """The module with fresh weights, drawn from torch's global generator.

    Args:
        architecture: what to build.
        references: the user's code that may be followed.

    Raises:
        RecipeError: no such architecture, or options that it does not take.
        CodeReferenceError: code that was not allowed, or is not there.
        MissingExtra: a model from a folder, without transformers.
    """
    module = _uncut(architecture, references)
    if architecture.blocks is not None:
        keep_blocks(module, architecture.blocks)
    return module


def _uncut(architecture: Architecture, references: CodeReferences) -> nn.Module:
    if architecture.arch == HUGGING_FACE:
        return build_hub_model(architecture.options)
    if not is_reference(architecture.arch):
        return build(architecture.arch, architecture.options)
    where = f"arch {architecture.arch!r}"
    part = OwnPart.named(architecture.arch, references, where, ModelSettings.role)
    if isinstance(part.found, nn.Module):
        raise RecipeError(
            f"{where}: that is a {type(part.found).__name__} which is made already; name its "
            "class, or a function that returns a new one."
        )
    made = part.product(architecture.options, nn.Module, where)
    if not isinstance(made, nn.Module):
        raise RecipeError(f"{where} must give a torch.nn.Module; got {type(made).__name__}.")
    return made
