"""Static int8: the graph with QuantizeLinear and DequantizeLinear, by onnxruntime's quantizer.

The only importer of ``onnxruntime.quantization``. It decides where nodes go and how they are
wired; every number is given to it: the weight grid is ``algorithms.fakequant``'s, the activation
grid ``algorithms.calibrate``'s, and what was calibrated are the values of the float graph
(:mod:`compress.backends.onnx.ranges`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from compress.backends.onnx.export import layer_of
from compress.backends.onnx.graph import Array, array_of, consumers, replace, rewire
from compress.backends.onnx.quiet import quiet
from compress.backends.onnx.ranges import Range
from compress.backends.onnx.regions import absorbs, format_of, int8_nodes, layers_with
from compress.backends.onnx.scales import calibrate, layer_ranges, scale_owner
from compress.backends.onnx.weights import Grid, grid_of
from compress.modules.inputs import Inputs
from compress.quantization.numerics import LayerFormat
from compress.quantization.ranges import activation_grid

__all__ = ["Static", "quantize"]

# Half of what int32 holds: the other half is for the sum of 2**15 products or more.
_BIAS_LIMIT = 2.0**30

# The quantizer wants a range for every tensor, and then takes the scale that it is given.
_UNUSED_RANGE = TensorData(lowest=np.float32(0), highest=np.float32(1))


@dataclass(frozen=True)
class Static:
    """The graph with its int8 part, and the input range of every layer with a static format."""

    model: ir.Model
    ranges: dict[str, Range] = field(default_factory=dict)


def quantize(
    model: ir.Model,
    formats: Mapping[str, LayerFormat],
    data: Sequence[Inputs],
    *,
    avoid_saturation: bool,
    barred: Collection[str] = frozenset(),
) -> Static:
    """Encode the layers with static int8 activations, and what stands between them.

    Args:
        model: the tidy float graph; it is used up.
        formats: of every quantizable layer.
        data: calibration batches.
        avoid_saturation: as in ``Lowering``.
        barred: forms of operators between layers that stay float (``regions.form_of``).

    Raises:
        LoweringError: no calibration data, or activations or weights that cannot be encoded.
    """
    graph = model.graph
    if not layers_with(graph, formats, lambda f: f.is_static_int8):
        return Static(model)
    chosen = int8_nodes(graph, formats, barred)
    ranges = calibrate(model, chosen, formats, data)
    inputs = layer_ranges(graph, formats, chosen, ranges)
    chosen = _absorb_activations(graph, chosen, ranges)
    if not chosen:
        return Static(model, inputs)
    quantized = _run_quantizer(model, chosen, ranges, formats, avoid_saturation)
    _spare_float_readers(quantized.graph, {str(node.name) for node in chosen})
    return Static(quantized, inputs)


def _absorb_activations(
    graph: ir.Graph, chosen: set[ir.Node], ranges: dict[ir.Value, Range]
) -> set[ir.Node]:
    kept = set(chosen)
    for node in tuple(graph)[::-1]:  # of two in a row, the last one's output is what was observed
        if node not in chosen or node.op_type not in ("Relu", "Clip"):
            continue
        if absorbs(node, chosen):
            result, source = node.outputs[0], node.inputs[0]
            assert source is not None
            ranges[source] = ranges.pop(result)
            replace(graph, node, source)
            kept.discard(node)
        elif node.op_type == "Relu":
            # Relu has no int8 kernel of its own, LeakyRelu has.
            node.op_type = "LeakyRelu"
            node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.0)
        else:
            kept.discard(node)
    return kept


def _run_quantizer(
    model: ir.Model,
    chosen: Collection[ir.Node],
    ranges: Mapping[ir.Value, Range],
    formats: Mapping[str, LayerFormat],
    avoid_saturation: bool,
) -> ir.Model:
    activations = {str(v.name): [_activation(*bounds)] for v, bounds in ranges.items()}
    weights = _weights(model.graph, chosen, ranges, formats, avoid_saturation)
    proto = ir.to_proto(model)
    # The mark of onnxruntime's own preprocessing: types are complete, do not infer them again.
    onnx.helper.set_model_props(proto, {"onnx.infer": "onnxruntime.quant"})
    with quiet():
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=dict.fromkeys(activations, _UNUSED_RANGE),
            nodes_to_quantize=sorted(str(node.name) for node in chosen),
            nodes_to_exclude=[],
            op_types_to_quantize=sorted({node.op_type for node in chosen}),
            extra_options={
                "TensorQuantOverrides": activations | weights,
                "ForceQuantizeNoInputCheck": True,
                # A Gemm may give floats; where an int8 node reads it, that node asks for int8.
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
            },
        )
        quantized: onnx.ModelProto = quantizer.quantize_model()
    return ir.from_proto(quantized)


def _weights(
    graph: ir.Graph,
    chosen: Collection[ir.Node],
    ranges: Mapping[ir.Value, Range],
    formats: Mapping[str, LayerFormat],
    avoid_saturation: bool,
) -> dict[str, list[dict[str, Any]]]:
    """Put the weights on their grids, in place; the grids in the quantizer's words, by name."""
    least: dict[ir.Value, Array] = {}
    grids: dict[ir.Value, Grid] = {}
    for node in graph:
        if node not in chosen or layer_of(node) is None:
            continue
        source, value = node.inputs[:2]
        assert source is not None
        assert value is not None
        step = _bias_step(node, ranges[scale_owner(source, chosen)])
        least[value] = np.maximum(step, least.get(value, 0))
        if value not in grids:
            format = format_of(node, formats)
            grids[value] = grid_of(node, format, avoid_saturation=avoid_saturation)
    for value, grid in grids.items():
        grids[value] = grid.at_least(least[value])
        # On the grid already, so that the quantizer's own rounding has nothing to decide.
        value.const_value = ir.tensor(grids[value].values, name=value.name)
    return {str(value.name): _channels(grid) for value, grid in grids.items()}


def _bias_step(node: ir.Node, bounds: Range) -> Array:
    """The least weight step at which the int32 bias and what is added to it cannot overflow.

    A bias is stored in steps of input scale times weight scale. The quantizer keeps the bias itself
    within 32 bits and leaves no room for the sum of products.
    """
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    scale, _ = activation_grid(*bounds)
    return np.zeros(1) if bias is None else np.abs(bias).astype(np.float64) / (scale * _BIAS_LIMIT)


def _activation(low: float, high: float) -> dict[str, Any]:
    scale, zero_point = activation_grid(low, high)
    return {
        "quant_type": QuantType.QUInt8,
        "scale": np.array(scale, dtype=np.float32),
        "zero_point": np.array(zero_point, dtype=np.uint8),
    }


def _channels(grid: Grid) -> list[dict[str, Any]]:
    zero = np.array(0, dtype=np.int8)
    kind = QuantType.QInt8
    return [
        {"axis": grid.axis, "quant_type": kind, "scale": np.array(step), "zero_point": zero}
        for step in grid.scale
    ]


def _spare_float_readers(graph: ir.Graph, int8_names: Collection[str]) -> None:
    # The quantizer lets every reader of a tensor read its rounded form. Where a float node makes
    # the tensor, float nodes can read it as it was made.
    for node in tuple(graph):
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        producer = source.producer() if source else None
        if source is None or (producer is not None and producer.name in int8_names):
            continue
        for back in consumers(node.outputs[0]):
            rewire(back.outputs[0], source, only=lambda user: user.name not in int8_names)
