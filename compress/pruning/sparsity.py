"""Zeros inside weights: choosing them by magnitude, and keeping them through training.

Masks are never stored: a weight that is zero now is to stay zero, so the weights are the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from compress.errors import InvariantBroken
from compress.pruning.invariants import Invariant
from compress.quantization.fakequant import channel_axis

__all__ = [
    "inputs_first",
    "keep_zeros",
    "magnitude_masks",
    "n_of_m_masks",
    "outputs_first",
    "pattern_masks",
    "per_output_masks",
    "verify_zeros",
    "zero_tensors",
]

_NONE: Mapping[str, int] = MappingProxyType({})


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


def per_output_masks(
    module: nn.Module, scores: Mapping[str, Tensor], ratio: float
) -> dict[str, Tensor]:
    """True where a weight stays: of each output all but the ``ratio`` with the smallest scores."""
    masks = {}
    for name, score in scores.items():
        layer = module.get_submodule(name.rpartition(".")[0])
        axis, groups = channel_axis(layer), getattr(layer, "groups", 1)
        masks[name] = _by_output(score, axis, groups, lambda rows: _largest_of_rows(rows, ratio))
    return masks


def n_of_m_masks(
    weights: Mapping[str, Tensor],
    n: int,
    m: int,
    *,
    axes: Mapping[str, int] = _NONE,
    groups: Mapping[str, int] = _NONE,
) -> dict[str, Tensor]:
    """True for the ``n`` largest of every ``m`` consecutive inputs (Mishra et al. 2021).

    The inputs of an output channel are its weights on all other axes, in memory order; a last
    group shorter than ``m`` is kept.

    Args:
        weights: by name.
        n: how many of each group stay.
        m: how many there are in a group.
        axes: the axis of output channels, of weights where it is not the first.
        groups: of such weights (transposed convolutions), into how many groups of channels the
            convolution is split, where it is.
    """

    def mask(name: str, weight: Tensor) -> Tensor:
        size, axis, parts = weight.detach().abs(), axes.get(name, 0), groups.get(name, 1)
        return _by_output(size, axis, parts, lambda rows: _largest_of_each(rows, n, m))

    return {name: mask(name, weight) for name, weight in weights.items()}


def pattern_masks(
    module: nn.Module,
    tensors: Iterable[str],
    n: int,
    m: int,
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """:func:`n_of_m_masks` of weights of ``module``, by their paths: along each layer's inputs.

    Where there are ``scores`` of the weights, those with the largest stay.
    """
    layers = {name: module.get_submodule(name.rpartition(".")[0]) for name in tensors}
    return n_of_m_masks(
        {name: scores[name] if scores else module.get_parameter(name) for name in layers},
        n,
        m,
        axes={name: channel_axis(layer) for name, layer in layers.items()},
        groups={name: getattr(layer, "groups", 1) for name, layer in layers.items()},
    )


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
    """Check that no zero that has to stay was lost between two modules of the same layer names.

    Raises:
        InvariantBroken: a tensor is gone, or has more non-zero weights than before.
    """
    for name in _named(invariants):
        try:
            old, new = before.get_parameter(name), after.get_parameter(name)
        except AttributeError:
            raise InvariantBroken(
                f"{name} has to keep its zeros (an invariant of an earlier stage) and no longer "
                "exists."
            ) from None
        same = old.shape == new.shape
        lost = int(((old == 0) & (new != 0)).sum()) if same else _surplus(old, new)
        if lost > 0:
            raise InvariantBroken(
                f"{name} has to keep its zeros (an invariant of an earlier stage), and {lost} of "
                "them are no longer zero."
            )


def outputs_first(weight: Tensor, axis: int, groups: int) -> Tensor:
    """A transposed convolution's weight ``(in, out / groups, ...)`` as ``(out, in / groups, ...)``.

    A weight whose first axis counts the outputs stays as it is, whatever its groups.
    """
    if axis == 0:
        return weight
    split = weight.reshape(groups, -1, *weight.shape[1:])
    return split.movedim(axis + 1, 1).flatten(0, 1)


def inputs_first(rows: Tensor, axis: int, groups: int) -> Tensor:
    """The inverse of :func:`outputs_first`."""
    if axis == 0:
        return rows
    split = rows.reshape(groups, -1, *rows.shape[1:])
    return split.movedim(1, axis + 1).flatten(0, 1)


def _by_output(
    weight: Tensor, axis: int, groups: int, choose: Callable[[Tensor], Tensor]
) -> Tensor:
    """A mask by ``choose``, which is given a row for each output: its weights on all inputs."""
    rows = outputs_first(weight, axis, groups)
    return inputs_first(choose(rows.flatten(1)).view_as(rows), axis, groups)


def _largest_of_each(rows: Tensor, n: int, m: int) -> Tensor:
    grouped = rows.shape[1] - rows.shape[1] % m
    runs = rows[:, :grouped].reshape(rows.shape[0], -1, m)
    kept = torch.zeros_like(runs, dtype=torch.bool)
    kept.scatter_(2, runs.topk(n, dim=2).indices, True)
    full = torch.ones_like(rows, dtype=torch.bool)
    full[:, :grouped] = kept.flatten(1)
    return full


def _largest_of_rows(rows: Tensor, ratio: float) -> Tensor:
    drop = round(rows.shape[1] * ratio)
    kept = torch.ones_like(rows, dtype=torch.bool)
    return kept.scatter_(1, rows.argsort(dim=1, stable=True)[:, :drop], False)


def _surplus(old: Tensor, new: Tensor) -> int:
    return int(torch.count_nonzero(new)) - int(torch.count_nonzero(old))


def _named(invariants: Iterable[Invariant]) -> list[str]:
    return list(dict.fromkeys(name for invariant in invariants for name in invariant.tensors))


def _largest(weight: Tensor, ratio: float) -> Tensor:
    flat = weight.detach().abs().flatten()
    drop = round(flat.numel() * ratio)
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[flat.argsort(stable=True)[:drop]] = False
    return kept.view_as(weight)
