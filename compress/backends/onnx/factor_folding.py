"""Folding: the factors of a product's outputs, such as layer scale, as part of its weights.

A weight's grid has a step for each output and does not mind. As an int8 operator of its own, a
factor for each channel would be rounded to one grid for all channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.backends.onnx.graph import Array, add_constant, array_of, dims, replace
from compress.backends.onnx.weights import channel_axis

__all__ = ["fold_factors"]


@dataclass(frozen=True)
class _Product:
    """A convolution or matrix product with constants that nothing else reads.

    ``axis`` is where the weight counts outputs, ``channels`` where the result does (from its end).
    The bias, if there is one, is input ``place`` of ``holder``.
    """

    node: ir.Node
    axis: int
    channels: int
    holder: ir.Node | None = None
    place: int = 2


def fold_factors(graph: ir.Graph) -> None:
    """Multiply constant factors of the outputs of products into their weights and biases."""
    for node in tuple(graph):
        if node.op_type != "Mul":
            continue
        for source, factor in (tuple(node.inputs), tuple(node.inputs)[::-1]):
            product, array = _product_of(source), array_of(factor)
            if product is None or array is None or source is None:
                continue
            scale = _of_each_output(array, dims(source), product)
            if scale is not None:
                _scale(graph, product, scale)
                name = node.outputs[0].name
                replace(graph, node, source)
                source.name = name
                break


def _product_of(value: ir.Value | None) -> _Product | None:
    node = _sole(value)
    if node is None:
        return None
    if node.op_type == "Add":
        places = [i for i, v in enumerate(node.inputs) if _is_bias(v)]
        if len(places) != 1:
            return None
        product = _sole(node.inputs[1 - places[0]])
        if product is None or product.op_type != "MatMul" or not _own(product.inputs[1], 2):
            return None
        return _Product(product, 1, 1, node, places[0])
    if node.op_type == "MatMul" and _own(node.inputs[1], 2):
        return _Product(node, 1, 1)
    if node.op_type not in ("Conv", "Gemm") or not _own(node.inputs[1]):
        return None
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if has_bias and not _is_bias(node.inputs[2]):
        return None
    channels = len(dims(node.outputs[0])) - 1 if node.op_type == "Conv" else 1
    return _Product(node, channel_axis(node), channels, node if has_bias else None)


def _sole(value: ir.Value | None) -> ir.Node | None:
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return value.producer()


def _own(value: ir.Value | None, rank: int | None = None) -> bool:
    array = array_of(value)
    if array is None or value is None or len(value.uses()) != 1:
        return False
    return rank is None or array.ndim == rank


def _is_bias(value: ir.Value | None) -> bool:
    array = array_of(value)
    return array is not None and array.ndim == 1


def _of_each_output(factor: Array, shape: tuple[int, ...], product: _Product) -> Array | None:
    """``factor`` as one number for each output; ``None`` if it is none, or a single number."""
    if factor.size == 1 or factor.ndim > len(shape):
        return None
    axis = len(shape) - product.channels
    wide = factor.reshape([1] * (len(shape) - factor.ndim) + list(factor.shape))
    others = [size for place, size in enumerate(wide.shape) if place != axis]
    if wide.shape[axis] != shape[axis] or any(size != 1 for size in others):
        return None
    return wide.reshape(-1)


def _scale(graph: ir.Graph, product: _Product, scale: Array) -> None:
    weight = array_of(product.node.inputs[1])
    assert weight is not None
    shape = np.ones(weight.ndim, dtype=int)
    shape[product.axis] = -1
    _put(graph, product.node, 1, weight * scale.reshape(shape))
    if product.holder is not None:
        bias = array_of(product.holder.inputs[product.place])
        assert bias is not None
        _put(graph, product.holder, product.place, bias * scale)


def _put(graph: ir.Graph, node: ir.Node, place: int, array: Array) -> None:
    old = node.inputs[place]
    name = "constant" if old is None or old.name is None else old.name
    node.replace_input_with(place, add_constant(graph, array.astype(np.float32), f"{name}.scaled"))
