"""What is stored of a layer's weight and its scales, in the layout that its ONNX node reads.

Both are the format's (:mod:`compress.quantization.formats`); a batch norm that was folded into the
weight scales whole channels, which changes the scale and not what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from compress.backends.onnx.export import layer_of
from compress.backends.onnx.graph import Array, array_of, is_storage_type
from compress.errors import LoweringError
from compress.quantization.clips import clip_weight
from compress.quantization.formats.base import ScaledWeights
from compress.quantization.numerics import LayerFormat

__all__ = [
    "QuantizedWeight",
    "can_be_looked_up",
    "channel_axis",
    "has_scaled_weights",
    "quantized_rows",
    "quantized_weight",
    "weight_array",
    "weight_place",
]


@dataclass(frozen=True)
class QuantizedWeight:
    """What is stored of a weight, and the float32 scale of each channel, which ``axis`` counts."""

    stored: Array
    scale: Array
    axis: int

    @property
    def column(self) -> Array:
        """The scales in a shape that multiplies what is stored."""
        shape = [1] * self.stored.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape)

    def at_least(self, step: Array) -> QuantizedWeight:
        """The same weights in integers whose steps are ``step`` or more, per channel."""
        if (self.scale >= step).all():
            return self
        scale = np.maximum(self.scale, step).astype(np.float32)
        coarse = QuantizedWeight(self.stored, scale, self.axis)
        integers = np.rint(self.values / coarse.column).astype(self.stored.dtype)
        return QuantizedWeight(integers, scale, self.axis)

    @property
    def values(self) -> Array:
        """The float32 weights that are computed with."""
        return self.stored.astype(np.float32) * self.column


def has_scaled_weights(format: LayerFormat) -> bool:
    """Whether the weights of ``format`` are stored in another type, with a scale per channel."""
    return isinstance(format.weight_quantizer, ScaledWeights)


def quantized_weight(
    node: ir.Node, format: LayerFormat, *, avoid_saturation: bool
) -> QuantizedWeight:
    """The weight of a layer's product ``node`` as ``format`` stores it.

    An embedding is never summed in int8, so that nothing in it can saturate. A layer that is tied
    to one therefore has a grid of its own with ``avoid_saturation``, and its integers are stored
    besides the embedding's: one grid for both would be as coarse for the embedding as the layer
    needs it.

    Raises:
        LoweringError: the weight is not a constant.
    """
    safe = avoid_saturation and node.op_type != "Gather"
    return quantized_rows(weight_array(node), channel_axis(node), format, avoid_saturation=safe)


def quantized_rows(
    weight: Array, axis: int, format: LayerFormat, *, avoid_saturation: bool
) -> QuantizedWeight:
    """``weight``, whose channels are on ``axis``, as ``format`` stores it.

    A channel of zeros gets the median step of the others: its bias is stored in steps of input
    scale times weight scale, and a step of one would round it away.
    """
    quantizer = format.weight_quantizer
    assert isinstance(quantizer, ScaledWeights)
    values = clip_weight(torch.from_numpy(weight.copy()), format.clip, axis)
    rounded = quantizer.fake_quantize(values, axis=axis, avoid_saturation=avoid_saturation)
    scale = quantizer.scale(values, axis=axis, avoid_saturation=avoid_saturation)
    shape = [1] * values.dim()
    shape[axis] = -1
    stored = quantizer.encode(rounded, scale.reshape(shape))
    used = values.movedim(axis, 0).flatten(1).any(1)
    if bool(used.any()):
        scale = torch.where(used, scale, scale[used].median())
    kind = ir.DataType[quantizer.onnx_type].numpy()
    return QuantizedWeight(stored.view(kind), scale.numpy(), axis)


def weight_array(node: ir.Node, place: int | None = None) -> Array:
    """The float32 weight of a layer's product, or the embedding that its Gather reads.

    Args:
        node: the product.
        place: which of its inputs is meant, where it has several weights.

    Raises:
        LoweringError: it is computed in forward, so that there is nothing to encode.
    """
    array = array_of(node.inputs[weight_place(node) if place is None else place])
    if array is None:
        raise LoweringError(
            f"the weight of the layer {layer_of(node)!r} is computed in forward and cannot be "
            "stored in another format; exclude the layer from the quantization, or make its "
            "weight a plain parameter."
        )
    return array


def weight_place(node: ir.Node) -> int:
    """Which input of a layer's product is its weight."""
    return 0 if node.op_type == "Gather" else 1


def can_be_looked_up(format: LayerFormat) -> bool:
    """Whether Gather takes weights as ``format`` stores them."""
    return not is_storage_type(ir.DataType[format.weight_quantizer.onnx_type])


def channel_axis(node: ir.Node) -> int:
    """Where the output channels are in the weight of ``node``; an embedding has a scale per row."""
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
