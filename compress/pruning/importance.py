"""Importance of channels, by torch-pruning. The only file that knows it.

torch-pruning scores a group of slices of layers. The groups are made of channel ids here, and every
weight is shown to it as a linear layer whose rows are the slices, so that weights that belong to no
layer are scored like others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import StageError
from compress.pruning.ids import Axis, ChannelIds
from compress.pruning.widths import Pool, layer_of

__all__ = ["Importance", "accumulate_gradients", "has_batch_norm", "score_pool"]

Importance = Literal["l1", "l2", "group-l2", "taylor", "bn-scale", "random"]

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_NORMS = (*_BATCH_NORMS, nn.LayerNorm)


def score_pool(
    module: nn.Module, ids: ChannelIds, pool: Pool, importance: Importance
) -> list[float]:
    """The importance of each class of a pool, over the mean of the pool.

    ``l1`` and ``l2`` norms of a layer's own filters (Li et al. 2017), ``group-l2`` over everything
    that must go together (Fang et al. 2023), ``taylor`` first-order change of the loss (Molchanov
    et al. 2019; of gradients that the parameters hold), ``bn-scale`` (Liu et al. 2017), ``random``.

    Raises:
        StageError: ``bn-scale`` where no batch norm scales the channels.
    """
    if importance == "random":
        drawn: list[float] = torch.rand(len(pool.classes)).tolist()
        return drawn
    group = [
        item
        for item in _slices(module, ids, pool)
        if importance != "taylor" or getattr(item.layer.weight, "grad", None) is not None
    ]
    found = _criterion(importance)(_Group(group))
    if found is None:
        raise StageError(
            f"prune: importance {importance} has no batch norm to read behind "
            f"{layer_of(pool.outputs[0])!r}; name that layer in `ignore`, or rank by group-l2."
        )
    scores = np.asarray(found[: len(pool.classes)].tolist())
    mean = float(scores.mean())
    return [float(score) for score in (scores / mean if mean > 0 else scores)]


def has_batch_norm(module: nn.Module, pool: Pool) -> bool:
    """Whether a batch norm with weights scales the channels of a pool."""
    return any(
        isinstance(_owner(module, axis), _BATCH_NORMS) and axis.parameter.endswith("weight")
        for axis in pool.members
    )


def accumulate_gradients(module: nn.Module, losses: Iterable[Tensor]) -> None:
    """Add up the gradients of ``losses`` of batches through ``module``, for ``taylor``.

    Raises:
        StageError: there was no loss.
    """
    module.zero_grad(set_to_none=True)
    count = 0
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
        count += 1
    if count == 0:
        raise StageError("prune: importance taylor needs training batches to take gradients of.")


@dataclass(frozen=True)
class _Target:
    module: nn.Module


@dataclass(frozen=True)
class _Slices:
    """What torch-pruning asks of an item of a group."""

    layer: nn.Module
    pruning_fn: Any
    idxs: list[int]
    root_idxs: list[int]

    @property
    def target(self) -> _Target:
        """The layer once more; some criteria ask here."""
        return _Target(self.layer)

    @property
    def handler(self) -> Any:
        """The function once more."""
        return self.pruning_fn


class _Group:
    def __init__(self, items: list[_Slices]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[tuple[_Slices, list[int]]]:
        return ((item, item.idxs) for item in self._items)

    def __getitem__(self, place: int) -> _Slices:
        return self._items[place]

    def __len__(self) -> int:
        return len(self._items)


def _slices(module: nn.Module, ids: ChannelIds, pool: Pool) -> Iterator[_Slices]:
    import torch_pruning as tp

    place_of = {root: place for place, root in enumerate(pool.classes)}
    tensors = _tensors(module)
    # The criteria of single layers read the first one.
    axes = [*pool.outputs, *(axis for axis in pool.members if axis not in pool.outputs)]
    for axis in axes:
        owner, tensor = _owner(module, axis), tensors[axis.parameter]
        roots = ids.roots(ids.of_axis[axis])
        rows = np.flatnonzero(np.isin(roots, pool.classes)).tolist()
        places = [place_of[int(roots[row])] for row in rows]
        if isinstance(owner, _NORMS) and axis.parameter.endswith("weight"):
            norm = isinstance(owner, nn.LayerNorm)
            prune = tp.prune_layernorm_out_channels if norm else tp.prune_batchnorm_out_channels
            yield _Slices(owner, prune, rows, places)
        elif tensor.dim() > 1:
            yield _Slices(_as_linear(tensor, axis.axis), tp.prune_linear_out_channels, rows, places)


def _as_linear(tensor: Tensor, axis: int) -> nn.Linear:
    rows = tensor.detach().movedim(axis, 0).flatten(1)
    layer = nn.Linear(1, 1, bias=False, device="meta")
    layer.weight = nn.Parameter(rows)
    if tensor.grad is not None:
        layer.weight.grad = tensor.grad.movedim(axis, 0).flatten(1)
    return layer


def _tensors(module: nn.Module) -> Mapping[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _owner(module: nn.Module, axis: Axis) -> nn.Module:
    return module.get_submodule(axis.parameter.rpartition(".")[0])


def _criterion(importance: Importance) -> Any:
    import torch_pruning as tp

    single = tp.importance.MagnitudeImportance
    if importance == "l1":
        return single(p=1, group_reduction="first", normalizer=None)
    if importance == "l2":
        return single(p=2, group_reduction="first", normalizer=None)
    if importance == "group-l2":
        return tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
    if importance == "taylor":
        return tp.importance.GroupTaylorImportance(normalizer=None)
    return tp.importance.BNScaleImportance(normalizer=None)
