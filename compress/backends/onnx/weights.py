"""The integers of a layer's weight, in the layout that its ONNX node reads.

The grid is ``algorithms.fakequant``'s; a batch norm that was folded into the weight scales whole
channels, which changes the scale and not the integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from compress.backends.onnx.export import layer_of
from compress.backends.onnx.graph import Array, array_of
from compress.errors import LoweringError
from compress.quantization.fakequant import fake_quantize_weight, weight_scale
from compress.quantization.numerics import LayerFormat, weight_bits

__all__ = ["Grid", "channel_axis", "grid_of", "grid_of_rows", "weight_array"]


@dataclass(frozen=True)
class Grid:
    """Integers (int8, whatever the bits), the float32 step of each channel, and its axis."""

    integers: Array
    scale: Array
    axis: int

    @property
    def column(self) -> Array:
        """The steps in a shape that multiplies the integers."""
        shape = [1] * self.integers.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape)

    def at_least(self, step: Array) -> Grid:
        """The same weights on a grid whose steps are ``step`` or more, per channel."""
        if (self.scale >= step).all():
            return self
        coarse = Grid(self.integers, np.maximum(self.scale, step).astype(np.float32), self.axis)
        integers = np.rint(self.values / coarse.column).astype(np.int8)
        return Grid(integers, coarse.scale, self.axis)

    @property
    def values(self) -> Array:
        """The float32 weights that the integers stand for."""
        return self.integers.astype(np.float32) * self.column


def grid_of(node: ir.Node, format: LayerFormat, *, avoid_saturation: bool) -> Grid:
    """The weight of a layer's product ``node`` on the integer grid of ``format``.

    A table is never summed in int8, so that nothing in it can saturate. A layer that is tied to one
    therefore has a grid of its own with ``avoid_saturation``, and its integers are stored besides
    the table's: one grid for both would be as coarse for the table as the layer needs it.

    Raises:
        LoweringError: the weight is not a constant.
    """
    safe = avoid_saturation and node.op_type != "Gather"
    return grid_of_rows(weight_array(node), channel_axis(node), format, avoid_saturation=safe)


def grid_of_rows(weight: Array, axis: int, format: LayerFormat, *, avoid_saturation: bool) -> Grid:
    """``weight``, whose channels are on ``axis``, on the integer grid of ``format``.

    A channel of zeros gets the median step of the others: its bias is stored in steps of input
    scale times weight scale, and a step of one would round it away.
    """
    bits = weight_bits(format.weights)
    assert bits is not None
    values = torch.from_numpy(weight.copy())
    snapped = fake_quantize_weight(
        values, axis=axis, format=format, avoid_saturation=avoid_saturation
    )
    scale = weight_scale(values, axis=axis, bits=bits, avoid_saturation=avoid_saturation)
    shape = [1] * values.dim()
    shape[axis] = -1
    integers = (snapped / scale.reshape(shape)).round().to(torch.int8).numpy()
    used = values.movedim(axis, 0).flatten(1).any(1)
    if bool(used.any()):
        scale = torch.where(used, scale, scale[used].median())
    return Grid(integers, scale.numpy(), axis)


def weight_array(node: ir.Node, place: int | None = None) -> Array:
    """The float32 weight of a layer's product, or the table that its Gather looks rows up in.

    Args:
        node: the product.
        place: which of its inputs is meant, where it has several weights.

    Raises:
        LoweringError: it is computed in forward, so that there is nothing to encode.
    """
    if place is None:
        place = 0 if node.op_type == "Gather" else 1
    array = array_of(node.inputs[place])
    if array is None:
        raise LoweringError(
            f"the weight of the layer {layer_of(node)!r} is computed in forward and cannot be "
            "stored in another format; exclude the layer from the quantization, or make its "
            "weight a plain parameter."
        )
    return array


def channel_axis(node: ir.Node) -> int:
    """Where the output channels are in the weight of ``node``; a table has a step for each row."""
    # Conv (out, in, ...), ConvTranspose (in, out, ...), Gemm (out, in) if transposed, MatMul
    # (in, out).
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "MatMul":
        return weight_array(node).ndim - 1
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    return 0
