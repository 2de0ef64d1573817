"""Ties: tensors that a module holds once, under several names.

They are structure: saved, restored and counted once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.errors import CheckpointError

__all__ = ["Ties", "buffers_of", "check_ties", "parameters_of", "temporary_buffers"]
__all__ += ["ties_among", "ties_of", "ties_of_equals", "under_first_names"]

#: All names of each tensor that has several.
Ties = tuple[tuple[str, ...], ...]


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters, under all their names."""
    return dict(module.named_parameters(remove_duplicate=False))


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """All buffers, under all their names."""
    return dict(module.named_buffers(remove_duplicate=False))


def temporary_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that are not persistent, of kinds that can be stored."""
    # Buffers that are not persistent, and may have been cut; safetensors cannot hold all kinds.
    lasting = module.state_dict().keys()
    left = ((name, buffer) for name, buffer in buffers_of(module).items() if name not in lasting)
    return {n: b for n, b in left if b.layout == torch.strided and b.dtype != torch.complex128}


def ties_among(tensors: Mapping[str, Tensor]) -> Ties:
    """The names of each tensor that has several."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)


def ties_of(module: nn.Module) -> Ties:
    """The ties of a module's parameters, and of its buffers."""
    return ties_among(parameters_of(module)) + ties_among(buffers_of(module))


def under_first_names(tensors: Mapping[str, Tensor], ties: Ties) -> dict[str, Tensor]:
    """The tensors, each once."""
    further = {name for names in ties for name in names[1:]}
    return {name: tensor for name, tensor in tensors.items() if name not in further}


def ties_of_equals(module: nn.Module, tensors: Mapping[str, Tensor]) -> Ties:
    """The module's ties between tensors that are equal in a file."""
    # For files that say nothing of ties, and have a tensor for every name.
    there = (names for names in ties_of(module) if tensors.keys() >= {*names})
    return tuple(n for n in there if all(torch.equal(tensors[n[0]], tensors[name]) for name in n))


def check_ties(module: nn.Module, ties: Ties, source: Path) -> None:
    """Hold the ties of a file to what can be tied.

    Raises:
        CheckpointError: they name what is not there, or what cannot be one tensor.
    """
    # A stage may tie more than the built module does, but only what can be one tensor.
    parameters, first = parameters_of(module), dict[str, str]()
    held = parameters | buffers_of(module)

    def facts(name: str) -> str:
        if name not in held or name in first:
            return "tied already" if name in first else "no tensor of the model"
        kind = "parameter" if name in parameters else "buffer"
        return f"a {kind} of {tuple(held[name].shape)} in {held[name].dtype}"

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"{source}: {what}; load it into the model it came from.")

    for names in ties:
        expected = facts(names[0])
        for name in names:
            if name not in held or name in first or facts(name) != expected:
                raise refuse(f"it ties {names[0]!r} ({expected}) to {name!r} ({facts(name)})")
            first[name] = names[0]
    for one, name in ((names[0], name) for names in ties_among(parameters) for name in names):
        if first.get(name, name) != first.get(one, one):
            raise refuse(f"it holds {one!r} and {name!r} as two tensors, the model as one")
