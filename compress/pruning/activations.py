"""What channels hold on average, as a measure of their importance.

Hu et al. 2016, "Network trimming: a data-driven neuron pruning approach towards efficient deep
architectures"; Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient
inference", for the mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import StageError
from compress.modules.inputs import Inputs, forward
from compress.pruning.channel_group import rows_of
from compress.pruning.criterion import Criterion, Scores
from compress.pruning.ids import Axis, ChannelIds
from compress.pruning.layer_inputs import axis_of_channels
from compress.pruning.widths import Pool, layer_of
from compress.quantization.fakequant import channel_axis, quantizable_layers
from compress.quantization.recurrent import RECURRENT

__all__ = ["by_activation", "mean_activations"]

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
# Of others that are read, those whose channels are the last axis.
_LAST = (*RECURRENT, nn.Embedding)


@torch.no_grad()
def mean_activations(module: nn.Module, batches: Iterable[Inputs]) -> dict[str, Tensor]:
    """The mean absolute output of each channel of each layer and batch norm, ``(channels,)``.

    Args:
        module: in eval mode.
        batches: of inputs.

    Returns:
        By path, of linear layers, convolutions, recurrent layers, embeddings and batch norms that
        inference calls.

    Raises:
        StageError: there was no batch.
    """
    layers = dict.fromkeys(quantizable_layers(module))
    more = (*_BATCH_NORMS, *_LAST)
    layers |= {name: None for name, one in module.named_modules() if isinstance(one, more)}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def listener(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def listen(layer: nn.Module, _: Any, outputs: Any) -> None:
            output = outputs[0] if isinstance(outputs, tuple) else outputs
            if not isinstance(output, Tensor):
                return  # packed sequences
            rows = output.detach().double().abs().movedim(_axis_of(layer, output), 0).flatten(1)
            found = rows.sum(1)
            sums[name] = sums[name] + found if name in sums else found
            counts[name] = counts.get(name, 0) + rows.shape[1]

        return listen

    with ExitStack() as hooks:
        for name in layers:
            handle = module.get_submodule(name).register_forward_hook(listener(name))
            hooks.callback(handle.remove)
        ran = [forward(module, batch) is not None for batch in batches]
    if not ran:
        raise StageError("prune: importance activation needs samples to read activations of.")
    return {name: total / counts[name] for name, total in sums.items()}


def by_activation(
    criterion: Criterion, module: nn.Module, batches: Iterable[Inputs], otherwise: Scores
) -> tuple[Criterion, set[str]]:
    """The criterion with the activations that it reads.

    A channel is read where a batch norm scales it, since what a layer gives before that has a scale
    of its own; elsewhere where layers give it. The mean over all these places counts.

    Args:
        criterion: that reads activations.
        module: in eval mode.
        batches: of inputs.
        otherwise: scores of channels that no such layer gives, but a parameter of the model's own.

    Returns:
        The criterion, and the layers whose channels went by ``otherwise``; they are found as it
        scores.
    """
    means, unread = mean_activations(module, batches), set[str]()

    def scores(ranked: nn.Module, ids: ChannelIds, pool: Pool) -> list[float]:
        places = list(_places(ranked, pool, means))
        if not places:
            unread.update(layer_of(axis) for axis in pool.outputs)
            return list(otherwise(ranked, ids, pool))
        parts = torch.zeros(len(places), len(pool.classes), dtype=torch.float64)
        for part, (axis, mean) in zip(parts, places, strict=True):
            rows, channels = rows_of(ids, pool, axis)
            where = torch.tensor(channels)
            part.index_add_(0, where, mean[rows])
            part /= torch.bincount(where, minlength=len(part)).clamp(min=1)
        found: list[float] = parts.mean(0).tolist()
        return found

    return replace(criterion, scores=scores), unread


def _places(
    module: nn.Module, pool: Pool, means: Mapping[str, Tensor]
) -> Iterator[tuple[Axis, Tensor]]:
    """Where the channels of a pool are read: axes, with what each index holds on average."""
    norms: dict[str, Axis] = {}
    for axis in pool.members:  # one of those of a norm: its weight, bias or running statistics
        if isinstance(module.get_submodule(axis.parameter.rpartition(".")[0]), _BATCH_NORMS):
            norms.setdefault(layer_of(axis), axis)
    scaled = [(axis, means[name]) for name, axis in norms.items() if name in means]
    if scaled:
        yield from scaled
        return
    for axis in pool.outputs:
        mean = means.get(layer_of(axis))
        if mean is None:
            continue
        layer = module.get_submodule(layer_of(axis))
        if isinstance(layer, RECURRENT):
            of_state = _of_state(layer, axis, mean)
            if of_state is not None:
                yield axis, of_state
        elif isinstance(layer, nn.Embedding):
            if axis.axis == 1:
                yield axis, mean
        elif axis.axis == channel_axis(layer):
            # A transposed convolution with groups has one index for a channel of every group.
            width = layer.get_parameter("weight").shape[axis.axis]
            yield axis, mean.reshape(-1, width).mean(0)


def _of_state(layer: nn.Module, axis: Axis, mean: Tensor) -> Tensor | None:
    """What the rows of a recurrent layer's weight hold: for every gate the state that it makes.

    ``None`` where the module does not give that state, as of all its layers but the last.
    """
    own = axis.parameter.rpartition(".")[2]
    found = re.fullmatch(r"weight_[ih]h(?:_l(\d+))?(_reverse)?", own)
    last = getattr(layer, "num_layers", 1) - 1
    if found is None or axis.axis != 0 or int(found[1] or 0) != last:
        return None
    width = layer.hidden_size
    assert isinstance(width, int)
    first = width if found[2] else 0  # both directions lie side by side
    return mean[first : first + width].repeat(layer.get_parameter(own).shape[0] // width)


def _axis_of(layer: nn.Module, output: Tensor) -> int:
    if isinstance(layer, _LAST):
        return output.dim() - 1
    return 1 if isinstance(layer, _BATCH_NORMS) else axis_of_channels(layer, output)
