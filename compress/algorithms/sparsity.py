"""Zeros inside weights: choosing them by magnitude, and keeping them through training.

Masks are never stored: a weight that is zero now is to stay zero, so the weights are the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.errors import InvariantBroken
from compress.invariants import Invariant

__all__ = ["keep_zeros", "magnitude_masks", "n_of_m_masks", "verify_zeros", "zero_tensors"]


def magnitude_masks(
    weights: Mapping[str, Tensor], ratio: float, scope: Literal["local", "global"]
) -> dict[str, Tensor]:
    """True where a weight stays: all but the ``ratio`` smallest, per tensor or over all of them.

    Already zero weights count among the smallest, so a second call with a larger ratio adds to the
    first (Han et al. 2015, "Learning both weights and connections").
    """
    if scope == "local":
        return {name: _largest(weight, ratio) for name, weight in weights.items()}
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    sizes = [weight.numel() for weight in weights.values()]
    kept = torch.split(_largest(flat, ratio), sizes)
    return {
        name: mask.view_as(weight)
        for (name, weight), mask in zip(weights.items(), kept, strict=True)
    }


def n_of_m_masks(weights: Mapping[str, Tensor], n: int, m: int) -> dict[str, Tensor]:
    """True for the ``n`` largest of every ``m`` consecutive inputs (Mishra et al. 2021).

    Inputs are the axes after the first, in memory order; a last group shorter than ``m`` is kept.
    """

    def mask(weight: Tensor) -> Tensor:
        rows = weight.detach().abs().flatten(1)
        whole = rows.shape[1] - rows.shape[1] % m
        groups = rows[:, :whole].reshape(rows.shape[0], -1, m)
        kept = torch.zeros_like(groups, dtype=torch.bool)
        kept.scatter_(2, groups.topk(n, dim=2).indices, True)
        full = torch.ones_like(rows, dtype=torch.bool)
        full[:, :whole] = kept.flatten(1)
        return full.view_as(weight)

    return {name: mask(weight) for name, weight in weights.items()}


def zero_tensors(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set weights to zero where their mask is false, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(mask)


def keep_zeros(module: nn.Module, invariants: Sequence[Invariant]) -> Callable[[], None]:
    """A function that puts the present zeros of the named tensors back, for use after each step."""
    masks = {name: module.get_parameter(name) != 0 for name in _named(invariants)}

    def put_back() -> None:
        for name, mask in masks.items():
            # The module may have moved to another device since.
            masks[name] = mask.to(module.get_parameter(name).device)
        zero_tensors(module, masks)

    return put_back


def verify_zeros(before: nn.Module, after: nn.Module, invariants: Sequence[Invariant]) -> None:
    """Check that no promised zero was lost between two modules of the same layer names.

    Raises:
        InvariantBroken: a tensor is gone, or has more non-zero weights than before.
    """
    for name in _named(invariants):
        try:
            old, new = before.get_parameter(name), after.get_parameter(name)
        except AttributeError:
            raise InvariantBroken(
                f"{name} was promised to keep its zeros and no longer exists."
            ) from None
        same = old.shape == new.shape
        lost = int(((old == 0) & (new != 0)).sum()) if same else _surplus(old, new)
        if lost > 0:
            raise InvariantBroken(
                f"{name} was promised to keep its zeros and {lost} of them are no longer zero."
            )


def _surplus(old: Tensor, new: Tensor) -> int:
    return int(torch.count_nonzero(new)) - int(torch.count_nonzero(old))


def _named(invariants: Iterable[Invariant]) -> list[str]:
    return list(dict.fromkeys(name for promise in invariants for name in promise.tensors))


def _largest(weight: Tensor, ratio: float) -> Tensor:
    flat = weight.detach().abs().flatten()
    drop = round(flat.numel() * ratio)
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[flat.argsort(stable=True)[:drop]] = False
    return kept.view_as(weight)
