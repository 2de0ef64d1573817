"""Encoding ONNX's recurrent operators: LSTM, GRU and RNN.

Each holds the weights of one layer: those of the inputs (W) and of the state (R), one row for each
output of a gate, direction after direction. The exporter reorders the gates, and a grid that has a
step for each row does not mind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from torch import nn

from compress.backends.onnx.export import layer_of, mark_like
from compress.backends.onnx.graph import Array, add_constant, array_of, insert, integers
from compress.backends.onnx.weights import QuantizedWeight, quantized_rows, weight_array
from compress.config.selectors import named
from compress.quantization.fakequant import layers_with_formats
from compress.quantization.formats.base import Pattern
from compress.quantization.numerics import LayerFormat, Numerics
from compress.quantization.recurrent import is_stepwise

__all__ = [
    "RECURRENT",
    "WEIGHTS_ONLY",
    "cast_weights",
    "dynamic_lstm",
    "scaled_weights",
    "settle_recurrent",
    "substitutions",
]

#: The operators that this module encodes.
RECURRENT = frozenset({"GRU", "LSTM", "RNN"})

_W, _R, _B, _STATES = 1, 2, 3, (5, 6)
_LAYERS = (nn.LSTM, nn.GRU, nn.RNN)
_MICROSOFT = "com.microsoft"

#: What a layer is computed with whose activations have no kernel in their format.
WEIGHTS_ONLY = "integer weights and float32 arithmetic"


def settle_recurrent(graph: ir.Graph) -> None:
    """Let every recurrent operator read plain constants, and no initial state of zeros.

    The exporter puts gates in order by operators, of which its optimizer computes only small ones.
    A state that is not given is one of zeros; so layers need not share a constant for it.
    """
    folded: dict[ir.Value, ir.Value] = {}
    for node in tuple(graph):
        if node.op_type not in RECURRENT:
            continue
        for place in (_W, _R, _B):
            value = node.inputs[place]
            if value is None or array_of(value) is not None or (array := _fold(value)) is None:
                continue
            if value not in folded:
                folded[value] = add_constant(graph, array, f"{layer_of(node)}.{place}")
            node.replace_input_with(place, folded[value])
        for place in _STATES[: len(node.inputs) - _STATES[0]]:
            state = array_of(node.inputs[place])
            if state is not None and not state.any():
                node.replace_input_with(place, None)


def scaled_weights(
    graph: ir.Graph, node: ir.Node, format: LayerFormat, *, avoid_saturation: bool
) -> None:
    """Store the weights of ``node`` in ``format``, to become floats when the file is loaded."""
    for place in (_W, _R):
        label, shape = f"{layer_of(node)}.{place}", weight_array(node, place).shape
        weight = _quantized(node, place, format, avoid_saturation)
        stored = add_constant(graph, weight.stored.reshape(shape), f"{label}.stored")
        steps = add_constant(graph, weight.scale.reshape(*shape[:2], 1), f"{label}.scale")
        cast = insert(graph, node, ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}))
        node.replace_input_with(place, insert(graph, node, ir.node("Mul", [cast, steps])))


def cast_weights(graph: ir.Graph, node: ir.Node, cast: Callable[[ir.Value], ir.Value]) -> None:
    """Store the weights of ``node`` as ``cast`` makes them, to become float32 when loaded."""
    for place in (_W, _R):
        weight_array(node, place)  # it is a constant, or says that it is none
        value = node.inputs[place]
        assert value is not None
        back = ir.node("Cast", [cast(value)], {"to": ir.DataType.FLOAT})
        node.replace_input_with(place, insert(graph, node, back))


def dynamic_lstm(
    model: ir.Model, node: ir.Node, format: LayerFormat, *, avoid_saturation: bool
) -> None:
    """Write an LSTM as ``DynamicQuantizeLSTM``, which rounds its input, and its state each step.

    Measured at batch 1, it takes 0.5 of the float time at 128 units, 0.27 at 512, and 1.4 at 16.
    Its weights have the rows last. The step of each row, and its zero point, are further inputs.
    """
    graph = model.graph
    stored: list[ir.Value] = []
    scales: list[ir.Value] = []
    for place in (_W, _R):
        label, shape = f"{layer_of(node)}.{place}", weight_array(node, place).shape
        weight = _quantized(node, place, format, avoid_saturation)
        turned = weight.stored.reshape(shape).transpose(0, 2, 1)
        stored.append(add_constant(graph, turned, f"{label}.stored"))
        scales.append(add_constant(graph, weight.scale.reshape(shape[:2]), f"{label}.scale"))
        scales.append(add_constant(graph, np.zeros(shape[:2], np.int8), f"{label}.zero"))
    others = [*node.inputs[_B:], *[None] * 5][:5]
    made = ir.node(
        "DynamicQuantizeLSTM",
        [node.inputs[0], *stored, *others, *scales],
        {name: node.attributes[name] for name in ("direction", "hidden_size")},
        domain=_MICROSOFT,
        num_outputs=len(node.outputs),
    )
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [mark_like(made, node)], node.outputs, made.outputs
    )
    model.opset_imports[_MICROSOFT] = 1


def substitutions(
    module: nn.Module, numerics: Numerics, formats: Mapping[str, LayerFormat]
) -> tuple[str, ...]:
    """What recurrent layers compute with instead of what was declared for them, and why."""
    declared = numerics.resolve(layers_with_formats(module))
    found: dict[str, list[str]] = {}
    for name, format in formats.items():
        if why := _substitution(module.get_submodule(name), declared[name], format):
            found.setdefault(why, []).append(name)
    return tuple(f"{named(names)}: {why}." for why, names in found.items())


def _substitution(layer: nn.Module, declared: LayerFormat, format: LayerFormat) -> str | None:
    kind = next((kind.__name__ for kind in _LAYERS if isinstance(layer, kind)), None)
    computed, asked = format.activation_quantizer, declared.activation_quantizer
    is_dynamic = computed.pattern is Pattern.DYNAMIC
    instead = f"dynamic {computed.arithmetic}" if is_dynamic else WEIGHTS_ONLY
    if isinstance(layer, nn.RNNCellBase) and format != declared:
        return f"{instead}, since the range of a cell's state changes from step to step"
    if kind is None:
        return None
    if computed.pattern is Pattern.CAST and not is_stepwise(layer):
        return (
            f"{format.weights} weights and float32 arithmetic, since onnxruntime has no "
            f"{computed.arithmetic} {kind} on a CPU"
        )
    if format == declared:
        return None
    if is_dynamic:
        return f"{instead}, since onnxruntime has no static {asked.arithmetic} {kind}"
    which = f"{kind} with a projection" if is_stepwise(layer) else kind
    return f"{instead}, since onnxruntime has no {asked.arithmetic} {which}"


def _quantized(
    node: ir.Node, place: int, format: LayerFormat, avoid_saturation: bool
) -> QuantizedWeight:
    weight = weight_array(node, place)
    rows = weight.reshape(-1, weight.shape[-1])
    return quantized_rows(rows, 0, format, avoid_saturation=avoid_saturation)


def _fold(value: ir.Value | None) -> Array | None:
    """What ``value`` comes to, if it is made of constants by operators that put them in order."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in _ORDERING:
        return array_of(value)
    arrays = [array for each in node.inputs if (array := _fold(each)) is not None]
    return _ORDERING[node.op_type](node, arrays) if len(arrays) == len(node.inputs) else None


def _slice(_: ir.Node, arrays: Sequence[Array]) -> Array:
    data, starts, ends, axes = arrays[:4]
    steps = arrays[4] if len(arrays) > 4 else np.ones_like(starts)
    part = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        part[axis] = slice(int(start), int(end), int(step))
    return data[tuple(part)]


def _concat(node: ir.Node, arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays, axis=node.attributes["axis"].as_int())


def _unsqueeze(_: ir.Node, arrays: Sequence[Array]) -> Array:
    return np.expand_dims(arrays[0], tuple(int(axis) for axis in arrays[1]))


def _transpose(node: ir.Node, arrays: Sequence[Array]) -> Array:
    return arrays[0].transpose(integers(node, "perm", [*range(arrays[0].ndim)][::-1]))


_ORDERING: Mapping[str, Callable[[ir.Node, Sequence[Array]], Array]] = {
    "Concat": _concat,
    "Slice": _slice,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
