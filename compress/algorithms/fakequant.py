"""Fake quantisation: how a float module computes once its declared formats are applied.

The one owner of the weight grid and its rounding; lowering writes the same grid into ONNX.
Weights are symmetric and per output channel, activations unsigned 8 bit and per tensor, rounding is
half to even, gradients pass straight through (Jacob et al. 2018, "Quantization and training of
neural networks for efficient integer-arithmetic-only inference").

A symmetric per-channel grid commutes with a per-channel factor, so quantising a convolution before
its batch norm is folded gives the same integers as quantising it after.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.algorithms.calibrate import RangeObserver, activation_grid
from compress.inputs import Inputs, forward, to_device
from compress.numerics import LayerFormat, Numerics, weight_bits

__all__ = [
    "channel_axis",
    "declared_formats",
    "effective",
    "fake_quantize_weight",
    "layers_with_formats",
    "observe_ranges",
    "quantizable_layers",
    "simulate",
    "weight_scale",
]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_QUANTIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
# Layers that look rows up: their weights can be stored in few bits, and nothing is multiplied.
_TABLES = (nn.Embedding,)
_LARGEST_UINT8 = 255

Ranges = Mapping[str, tuple[float, float]]


def quantizable_layers(module: nn.Module) -> dict[str, str]:
    """Path and class name of every layer that computes products with its weights, in order."""
    return _layers_of(module, _QUANTIZABLE)


def layers_with_formats(module: nn.Module) -> dict[str, str]:
    """Path and class name of every layer whose weights can have an integer format, in order.

    Those of :func:`quantizable_layers`, and tables of rows (``nn.Embedding``).
    """
    return _layers_of(module, (*_QUANTIZABLE, *_TABLES))


def declared_formats(module: nn.Module, numerics: Numerics) -> dict[str, LayerFormat]:
    """The format of every layer of ``module`` that can have one.

    Raises:
        SelectorError: a rule whose pattern matches no layer.
    """
    formats = numerics.resolve(layers_with_formats(module))
    tables = _layers_of(module, _TABLES)
    return {name: f.of_a_table if name in tables else f for name, f in formats.items()}


def channel_axis(layer: nn.Module) -> int:
    """The axis of ``layer.weight`` that counts output channels; of a table, its rows."""
    return 1 if isinstance(layer, _TRANSPOSED) else 0


def weight_scale(weight: Tensor, *, axis: int, bits: int, avoid_saturation: bool = False) -> Tensor:
    """Step of the symmetric grid of each output channel, shape ``(channels,)``.

    The largest weight falls on the last level. With ``avoid_saturation`` the step also keeps the
    sum of any two weights of one sign within 127 levels: x86 without VNNI adds pairs of
    ``uint8 x int8`` products in 16 bits (``vpmaddubsw``), which holds ``255 * 128`` and no more.
    Halving the range altogether, as is usual, also prevents it and gives up a whole bit; this step
    is never coarser than that, and finer wherever a channel has one dominant weight.
    """
    rows = weight.detach().movedim(axis, 0).flatten(1)
    levels = 2 ** (bits - 1) - 1
    step = rows.abs().amax(1) / levels
    if avoid_saturation and bits == 8:
        count = min(2, rows.shape[1])
        pairs = [part.clamp(min=0).topk(count, dim=1).values.sum(1) for part in (rows, -rows)]
        step = torch.maximum(step, torch.maximum(*pairs) / levels)
    return torch.where(step > 0, step, torch.ones_like(step))


def fake_quantize_weight(
    weight: Tensor, *, axis: int, format: LayerFormat, avoid_saturation: bool = False
) -> Tensor:
    """``weight`` snapped to its format's grid, same shape; the gradient passes straight through."""
    bits = weight_bits(format.weights)
    if bits is None:
        return _round_to_half(weight) if format.weights == "float16" else weight
    scale = weight_scale(weight, axis=axis, bits=bits, avoid_saturation=avoid_saturation)
    levels = 2 ** (bits - 1) - 1
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -levels, levels)


def effective(module: nn.Module, formats: Mapping[str, LayerFormat]) -> nn.Module:
    """A copy of ``module`` whose weights are snapped to their grids: what it computes with."""
    snapped = copy.deepcopy(module)
    with torch.no_grad():
        for name, format in formats.items():
            layer = snapped.get_submodule(name)
            weight = layer.get_parameter("weight")
            weight.copy_(fake_quantize_weight(weight, axis=channel_axis(layer), format=format))
    return snapped


@contextmanager
def simulate(
    module: nn.Module,
    formats: Mapping[str, LayerFormat],
    ranges: Ranges,
    *,
    avoid_saturation: bool = False,
) -> Iterator[None]:
    """While open, ``module`` computes with its declared formats; parameters stay as they are.

    ``ranges`` gives the input range of every layer with static int8 activations
    (:func:`observe_ranges`). Gradients reach the float parameters straight through.

    Raises:
        KeyError: a static layer without a range.
    """
    handles: list[RemovableHandle] = []
    layers: list[nn.Module] = []
    try:
        for name, format in formats.items():
            if format.is_float32:
                continue
            layer = module.get_submodule(name)
            layers.append(layer)
            bounds = ranges[name] if format.is_static_int8 else None
            handles.extend(_quantize_around(layer, format, bounds, avoid_saturation))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.__dict__.pop("weight", None)


@torch.no_grad()
def observe_ranges(
    module: nn.Module, formats: Mapping[str, LayerFormat], batches: Iterable[Inputs]
) -> dict[str, tuple[float, float]]:
    """Input range of every layer with static int8 activations, seen over ``batches`` of inputs.

    Raises:
        ValueError: no batch, or an activation that is not finite.
    """
    static = {name: format for name, format in formats.items() if format.is_static_int8}
    observers = {name: RangeObserver() for name in static}
    handles = [
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, observer=observer: observer.update(inputs[0].cpu().numpy())
        )
        for name, observer in observers.items()
    ]
    was_training = module.training
    module.eval()
    try:
        if static:
            device = next(module.parameters()).device
            for batch in batches:
                forward(module, to_device(batch, device))
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return {name: observers[name].range(static[name].calibration) for name in static}


def _layers_of(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, str]:
    return {
        name: type(layer).__name__
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    }


def _quantize_around(
    layer: nn.Module,
    format: LayerFormat,
    bounds: tuple[float, float] | None,
    avoid_saturation: bool,
) -> tuple[RemovableHandle, RemovableHandle]:
    # The snapped weight shadows the parameter for the length of one forward pass. Parametrisations
    # would do the same, but they rename parameters and change the layer's class.
    axis, is_table = channel_axis(layer), isinstance(layer, _TABLES)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        weight = module._parameters["weight"]
        assert weight is not None
        module.__dict__["weight"] = fake_quantize_weight(
            weight, axis=axis, format=format, avoid_saturation=avoid_saturation and not is_table
        )
        if is_table:
            return inputs
        return (_fake_quantize_activation(inputs[0], format, bounds), *inputs[1:])

    def after(module: nn.Module, *_: Any) -> None:
        module.__dict__.pop("weight", None)

    return (
        layer.register_forward_pre_hook(before),
        layer.register_forward_hook(after, always_call=True),
    )


def _fake_quantize_activation(
    values: Tensor, format: LayerFormat, bounds: tuple[float, float] | None
) -> Tensor:
    if format.activations == "float16":
        return _round_to_half(values)
    if format.activations == "dynamic":
        return _fake_quantize_each_sample(values)
    if bounds is None:
        return values
    scale, zero_point = activation_grid(*bounds)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, _LARGEST_UINT8)


def _fake_quantize_each_sample(values: Tensor) -> Tensor:
    rows = values.detach().flatten(1)
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    scale = (high - low) / _LARGEST_UINT8
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (-low / scale).round().clamp(0, _LARGEST_UINT8).to(torch.int32)
    return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, 0, _LARGEST_UINT8)


def _round_to_half(values: Tensor) -> Tensor:
    rounded = values.detach().half().float()
    return values + (rounded - values).detach()
