"""Fake quantization: how a float module computes once its declared formats are applied.

The one owner of the weight grid and its rounding; lowering writes the same grid into ONNX.
Weights are symmetric and per output channel, activations unsigned 8 bit and per tensor, rounding is
half to even, gradients pass straight through (Jacob et al. 2018, "Quantization and training of
neural networks for efficient integer-arithmetic-only inference").

A symmetric per-channel grid commutes with a per-channel factor, so quantizing a convolution before
its batch norm is folded gives the same integers as quantizing it after.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.modules.inputs import Inputs, copied, forward, to_device
from compress.quantization.numerics import LayerFormat, Numerics, weight_bits
from compress.quantization.ranges import RangeObserver, activation_grid
from compress.quantization.recurrent import (
    RECURRENT,
    StepByStep,
    has_int8_kernel,
    is_stepwise,
    weight_names,
)

__all__ = [
    "as_computed",
    "called_layers",
    "channel_axis",
    "declared_formats",
    "effective",
    "fake_quantize_weight",
    "layers_with_formats",
    "observe_ranges",
    "quantizable_layers",
    "simulate",
    "weight_axes",
    "weight_scale",
]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_QUANTIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
# Layers that look rows up: their weights can be stored in few bits, and nothing is multiplied.
_TABLES = (nn.Embedding,)
_LARGEST_UINT8 = 255

Ranges = Mapping[str, tuple[float, float]]


def quantizable_layers(module: nn.Module) -> dict[str, str]:
    """Path and class name of every layer whose output is a product with its weight, in order."""
    return _layers_of(module, _QUANTIZABLE)


def layers_with_formats(module: nn.Module) -> dict[str, str]:
    """Path and class name of every layer whose weights can have an integer format, in order.

    Those of :func:`quantizable_layers`, recurrent ones, and tables of rows (``nn.Embedding``).
    """
    return _layers_of(module, (*_QUANTIZABLE, *RECURRENT, *_TABLES))


@torch.no_grad()
def called_layers(module: nn.Module, example: Inputs) -> set[str]:
    """Those of :func:`layers_with_formats` that inference calls: it is run on ``example`` to see.

    A layer that is there may never be called: another module reads its weight
    (``nn.MultiheadAttention`` that of ``out_proj``), only training uses it, or nothing does. What
    it computes with cannot be changed from outside, and it has no inputs to take a range from.
    """
    called: set[str] = set()

    def listener(name: str) -> Callable[[Tensor], None]:
        return lambda _: called.add(name)

    layers = layers_with_formats(module)
    if layers:
        with (
            torch.random.fork_rng(devices=[]),
            _listening(module, {n: listener(n) for n in layers}),
        ):
            _infer(module, example)
    return called


def declared_formats(
    module: nn.Module, numerics: Numerics, example: Inputs
) -> dict[str, LayerFormat]:
    """The format of every layer that can have one and that the model calls on ``example``.

    It is the format that is computed with (:func:`as_computed`).

    Raises:
        SelectorError: a rule whose pattern matches no layer.
    """
    formats = numerics.resolve(layers_with_formats(module))
    called = called_layers(module, example)
    return {
        name: as_computed(module.get_submodule(name), format)
        for name, format in formats.items()
        if name in called
    }


def as_computed(layer: nn.Module, format: LayerFormat) -> LayerFormat:
    """What ``format`` comes to for ``layer``, given the kernels that there are.

    A table takes no activations. There are no int8 kernels for GRU and RNN layers, nor for an LSTM
    with a projection; those of other LSTMs and cells find their ranges at run time, since the state
    has another at each step.
    """
    if isinstance(layer, _TABLES) or not has_int8_kernel(layer):
        return format.weights_only
    if isinstance(layer, RECURRENT) and format.is_static_int8:
        return LayerFormat(weights=format.weights, activations="dynamic")
    return format


def channel_axis(layer: nn.Module) -> int:
    """The axis of a layer's weights that counts output channels; of a table, its rows."""
    return 1 if isinstance(layer, _TRANSPOSED) else 0


def weight_axes(layer: nn.Module) -> dict[str, int]:
    """Name of every weight of a layer with a format, and the axis that counts its channels."""
    names = weight_names(layer) if isinstance(layer, RECURRENT) else ("weight",)
    return dict.fromkeys(names, channel_axis(layer))


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
            for own, axis in weight_axes(layer).items():
                weight = layer.get_parameter(own)
                weight.copy_(fake_quantize_weight(weight, axis=axis, format=format))
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
            _uncover(layer)


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

    def listener(observer: RangeObserver) -> Callable[[Tensor], None]:
        return lambda values: observer.update(values.cpu().numpy())

    if static:
        with _listening(module, {name: listener(seen) for name, seen in observers.items()}):
            for batch in batches:
                _infer(module, batch)
    return {name: observers[name].range(static[name].calibration) for name in static}


@contextmanager
def _listening(
    module: nn.Module, listeners: Mapping[str, Callable[[Tensor], None]]
) -> Iterator[None]:
    """While open, ``module`` is in eval mode and each named layer's input goes to its listener."""

    def hook(listen: Callable[[Tensor], None]) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, inputs, named: listen(inputs[0] if inputs else named["input"])

    handles = [
        module.get_submodule(name).register_forward_pre_hook(hook(listen), with_kwargs=True)
        for name, listen in listeners.items()
    ]
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()


def _infer(module: nn.Module, inputs: Inputs) -> None:
    # A net may work in place, and would change what others see.
    forward(module, copied(to_device(inputs, next(module.parameters()).device)))


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
    # Snapped weights shadow the parameters for the length of one forward pass. Parametrizations
    # would do the same, but they rename parameters and change the layer's class.
    safe = avoid_saturation and not isinstance(layer, _TABLES)
    steps = ExitStack()

    def before(
        module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for name, axis in weight_axes(module).items():
            weight = module._parameters[name]
            assert weight is not None
            module.__dict__[name] = fake_quantize_weight(
                weight, axis=axis, format=format, avoid_saturation=safe
            )
        if isinstance(module, _TABLES):
            return inputs, named
        if isinstance(module, RECURRENT):
            if (rounding := _rounding_of_steps(module, format)) is not None:
                steps.enter_context(StepByStep(rounding))
            return inputs, named
        if not inputs:
            inputs, named = (named["input"],), {k: v for k, v in named.items() if k != "input"}
        return (_fake_quantize_activation(inputs[0], format, bounds), *inputs[1:]), named

    def after(module: nn.Module, *_: Any) -> None:
        _uncover(module)
        steps.close()

    return (
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.register_forward_hook(after, always_call=True),
    )


def _uncover(layer: nn.Module) -> None:
    for name in weight_axes(layer):
        layer.__dict__.pop(name, None)
    if isinstance(layer, nn.RNNBase):
        layer._update_flat_weights()  # the list that its kernel reads; it holds the snapped ones


def _rounding_of_steps(layer: nn.Module, format: LayerFormat) -> Callable[[Tensor], Tensor] | None:
    if format.activations == "float16" and not is_stepwise(layer):
        return None  # no float16 kernel either: only the weights are rounded
    if format.activations in ("float16", "dynamic"):
        return lambda values: _fake_quantize_activation(values, format, None)
    return None


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
    if values.dim() == 1:  # one sample by itself
        return _fake_quantize_each_sample(values[None])[0]
    rows = values.detach().flatten(1)
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    scale = (high - low) / _LARGEST_UINT8
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (-low / scale).round().clamp(0, _LARGEST_UINT8).to(torch.int32)
    return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, 0, _LARGEST_UINT8)


def _round_to_half(values: Tensor) -> Tensor:
    rounded = values.detach().half().float()
    return values + (rounded - values).detach()
