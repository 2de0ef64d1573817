"""What each weight of a layer is multiplied with: its inputs as rows, also of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.modules.inputs import Inputs, forward
from compress.quantization.fakequant import channel_axis

__all__ = ["axis_of_channels", "call_counts", "input_products", "listen", "unfolded"]

#: Unfolded inputs are held a few samples at a time: at most so many numbers, where one fits.
_MOST_UNFOLDED = 2**24


class _Enough(Exception):
    """The layer at hand has been called; what comes after it is of no use."""


@torch.no_grad()
def call_counts(module: nn.Module, layers: Iterable[str], batch: Inputs) -> dict[str, int]:
    """How often each layer that is called is called on a batch, in the order of first calls.

    Args:
        module: in eval mode.
        layers: by path.
        batch: of inputs.
    """
    counts: dict[str, int] = {}

    def counter(name: str) -> Callable[[Tensor], None]:
        return lambda _: counts.update({name: counts.get(name, 0) + 1})

    handles = [listen(module.get_submodule(name), counter(name)) for name in layers]
    try:
        forward(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    return counts


@torch.no_grad()
def input_products(
    module: nn.Module, name: str, batches: Iterable[Inputs], *, once: bool
) -> Tensor:
    """Sums of products of a layer's inputs, ``X^T X`` of its rows: ``(groups, inputs, inputs)``.

    Args:
        module: in eval mode.
        name: of a linear layer or a convolution.
        batches: of inputs.
        once: whether the layer is called once for a batch, so that what comes after it need not be
            run.
    """
    layer = module.get_submodule(name)
    total = torch.zeros(())

    def add(values: Tensor) -> None:
        nonlocal total
        for rows in _in_parts(layer, values):
            total = total + (rows.mT @ rows).double()
        if once:
            raise _Enough

    with _listening(layer, add):
        for batch in batches:
            try:
                forward(module, batch)
            except _Enough:
                continue
    return total


def unfolded(layer: nn.Module, values: Tensor) -> Tensor:
    """What the weights of each output meet, a row for each place: ``(groups, rows, inputs)``.

    The inputs are in the order of an output's weights in memory: channels, then places of the
    kernel.

    Args:
        layer: linear, or a convolution with any stride, padding, dilation and groups, transposed
            or not.
        values: what it is called with.
    """
    if isinstance(layer, nn.Linear):
        return values.flatten(0, -2).unsqueeze(0) if values.dim() > 1 else values.view(1, 1, -1)
    assert isinstance(layer, nn.modules.conv._ConvNd)
    places = len(layer.kernel_size)
    values = values if values.dim() == places + 2 else values.unsqueeze(0)
    is_transposed = bool(channel_axis(layer))
    padded = _spread_out(layer, values) if is_transposed else _padded(layer, values)
    for place in range(places):
        stride = 1 if is_transposed else layer.stride[place]
        extent = layer.dilation[place] * (layer.kernel_size[place] - 1) + 1
        windows = padded.unfold(2 + place, extent, stride)
        padded = windows[..., :: layer.dilation[place]]
    if is_transposed:  # its kernel lies the other way round
        padded = padded.flip(list(range(2 + places, 2 + 2 * places)))
    split = padded.reshape(len(padded), layer.groups, -1, *padded.shape[2:])
    # (samples, groups, channels, *places, *kernel) to (groups, samples, *places, channels, *kernel)
    order = [1, 0, *range(3, 3 + places), 2, *range(3 + places, 3 + 2 * places)]
    rows = split.permute(order)
    return rows.flatten(2 + places).flatten(1, 1 + places)


def _padded(layer: nn.modules.conv._ConvNd, values: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(values, layer._reversed_padding_repeated_twice, mode=mode)


def _spread_out(layer: nn.modules.conv._ConvNd, values: Tensor) -> Tensor:
    """The input of a transposed convolution as that of a plain one: zeros between and around."""
    for place, stride in enumerate(layer.stride):
        axis = 2 + place
        size = list(values.shape)
        size[axis] = (size[axis] - 1) * stride + 1
        wider = values.new_zeros(size)
        wider.movedim(axis, 0)[::stride] = values.movedim(axis, 0)
        values = wider
    around: list[int] = []
    for place in reversed(range(len(layer.kernel_size))):
        padding = layer.padding[place]
        assert isinstance(padding, int)
        own = layer.dilation[place] * (layer.kernel_size[place] - 1) - padding
        around += [own, own + layer.output_padding[place]]
    return F.pad(values, around)  # below zero it is cut


def _in_parts(layer: nn.Module, values: Tensor) -> Iterator[Tensor]:
    if isinstance(layer, nn.Linear):
        yield unfolded(layer, values)
        return
    one = unfolded(layer, values[:1])
    if values.dim() == 1 + len(layer.kernel_size):  # type: ignore[arg-type]
        yield unfolded(layer, values)  # a single sample, without an axis for samples
        return
    for part in torch.split(values, max(1, _MOST_UNFOLDED // max(1, one.numel()))):
        yield unfolded(layer, part)


def axis_of_channels(layer: nn.Module, values: Tensor) -> int:
    """The axis of channels in what a linear layer or a convolution takes or gives.

    That of a convolution may come without an axis for samples.
    """
    if isinstance(layer, nn.Linear):
        return values.dim() - 1
    return values.dim() - 1 - len(layer.kernel_size)  # type: ignore[arg-type]


@contextmanager
def _listening(layer: nn.Module, hear: Callable[[Tensor], None]) -> Iterator[None]:
    handle = listen(layer, hear)
    try:
        yield
    finally:
        handle.remove()


def listen(layer: nn.Module, hear: Callable[[Tensor], None]) -> Any:
    """Have ``hear`` called with each input of a layer, given by place or by name, until removed."""

    def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        hear(inputs[0] if inputs else named["input"])

    return layer.register_forward_pre_hook(hook, with_kwargs=True)
