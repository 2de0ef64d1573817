"""Fake quantization: how a float module computes once its declared formats are applied.

Knows which layers can have a format, and where in a layer rounding goes. How a format rounds is the
format's own (:mod:`compress.quantization.formats`); lowering writes the same numbers into ONNX.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.modules.inputs import Inputs, copied, forward, to_device
from compress.quantization.clips import LearnedClips, fake_quantize_weight
from compress.quantization.formats.base import Pattern
from compress.quantization.numerics import LayerFormat, Numerics
from compress.quantization.ranges import RangeObserver
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
    "chosen_range",
    "declared_formats",
    "fake_quantized_copy",
    "layers_with_formats",
    "learned_clips",
    "observe_ranges",
    "quantizable_layers",
    "simulate",
    "weight_axes",
]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_QUANTIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
# Layers that look rows up: their weights can be stored in few bits, and nothing is multiplied.
_EMBEDDINGS = (nn.Embedding,)

Ranges = Mapping[str, tuple[float, float]]
# Of a weight, and the axis that counts its channels.
_WeightRounding = Callable[[Tensor, int], Tensor]


def quantizable_layers(module: nn.Module) -> dict[str, str]:
    """Path and class name of every layer whose output is a product with its weight, in order."""
    return _layers_of(module, _QUANTIZABLE)


def layers_with_formats(module: nn.Module) -> dict[str, str]:
    """Path and class name of every layer whose weights can have an integer format, in order.

    Those of :func:`quantizable_layers`, recurrent ones, and embeddings.
    """
    return _layers_of(module, (*_QUANTIZABLE, *RECURRENT, *_EMBEDDINGS))


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
    """What ``format`` comes to for ``layer``, given its weights and the kernels that there are.

    An embedding takes no activations. There are no int8 kernels for GRU and RNN layers, nor for an
    LSTM with a projection; those of other LSTMs and cells find their ranges at run time, since the
    state has another at each step. A clip is of one weight with as many channels: recurrent layers,
    which have several, and layers that are wider or narrower now have none.
    """
    if format.clip and (isinstance(layer, RECURRENT) or len(format.clip) != _channels(layer)):
        format = format.with_clip(())
    if isinstance(layer, _EMBEDDINGS) or not has_int8_kernel(layer):
        return format.weights_only
    return format.recurrent if isinstance(layer, RECURRENT) else format


def channel_axis(layer: nn.Module) -> int:
    """The axis of a layer's weights that counts output channels; of an embedding, its rows."""
    return 1 if isinstance(layer, _TRANSPOSED) else 0


def weight_axes(layer: nn.Module) -> dict[str, int]:
    """Name of every weight of a layer with a format, and the axis that counts its channels."""
    names = weight_names(layer) if isinstance(layer, RECURRENT) else ("weight",)
    return dict.fromkeys(names, channel_axis(layer))


def learned_clips(module: nn.Module, formats: Mapping[str, LayerFormat]) -> LearnedClips:
    """The clips that a training of ``module`` learns, as parameters; there may be none."""
    layers = {name: module.get_submodule(name) for name in formats}
    axes = {name: channel_axis(n) for name, n in layers.items() if not isinstance(n, RECURRENT)}
    return LearnedClips(module, {name: formats[name] for name in axes}, axes)


def fake_quantized_copy(module: nn.Module, formats: Mapping[str, LayerFormat]) -> nn.Module:
    """A copy of ``module`` whose weights are rounded to their formats: what it computes with."""
    copied_module = copy.deepcopy(module)
    with torch.no_grad():
        for name, format in formats.items():
            layer = copied_module.get_submodule(name)
            for own, axis in weight_axes(layer).items():
                weight = layer.get_parameter(own)
                weight.copy_(fake_quantize_weight(weight, format, axis=axis))
    return copied_module


@contextmanager
def simulate(
    module: nn.Module,
    formats: Mapping[str, LayerFormat],
    ranges: Ranges,
    *,
    avoid_saturation: bool = False,
    clips: LearnedClips | None = None,
) -> Iterator[None]:
    """While open, ``module`` computes with its declared formats; parameters stay as they are.

    ``ranges`` gives the input range of every layer with static activations
    (:func:`observe_ranges`). Gradients reach the float parameters straight through. Layers that are
    in ``clips`` are clipped as far as these say at the time, and gradients reach them too; that of
    their format is not used, nor is ``avoid_saturation``.

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
            bounds = ranges[name] if format.needs_range else None
            safe = avoid_saturation and not isinstance(layer, _EMBEDDINGS)
            if clips is not None and name in clips:
                rounding = _learned_rounding(format, partial(clips.of, name))
            else:
                rounding = _usual_rounding(format, safe)
            handles.extend(_quantize_around(layer, format, bounds, rounding))
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
    """Input range of every layer with static activations, seen over ``batches`` of inputs.

    Raises:
        ValueError: no batch, or an activation that is not finite.
    """
    static = {name: format for name, format in formats.items() if format.needs_range}
    observers = {name: RangeObserver() for name in static}

    def listener(observer: RangeObserver) -> Callable[[Tensor], None]:
        return lambda values: observer.update(values.cpu().numpy())

    if static:
        with _listening(module, {name: listener(seen) for name, seen in observers.items()}):
            for batch in batches:
                _infer(module, batch)
    return {name: chosen_range(observers[name], format) for name, format in static.items()}


def chosen_range(observer: RangeObserver, format: LayerFormat) -> tuple[float, float]:
    """The range of a layer's static activations, given what was observed of them.

    Raises:
        ValueError: nothing was observed.
    """
    quantizer = format.static_quantizer
    assert quantizer is not None
    return observer.range(format.calibration, levels=quantizer.levels)


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
    rounding: _WeightRounding,
) -> tuple[RemovableHandle, RemovableHandle]:
    # Snapped weights shadow the parameters for the length of one forward pass. Parametrizations
    # would do the same, but they rename parameters and change the layer's class.
    steps = ExitStack()

    def before(
        module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for name, axis in weight_axes(module).items():
            weight = module._parameters[name]
            assert weight is not None
            module.__dict__[name] = rounding(weight, axis)
        if isinstance(module, _EMBEDDINGS):
            return inputs, named
        if isinstance(module, RECURRENT):
            if (of_steps := _rounding_of_steps(module, format)) is not None:
                steps.enter_context(StepByStep(of_steps))
            return inputs, named
        if not inputs:
            inputs, named = (named["input"],), {k: v for k, v in named.items() if k != "input"}
        rounded = format.activation_quantizer.fake_quantize(inputs[0], bounds)
        return (rounded, *inputs[1:]), named

    def after(module: nn.Module, *_: Any) -> None:
        _uncover(module)
        steps.close()

    return (
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.register_forward_hook(after, always_call=True),
    )


def _usual_rounding(format: LayerFormat, avoid_saturation: bool) -> _WeightRounding:
    return lambda weight, axis: fake_quantize_weight(
        weight, format, axis=axis, avoid_saturation=avoid_saturation
    )


def _learned_rounding(format: LayerFormat, clip: Callable[[], Tensor]) -> _WeightRounding:
    quantizer = format.weight_quantizer
    return lambda weight, axis: quantizer.fake_quantize_learned(weight, clip(), axis=axis)


def _channels(layer: nn.Module) -> int:
    return layer.get_parameter("weight").shape[channel_axis(layer)]


def _uncover(layer: nn.Module) -> None:
    for name in weight_axes(layer):
        layer.__dict__.pop(name, None)
    if isinstance(layer, nn.RNNBase):
        layer._update_flat_weights()  # the list that its kernel reads; it holds the snapped ones


def _rounding_of_steps(layer: nn.Module, format: LayerFormat) -> Callable[[Tensor], Tensor] | None:
    quantizer = format.activation_quantizer
    if quantizer.pattern is Pattern.CAST and not is_stepwise(layer):
        return None  # the fused operator has no kernel in such a type: only weights are rounded
    if quantizer.pattern in (Pattern.CAST, Pattern.DYNAMIC):
        return lambda values: quantizer.fake_quantize(values, None)
    return None
