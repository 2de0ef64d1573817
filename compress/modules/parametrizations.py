"""Plain modules: weights that torch works out anew in every forward pass, folded into parameters.

Weight norm, spectral norm, the masks of ``torch.nn.utils.prune`` and all of
``torch.nn.utils.parametrize`` put something in the place of a parameter. Stages prune, quantize and
store parameters, so that a candidate's module has none of these.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compress.config.selectors import named

__all__ = ["duplicate", "fold_parametrizations", "masked_tensors"]

_MASK, _WEIGHT_NORM, _SPECTRAL_NORM = "pruning mask", "weight norm", "spectral norm"
_PARAMETRIZATION, _HOLDER = "parametrization", "parametrizations"
#: What a weight is worked out from, by what is behind its name.
_PARTS: Mapping[str, tuple[str, ...]] = {
    _MASK: ("_orig", "_mask"),
    _WEIGHT_NORM: ("_g", "_v"),
    _SPECTRAL_NORM: ("_orig", "_u", "_v"),
}
_WITH_HOOKS_OF_STATE = ("torch.nn.utils.spectral_norm", "torch.nn.utils.parametrizations")


def duplicate(module: nn.Module) -> nn.Module:
    """A copy of ``module``, which stays as it is.

    ``copy.deepcopy`` refuses tensors that gradients flow through to others. A module holds such
    where a hook computes its weight, or where its forward keeps something: the copy has their
    values.
    """
    computed = {id(t): t.detach().clone() for t in _held(module) if not t.is_leaf}
    return copy.deepcopy(module, computed)


def masked_tensors(module: nn.Module) -> tuple[str, ...]:
    """Paths of the parameters that ``torch.nn.utils.prune`` masks, while it does.

    Once a mask is folded its zeros are weights like others, and stay zero only under an
    invariant.
    """
    return tuple(
        _path(name, tensor)
        for name, layer in module.named_modules()
        for kind, tensor, _ in _hooks(layer)
        # A mask may also be on what a weight is worked out from, which is gone afterwards.
        if kind == _MASK and tensor not in _ingredients(layer) and _HOLDER not in name.split(".")
    )


@torch.no_grad()
def fold_parametrizations(module: nn.Module) -> list[str]:
    """Fold every reparametrization in place; a note for each kind of it that there was.

    Each weight becomes a parameter of its own name, with the value that inference computes with.
    Other hooks stay. To leave a module as it is, fold its :func:`duplicate`.
    """
    folded: dict[str, list[str]] = {}
    for name, layer in list(module.named_modules()):
        for kind, tensor in _fold(layer):
            folded.setdefault(kind, []).append(_path(name, tensor))
    return [
        f"the {kind} of {named(tensors)} was folded into plain weights"
        for kind, tensors in sorted(folded.items())
    ]


def _held(module: nn.Module) -> Iterator[Tensor]:
    for layer in module.modules():
        for value in vars(layer).values():
            inside = value.values() if isinstance(value, dict) else value
            several = isinstance(value, (dict, list, tuple))
            yield from (t for t in (inside if several else [value]) if isinstance(t, Tensor))


def _path(layer: str, tensor: str) -> str:
    return f"{layer}.{tensor}" if layer else tensor


def _hooks(layer: nn.Module) -> list[tuple[str, str, int]]:
    """Kind, parameter and key of each hook that works a weight out, in order."""
    found = []
    for key, hook in layer._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod):
            found.append((_MASK, hook._tensor_name, key))
        elif isinstance(hook, WeightNorm):
            found.append((_WEIGHT_NORM, hook.name, key))
        elif isinstance(hook, SpectralNorm):
            found.append((_SPECTRAL_NORM, hook.name, key))
    return found


def _ingredients(layer: nn.Module) -> set[str]:
    return {f"{tensor}{part}" for kind, tensor, _ in _hooks(layer) for part in _PARTS[kind]}


def _fold(layer: nn.Module) -> list[tuple[str, str]]:
    """Kind and parameter of each reparametrization of the layer itself, once it is folded."""
    folded = [*_fold_hooks(layer), *_fold_parametrizations(layer)]
    if folded:
        _drop_hooks_of_state(layer)
    return folded


def _fold_hooks(layer: nn.Module) -> Iterator[tuple[str, str]]:
    # From the last: a mask may be on what an earlier one works a weight out from.
    for kind, tensor, key in reversed(_hooks(layer)):
        value = _value(layer, kind, layer._forward_pre_hooks.pop(key))
        for part in _PARTS[kind]:
            delattr(layer, f"{tensor}{part}")
        setattr(layer, tensor, nn.Parameter(value))
        yield kind, tensor


def _value(layer: nn.Module, kind: str, hook: Any) -> Tensor:
    """The weight as inference computes it, in memory of its own."""
    if kind == _MASK:
        value: Tensor = hook.apply_mask(layer)
    elif kind == _SPECTRAL_NORM:
        value = hook.compute_weight(layer, do_power_iteration=False)
    else:
        value = hook.compute_weight(layer)
    return value.detach().clone()


def _drop_hooks_of_state(layer: nn.Module) -> None:
    # Those that see to the parts of a norm when weights are saved and loaded; torch's own removal
    # leaves some of them.
    for hooks in (layer._state_dict_hooks, layer._load_state_dict_pre_hooks):
        for key, hook in list(hooks.items()):
            if getattr(hook, "hook", hook).__module__ in _WITH_HOOKS_OF_STATE:
                del hooks[key]


def _fold_parametrizations(layer: nn.Module) -> Iterator[tuple[str, str]]:
    if not is_parametrized(layer):
        return
    holder = layer.get_submodule(_HOLDER)
    fold_parametrizations(holder)
    holder.eval()  # in training, spectral norm would take another step first
    values = {name: getattr(layer, name).detach().clone() for name, _ in holder.named_children()}
    parameters = {path.split(".original")[0] for path, _ in holder.named_parameters()}
    # Not torch's own removal: it edits the class, which a copy shares with its original.
    layer.__class__ = type_before_parametrizations(layer)
    delattr(layer, _HOLDER)
    for name, value in values.items():
        if name in parameters:
            setattr(layer, name, nn.Parameter(value))
        else:
            layer.register_buffer(name, value)
        yield _PARAMETRIZATION, name
