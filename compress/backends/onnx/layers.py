"""The formats that need no calibration: weight-only, dynamic, and operators in another float type.

Each function rewrites the nodes of its layers in place and leaves the rest alone, so that all of
them, and static int8, live in one graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx_ir as ir

from compress.backends.onnx.export import layer_of, mark_like
from compress.backends.onnx.graph import (
    Array,
    add_constant,
    array_of,
    consumers,
    follow,
    insert,
    replace,
    shield,
)
from compress.backends.onnx.partition import cast_nodes, layers_with
from compress.backends.onnx.recurrent import RECURRENT, cast_weights, dynamic_lstm, scaled_weights
from compress.backends.onnx.weights import (
    can_be_looked_up,
    channel_axis,
    has_scaled_weights,
    quantized_weight,
    weight_place,
)
from compress.errors import LoweringError
from compress.quantization.formats import ACTIVATIONS
from compress.quantization.formats.base import Pattern
from compress.quantization.numerics import LayerFormat

__all__ = ["encode_casts", "encode_dynamic", "encode_weights", "guard_float"]

_REQUANTIZED = ("Conv", "ConvTranspose", "Gemm")


def encode_weights(
    model: ir.Model, formats: Mapping[str, LayerFormat], *, avoid_saturation: bool
) -> None:
    """Weights in their format, with a scale per channel, for layers computed in float32.

    Written as ``Cast`` and ``Mul``, which a runtime computes once when it loads the model, and
    not as ``DequantizeLinear``, which onnxruntime computes in every run and which keeps it from
    blocking the weights: measured 1.9 and 2.9 times slower on two convolutional nets.
    Layers that declare quantized activations and have no kernel for them are encoded like this too.
    Of an embedding, integers are looked up and then scaled: a whole vocabulary never stands in
    memory as floats, other than of a type that ONNX cannot look up. Products that share a weight,
    as the steps of a cell do, share its floats.
    """
    graph = model.graph
    floats: dict[tuple[ir.Value | None, int], ir.Value] = {}
    for name, node in layers_with(graph, formats, has_scaled_weights):
        if _is_encoded(node):
            continue
        if node.op_type in RECURRENT:
            scaled_weights(graph, node, formats[name], avoid_saturation=avoid_saturation)
            continue
        place = weight_place(node)
        key = node.inputs[place], channel_axis(node)
        is_looked_up = node.op_type == "Gather" and can_be_looked_up(formats[name])
        if not is_looked_up and key in floats:
            node.replace_input_with(place, floats[key])
            continue
        weight = quantized_weight(node, formats[name], avoid_saturation=avoid_saturation)
        stored = add_constant(graph, weight.stored, f"{name}.stored")
        steps = add_constant(graph, weight.column, f"{name}.scale")
        if is_looked_up:
            _look_up(graph, node, stored, steps)
            continue
        cast = insert(graph, node, ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}))
        floats[key] = insert(graph, node, ir.node("Mul", [cast, steps]))
        node.replace_input_with(place, floats[key])


def _look_up(graph: ir.Graph, node: ir.Node, stored: ir.Value, steps: ir.Value) -> None:
    places = node.inputs[1]
    rows, scales = (
        insert(graph, node, mark_like(ir.node("Gather", [table, places]), node))
        for table in (stored, steps)
    )
    floats = insert(graph, node, ir.node("Cast", [rows], {"to": ir.DataType.FLOAT}))
    replace(graph, node, insert(graph, node, ir.node("Mul", [floats, scales])))


def encode_dynamic(
    model: ir.Model, formats: Mapping[str, LayerFormat], *, avoid_saturation: bool
) -> None:
    """int8 weights, and activations rounded to the range that each input turns out to have.

    Only for linear layers and LSTMs: onnxruntime's ``ConvInteger`` takes 5 to 10 times as long as
    the float convolution. Linear layers that read one tensor share its quantization.
    """
    graph = model.graph
    rounded: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for name, node in layers_with(graph, formats, _is_dynamic):
        if node.op_type == "LSTM":
            dynamic_lstm(model, node, formats[name], avoid_saturation=avoid_saturation)
            continue
        weight = quantized_weight(node, formats[name], avoid_saturation=avoid_saturation)
        source = node.inputs[0]
        assert source is not None
        if source not in rounded:
            quantizer = ir.node("DynamicQuantizeLinear", [source], num_outputs=3)
            insert(graph, node, quantizer)
            rounded[source] = tuple(quantizer.outputs)
        integers = weight.stored if weight.axis == 1 else weight.stored.T
        _integer_product(graph, node, rounded[source], integers, weight.scale)


def _is_dynamic(format: LayerFormat) -> bool:
    return format.activation_quantizer.pattern is Pattern.DYNAMIC


def _integer_product(
    graph: ir.Graph,
    node: ir.Node,
    source: tuple[ir.Value, ...],
    integers: Array,
    scale: Array,
) -> None:
    # The shape that onnxruntime fuses into one DynamicQuantizeMatMul or MatMulIntegerToFloat.
    name = layer_of(node)
    values, step, zero = source
    weight = add_constant(graph, integers, f"{name}.stored")
    no_zero = add_constant(graph, np.array(0, dtype=np.int8), "zero")
    steps = add_constant(graph, scale, f"{name}.scale")
    product = insert(graph, node, ir.node("MatMulInteger", [values, weight, zero, no_zero]))
    floats = insert(graph, node, ir.node("Cast", [product], {"to": ir.DataType.FLOAT}))
    both = insert(graph, node, ir.node("Mul", [step, steps]))
    result = insert(graph, node, ir.node("Mul", [floats, both]))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = insert(graph, node, ir.node("Add", [result, node.inputs[2]]))
    replace(graph, node, result)


def encode_casts(model: ir.Model, formats: Mapping[str, LayerFormat]) -> None:
    """Weights and arithmetic in another float type; inputs and outputs of the model stay float32.

    Recurrent operators have no kernel in such a type on a CPU and get its weights only.

    Raises:
        LoweringError: a weight that the type cannot hold.
    """
    for activations in dict.fromkeys(format.activations for format in formats.values()):
        if ACTIVATIONS[activations].pattern is Pattern.CAST:
            _encode_cast(model.graph, formats, activations)


def _encode_cast(graph: ir.Graph, formats: Mapping[str, LayerFormat], activations: str) -> None:
    chosen = cast_nodes(graph, formats, activations)
    kind = ir.DataType[ACTIVATIONS[activations].onnx_type]
    cast: dict[ir.Value, ir.Value] = {}
    for _, node in layers_with(graph, formats, lambda f: f.activations == activations):
        if node.op_type in RECURRENT:
            cast_weights(graph, node, partial(_as_type, graph, node, kind))
    for node in tuple(graph):
        if node not in chosen:
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and _is_float(value, chosen):
                if value not in cast:
                    cast[value] = _as_type(graph, node, kind, value)
                node.replace_input_with(index, cast[value])
        for value in node.outputs:
            _back_to_float(graph, node, value, kind, chosen)


def guard_float(model: ir.Model) -> None:
    """Keep the float products between int8 nodes as they are declared.

    Where a product with float weights reads a DequantizeLinear and its result is quantized,
    onnxruntime (seen in 1.22 and 1.32, not in 1.20) quantizes the weights by itself: with one
    scale for all channels, with saturation, against what was declared, and, if an activation
    function follows, 1.6 times slower than float. It looks for a DequantizeLinear right before
    the product, so a Clip that clips nothing stands between them.
    """
    graph = model.graph
    clipped: dict[ir.Value, ir.Value] = {}
    for node in tuple(graph):
        source = node.inputs[0] if node.op_type in _REQUANTIZED else None
        back = source.producer() if source is not None else None
        if source is None or back is None or back.op_type != "DequantizeLinear":
            continue
        if _is_encoded(node) or not _is_quantized(node.outputs[0]):
            continue
        if source not in clipped:
            clipped[source] = shield(graph, node, source)
        node.replace_input_with(0, clipped[source])


def _is_quantized(value: ir.Value) -> bool:
    users = consumers(value)
    if len(users) == 1 and users[0].op_type in ("Relu", "Clip"):
        users = consumers(users[0].outputs[0])
    return any(user.op_type == "QuantizeLinear" for user in users)


def _is_encoded(node: ir.Node) -> bool:
    weight = node.inputs[1]
    producer = weight.producer() if weight is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _is_float(value: ir.Value, chosen: set[ir.Node]) -> bool:
    # What an earlier encoding inserted between float nodes has no type noted, and is float32.
    return value.dtype in (ir.DataType.FLOAT, None) and value.producer() not in chosen


def _as_type(graph: ir.Graph, node: ir.Node, kind: ir.DataType, value: ir.Value) -> ir.Value:
    array = array_of(value)
    if array is None:
        cast = mark_like(ir.node("Cast", [value], {"to": kind}), node)
        return insert(graph, node, cast)
    largest, name = float(np.finfo(kind.numpy()).max), kind.name.lower()
    if array.size and float(np.abs(array).max()) > largest:
        raise LoweringError(
            f"the weight {value.name!r} of {layer_of(node)!r} holds values above {largest:.0f}, "
            f"which {name} cannot; exclude the layer from {name}."
        )
    return add_constant(graph, array.astype(kind.numpy()), f"{value.name}.{name}")


def _back_to_float(
    graph: ir.Graph, node: ir.Node, value: ir.Value, kind: ir.DataType, chosen: set[ir.Node]
) -> None:
    outside = [user for user, _ in value.uses() if user not in chosen]
    value.type = ir.TensorType(kind)  # a type of its own: values may share one
    if not outside and not value.is_graph_output():
        return
    cast = mark_like(ir.node("Cast", [value], {"to": ir.DataType.FLOAT}), node)
    back = follow(graph, value, cast, only=lambda user: user in outside)
    back.shape, back.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
