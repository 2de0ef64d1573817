"""Bringing the exported float graph into one form, in which every format finds the same few shapes.

Changes no result beyond rounding: products read their weights directly and have the factors of
their outputs in them, the mean over all positions is a pooling (which has an int8 kernel and a
blocked float one), linear layers that will be quantized statically are Gemms, and a constant that
layers of different formats share is copied, so that encoding one leaves the other alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from compress.backends.onnx.export import layer_of, mark_like
from compress.backends.onnx.factor_folding import fold_factors
from compress.backends.onnx.graph import (
    add_constant,
    array_of,
    consumers,
    dims,
    follow,
    insert,
    integers,
    replace,
    rewire,
    sweep,
)
from compress.backends.onnx.partition import format_of
from compress.backends.onnx.recurrent import settle_recurrent
from compress.backends.onnx.weights import weight_array
from compress.quantization.numerics import LayerFormat

__all__ = ["canonicalize"]

# Functions of one element, which do not mind how their input is shaped.
_ELEMENTWISE = {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid"}
_ELEMENTWISE |= {"Softplus", "Tanh"}


def canonicalize(model: ir.Model, formats: Mapping[str, LayerFormat]) -> list[str]:
    """Rewrite the graph in place; the layers that got a copy of a shared constant."""
    graph = model.graph
    for node in tuple(graph):
        if node.op_type == "Transpose":
            _fold_transpose(graph, node)
        elif node.op_type == "ReduceMean":
            _mean_to_pooling(graph, node)
    settle_recurrent(graph)
    fold_factors(graph)
    flat: dict[ir.Value, ir.Value] = {}
    for node in tuple(graph):
        if node.op_type == "MatMul" and format_of(node, formats).needs_range:
            _linear_as_gemm(graph, node, flat)
    sweep(model)
    return _own_constants(graph, formats)


def _linear_as_gemm(graph: ir.Graph, product: ir.Node, flat: dict[ir.Value, ir.Value]) -> None:
    """Write a linear layer on more than two axes as Reshape, Gemm, Reshape.

    onnxruntime fuses ``MatMul + Add`` into a float Gemm before it looks for int8 patterns, and
    then dequantizes the weights in every run: 4.5 times slower than float, measured. Gemm has an
    int8 kernel that takes the bias along. The last Reshape comes after the activation function;
    ``flat`` maps tensors to their flattened form, so that layers which follow, or which share
    their input, need none.
    """
    source, weight = product.inputs[0], weight_array(product)
    assert source is not None
    end, bias = _bias_add(product)
    shape = dims(end.outputs[0])
    if source not in flat:
        flat[source] = insert(graph, product, _reshape(graph, source, (-1, weight.shape[0])))
    stored = add_constant(graph, weight.T, f"{layer_of(product)}.weight")
    inputs = [flat[source], stored, *([bias] if bias is not None else [])]
    gemm = mark_like(ir.node("Gemm", inputs, {"transB": 1}), product, layer=True)
    rows = insert(graph, end, gemm)
    replace(graph, end, rows)
    if end is not product:
        graph.remove(product, safe=True)
    rows.shape = ir.Shape([dims(flat[source])[0], weight.shape[1]])
    while (after := _only_function(rows)) is not None:
        after.shape, rows = rows.shape, after
    result = follow(graph, rows, _reshape(graph, rows, shape))
    flat[result] = rows


def _only_function(value: ir.Value) -> ir.Value | None:
    users = consumers(value)
    alone = len(users) == 1 and not value.is_graph_output()
    return users[0].outputs[0] if alone and users[0].op_type in _ELEMENTWISE else None


def _bias_add(product: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    uses = () if product.outputs[0].is_graph_output() else tuple(product.outputs[0].uses())
    if len(uses) == 1 and uses[0][0].op_type == "Add":
        add = uses[0][0]
        bias = add.inputs[1 - uses[0][1]]
        array = array_of(bias)
        if array is not None and array.shape == weight_array(product).shape[-1:]:
            return add, bias
    return product, None


def _reshape(graph: ir.Graph, value: ir.Value, shape: tuple[int, ...]) -> ir.Node:
    target = add_constant(graph, np.array(shape, dtype=np.int64), "shape")
    node = ir.node("Reshape", [value, target])
    if (producer := value.producer()) is not None:
        mark_like(node, producer)
    rows = math.prod(dims(value)) // abs(math.prod(shape))
    node.outputs[0].type = None if value.dtype is None else ir.TensorType(value.dtype)
    node.outputs[0].shape = ir.Shape([rows if size == -1 else size for size in shape])
    return node


def _own_constants(graph: ir.Graph, formats: Mapping[str, LayerFormat]) -> list[str]:
    """Copy every constant that nodes of different formats read; the layers that got a copy.

    ONNX has one tensor where the module ties weights, or where two tensors happen to be equal.
    """
    copied = []
    for value in tuple(graph.initializers.values()):
        users, array = tuple(value.uses()), array_of(value)
        if array is None or len({format_of(node, formats) for node, _ in users}) < 2:
            continue
        copies: dict[str, ir.Value] = {}
        for node, index in users:
            layer = layer_of(node)
            if layer is None or format_of(node, formats).is_float32:
                continue
            if layer not in copies:
                copies[layer] = add_constant(graph, array, f"{layer}.own")
                copied.append(layer)
            node.replace_input_with(index, copies[layer])
    return list(dict.fromkeys(copied))


def _fold_transpose(graph: ir.Graph, node: ir.Node) -> None:
    array = array_of(node.inputs[0])
    if array is None:
        return
    order = integers(node, "perm", list(reversed(range(array.ndim))))
    name = node.inputs[0].name if node.inputs[0] is not None else None
    folded = add_constant(graph, array.transpose(order), f"{name}.T")
    rewire(node.outputs[0], folded)


def _mean_to_pooling(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    if source is None or source.shape is None:
        return
    rank = len(source.shape)
    if rank < 3 or {axis % rank for axis in _axes(node)} != set(range(2, rank)):
        return
    pool = mark_like(ir.node("GlobalAveragePool", [source]), node)
    pooled = insert(graph, node, pool)
    pooled.type = None if source.dtype is None else ir.TensorType(source.dtype)
    pooled.shape = ir.Shape([*source.shape[:2], *[1] * (rank - 2)])
    keep = node.attributes.get("keepdims")
    if keep is None or keep.as_int():
        replace(graph, node, pooled)
    else:
        flatten = mark_like(ir.node("Flatten", [pooled]), node)
        replace(graph, node, insert(graph, node, flatten))


def _axes(node: ir.Node) -> list[int]:
    # An input from opset 18 on, an attribute before.
    given = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return integers(node, "axes", []) if given is None else [int(axis) for axis in given]
