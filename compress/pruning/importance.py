"""Importance of channels: the criteria that rank them. The only file that knows torch-pruning.

Adding a criterion is a function of a :class:`~compress.pruning.channel_group.ChannelGroup` and one
line of ``CRITERIA``.

torch-pruning scores a group of slices of layers. The groups are made of channel ids here, and every
weight is shown to it as a linear layer whose rows are the slices, so that weights that belong to no
layer are scored like others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import StageError
from compress.pruning.channel_group import ChannelGroup, axes_of, group_of, rows_of
from compress.pruning.criterion import OF_WEIGHTS, Criterion, Scores
from compress.pruning.ids import Axis, ChannelIds
from compress.pruning.widths import Pool, layer_of
from compress.quoting import shown

__all__ = [
    "CRITERIA",
    "Criterion",
    "accumulate_gradients",
    "has_batch_norm",
    "is_norm_weight",
    "of_group",
    "score_pool",
]

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_NORMS = (*_BATCH_NORMS, nn.LayerNorm)


def score_pool(module: nn.Module, ids: ChannelIds, pool: Pool, criterion: Criterion) -> list[float]:
    """The importance of each channel of a pool, over the mean of the pool.

    Raises:
        StageError: ``bn-scale`` where no batch norm scales the channels, or a criterion of the
            user's own that gives no scores.
    """
    scores = np.asarray(criterion.scores(module, ids, pool), dtype=np.float64)
    mean = float(scores.mean())
    if criterion.is_relative and mean > 0:
        scores = scores / mean
    return [float(score) for score in scores]


def of_group(name: str, function: Callable[[ChannelGroup], Any]) -> Scores:
    """Scores by a function of a channel group.

    Args:
        name: for sentences.
        function: gives one finite number for each channel of the group, as a tensor or a sequence.
    """

    def scores(module: nn.Module, ids: ChannelIds, pool: Pool) -> list[float]:
        with torch.no_grad():
            found = function(group_of(module, ids, pool))
        return _as_scores(found, len(pool.classes), name)

    return scores


def has_batch_norm(module: nn.Module, pool: Pool) -> bool:
    """Whether a batch norm with weights scales the channels of a pool."""
    return any(is_norm_weight(module, axis, batch_norm=True) for axis in pool.members)


def is_norm_weight(module: nn.Module, axis: Axis, *, batch_norm: bool = False) -> bool:
    """Whether an axis is of the scales of a norm; with ``batch_norm``, of one of these alone."""
    kinds = _BATCH_NORMS if batch_norm else _NORMS
    return isinstance(_owner(module, axis), kinds) and axis.parameter.endswith("weight")


def accumulate_gradients(module: nn.Module, losses: Iterable[Tensor], criterion: Criterion) -> None:
    """Add up the gradients of ``losses`` through ``module``, for a criterion that reads them.

    One that squares them gets the mean of their squares in place of the sum: the diagonal of the
    empirical Fisher information where each loss is of one sample.

    Args:
        module: whose parameters hold them afterwards.
        losses: of batches, or of single samples.
        criterion: that reads them.

    Raises:
        StageError: there was no loss.
    """
    module.zero_grad(set_to_none=True)
    count, squares = 0, dict[nn.Parameter, Tensor]()
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
        count += 1
        if criterion.squares_gradients:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    one = parameter.grad.square()
                    squares[parameter] = squares[parameter] + one if parameter in squares else one
            module.zero_grad(set_to_none=True)
    if count == 0:
        raise StageError(
            f"prune: importance {criterion.name} needs training batches to take gradients of."
        )
    for parameter, total in squares.items():
        parameter.grad = total / count


@dataclass(frozen=True)
class _LayerTarget:
    module: nn.Module


@dataclass(frozen=True)
class _Slices:
    """What torch-pruning asks of an item of a group."""

    layer: nn.Module
    pruning_fn: Any
    idxs: list[int]
    root_idxs: list[int]

    @property
    def target(self) -> _LayerTarget:
        """The layer once more; some criteria ask here."""
        return _LayerTarget(self.layer)

    @property
    def handler(self) -> Any:
        """The function once more."""
        return self.pruning_fn


class _ScoredGroup:
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

    tensors = _tensors(module)
    # The criteria of single layers read the first one.
    for axis in axes_of(pool):
        owner, tensor = _owner(module, axis), tensors[axis.parameter]
        rows, places = rows_of(ids, pool, axis)
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


def _as_scores(found: Any, channels: int, name: str) -> list[float]:
    given = found.tolist() if isinstance(found, Tensor) else found
    try:
        scores = np.asarray(list(given), dtype=np.float64)
    except (TypeError, ValueError):
        scores = None
    if scores is None or scores.shape != (channels,):
        what = shown(given) if scores is None else f"numbers of shape {scores.shape}"
    elif not np.isfinite(scores).all():
        what = "one that is not"
    else:
        return [float(score) for score in scores]
    raise StageError(
        f"prune: importance {name} must return one finite number for each of {channels} channels; "
        f"got {what}."
    )


def _by_torch_pruning(make: Callable[[Any], Any], *, with_gradients: bool = False) -> Scores:
    """Scores by a class of ``torch_pruning.importance``, which ``make`` is given."""

    def scores(module: nn.Module, ids: ChannelIds, pool: Pool) -> list[float]:
        import torch_pruning as tp

        group = [
            item
            for item in _slices(module, ids, pool)
            if not with_gradients or getattr(item.layer.weight, "grad", None) is not None
        ]
        found = make(tp.importance)(_ScoredGroup(group))
        if found is None:
            raise StageError(
                f"prune: importance bn-scale has no batch norm to read behind "
                f"{layer_of(pool.outputs[0])!r}; name that layer in `ignore`, or rank by group-l2."
            )
        listed: list[float] = found[: len(pool.classes)].tolist()
        return listed

    return scores


def _norm(p: int) -> Scores:
    """Norms of a layer's own filters (Li et al. 2017)."""
    return _by_torch_pruning(
        lambda importance: importance.MagnitudeImportance(
            p=p, group_reduction="first", normalizer=None
        )
    )


# Over everything that must go together (Fang et al. 2023).
_GROUP_NORM = _by_torch_pruning(
    lambda importance: importance.GroupMagnitudeImportance(p=2, normalizer=None)
)
# First-order change of the loss (Molchanov et al. 2019), of gradients that the parameters hold.
_TAYLOR = _by_torch_pruning(
    lambda importance: importance.GroupTaylorImportance(normalizer=None), with_gradients=True
)
# Second-order change of the loss by the empirical Fisher information (LeCun et al. 1989).
_HESSIAN = _by_torch_pruning(
    lambda importance: importance.GroupHessianImportance(normalizer=None), with_gradients=True
)
# The norm over the group, over what is left of the layer once all smaller ones are gone.
_LAMP = _by_torch_pruning(lambda importance: importance.LAMPImportance())
# The scale that a batch norm has learned for the channel (Liu et al. 2017).
_BN_SCALE = _by_torch_pruning(lambda importance: importance.BNScaleImportance(normalizer=None))


def _distances(group: ChannelGroup) -> Tensor:
    """Sums of the distances of the layer's own filters to one another."""
    own = next(one.weights for one in group.slices if one.is_output)
    return torch.cdist(own, own).sum(1)


def _no_inputs(*_: object) -> list[float]:
    raise StageError("prune: importance activation needs samples to read activations of.")


def _random(group: ChannelGroup) -> Tensor:
    """Uniform, from torch's global generator."""
    return torch.rand(group.channels)


#: By name, as recipes know them.
CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        criterion.name: criterion
        for criterion in (
            Criterion(
                "l1",
                _norm(1),
                by_magnitude=True,
                about="sum of the absolute weights of the layer's own filters (Li et al. 2017)",
            ),
            Criterion(
                "l2",
                _norm(2),
                by_magnitude=True,
                about="norm of the layer's own filters (Li et al. 2017)",
            ),
            Criterion(
                "group-l2",
                _GROUP_NORM,
                by_magnitude=True,
                about="norm over all layers whose channels go together (Fang et al. 2023)",
            ),
            Criterion(
                "taylor",
                _TAYLOR,
                reads_gradients=True,
                about="what the loss would change by, from gradients on training data "
                "(Molchanov et al. 2019)",
            ),
            Criterion(
                "hessian",
                _HESSIAN,
                reads_gradients=True,
                squares_gradients=True,
                about="what the loss would change by to the second order, by the empirical Fisher "
                "information of single samples (LeCun et al. 1989, optimal brain damage)",
            ),
            Criterion(
                "lamp",
                _LAMP,
                is_relative=False,
                about="norm over the group over that of all larger ones, which compares layers "
                "under scope: global (Lee et al. 2021)",
            ),
            Criterion(
                "fpgm",
                of_group("fpgm", _distances),
                about="distance of the layer's own filters to all others: what is near to the "
                "geometric median, others can stand for (He et al. 2019)",
            ),
            Criterion(
                "bn-scale",
                _BN_SCALE,
                reads_batch_norm=True,
                about="scale that a batch norm has learned for the channel (Liu et al. 2017)",
            ),
            Criterion(
                "activation",
                _no_inputs,
                reads_activations=True,
                about="mean absolute activation of the channel over calibration data "
                "(Hu et al. 2016)",
            ),
            *OF_WEIGHTS,
            Criterion(
                "random",
                of_group("random", _random),
                is_relative=False,
                about="no ranking: what a criterion has to beat",
            ),
        )
    }
)
