"""Static formats: the graph with QuantizeLinear and DequantizeLinear, by onnxruntime's quantizer.

The only importer of ``onnxruntime.quantization``. It decides where nodes go and how they are
wired; every number is given to it: the grids of weights and activations are the formats'
(:mod:`compress.quantization.formats`), and what was calibrated are the values of the float graph
(:mod:`compress.backends.onnx.ranges`).

Where layers have several static formats, each has a part of the graph. All parts are calibrated on
the float graph, and then encoded one after the other. What a part of few bits makes is rounded
again where another part reads it; what both read is rounded for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from compress.backends.onnx.calibration import calibrate, layer_ranges, scale_owner
from compress.backends.onnx.export import layer_of
from compress.backends.onnx.graph import Array, array_of, consumers, replace, stand_in
from compress.backends.onnx.partition import (
    KEEPS_SCALE,
    absorbs,
    format_of,
    layers_with,
    static_nodes,
)
from compress.backends.onnx.quiet import quiet
from compress.backends.onnx.ranges import Range
from compress.backends.onnx.weights import QuantizedWeight, quantized_weight
from compress.modules.inputs import Inputs
from compress.quantization.formats.uniform import StaticActivations
from compress.quantization.numerics import LayerFormat

__all__ = ["Static", "quantize"]

# Half of what int32 holds: the other half is for the sum of 2**15 products or more.
_BIAS_LIMIT = 2.0**30

# The quantizer wants a range for every tensor, and then takes the scale that it is given.
_UNUSED_RANGE = TensorData(lowest=np.float32(0), highest=np.float32(1))


@dataclass(frozen=True)
class Static:
    """The graph with its static parts, and the input range of every layer with a static format."""

    model: ir.Model
    ranges: dict[str, Range] = field(default_factory=dict)


@dataclass
class _GridPart:
    """The nodes that are quantized to one format, and the ranges of what they read and make."""

    quantizer: StaticActivations
    formats: Mapping[str, LayerFormat]
    chosen: set[ir.Node]
    ranges: dict[ir.Value, Range]


def quantize(
    model: ir.Model,
    formats: Mapping[str, LayerFormat],
    data: Sequence[Inputs],
    *,
    avoid_saturation: bool,
    fallbacks: Collection[str] = frozenset(),
) -> Static:
    """Encode the layers with static activations, and what stands between them.

    Args:
        model: the canonical float graph; it is used up.
        formats: of every quantizable layer.
        data: calibration batches.
        avoid_saturation: as in ``Lowering``.
        fallbacks: forms of operators between layers that stay float (``partition.form_of``).

    Raises:
        LoweringError: no calibration data, or activations or weights that cannot be encoded.
    """
    graph = model.graph
    parts = list(_parts(model, formats, data, fallbacks))
    ranges: dict[str, Range] = {}
    for part in parts:
        ranges |= layer_ranges(graph, part.formats, part.chosen, part.ranges)
    for part in parts:
        part.chosen = _absorb_activations(graph, part.chosen, [each.ranges for each in parts])
    plans = [_plan(graph, part, avoid_saturation) for part in parts if part.chosen]
    for plan in plans:
        known = {node.name for node in model.graph} | model.graph.initializers.keys()
        model = _run_quantizer(model, plan)
        _spare_other_readers(model.graph, known, plan.nodes)
        _name_apart(model.graph, known, plan.activation_type.name)
    return Static(model, ranges)


def _parts(
    model: ir.Model,
    formats: Mapping[str, LayerFormat],
    data: Sequence[Inputs],
    fallbacks: Collection[str],
) -> Iterator[_GridPart]:
    """The part of each static format in the graph; ranges are of the float graph."""
    found = layers_with(model.graph, formats, lambda format: format.needs_range)
    taken: set[ir.Node] = set()
    for activations in dict.fromkeys(formats[name].activations for name, _ in found):
        own = {name: f for name, f in formats.items() if f.activations == activations}
        quantizer = next(iter(own.values())).static_quantizer
        assert quantizer is not None
        chosen = static_nodes(model.graph, formats, activations, fallbacks) - taken
        taken |= chosen
        yield _GridPart(quantizer, own, chosen, calibrate(model, chosen, own, data))


def _absorb_activations(
    graph: ir.Graph, chosen: set[ir.Node], ranges: Sequence[dict[ir.Value, Range]]
) -> set[ir.Node]:
    """Remove activation functions that a range expresses; what is left of ``chosen``.

    ``ranges`` are those of all parts, which may read what such a function made.
    """
    kept = set(chosen)
    for node in tuple(graph)[::-1]:  # of two in a row, the last one's output is what was observed
        if node not in chosen or node.op_type not in ("Relu", "Clip"):
            continue
        if absorbs(node, chosen):
            result, source = node.outputs[0], node.inputs[0]
            assert source is not None
            for known in ranges:
                if result in known:
                    known[source] = known.pop(result)
            replace(graph, node, source)
            kept.discard(node)
        elif node.op_type == "Relu":
            # Relu has no int8 kernel of its own, LeakyRelu has.
            node.op_type = "LeakyRelu"
            node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.0)
        else:
            kept.discard(node)
    return kept


@dataclass(frozen=True)
class _QuantizerPlan:
    """What onnxruntime's quantizer is given for one part, by the names of nodes and tensors."""

    nodes: frozenset[str]
    operators: frozenset[str]
    activation_type: QuantType
    weight_type: QuantType
    activations: dict[str, list[dict[str, Any]]]
    weights: dict[str, list[dict[str, Any]]]


def _plan(graph: ir.Graph, part: _GridPart, avoid_saturation: bool) -> _QuantizerPlan:
    kind = _quant_type(part.quantizer.onnx_type)
    activations = {
        str(value.name): [_activation(part.quantizer, kind, bounds)]
        for value, bounds in (part.ranges | _moved_ranges(part)).items()
    }
    weights = _quantized_weights(graph, part, avoid_saturation)
    layers = [format.weight_quantizer.onnx_type for format in part.formats.values()]
    return _QuantizerPlan(
        nodes=frozenset(str(node.name) for node in part.chosen),
        operators=frozenset(node.op_type for node in part.chosen),
        activation_type=kind,
        weight_type=_quant_type(layers[0]),
        activations=activations,
        weights={str(value.name): _channels(weight) for value, weight in weights.items()},
    )


def _moved_ranges(part: _GridPart) -> dict[ir.Value, Range]:
    """The ranges of what quantized nodes moved, which are those of what they read.

    A quantizer that knows such an operator takes the scale of its input and leaves these unread.
    Which it knows depends on its version: onnxruntime 1.23 has no rule for Flatten, and 1.20 none
    for Slice either. It gives the output of an operator that it has no rule for a scale of its own.
    """
    moving = [node for node in part.chosen if node.op_type in KEEPS_SCALE]
    made = [value for node in moving for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    owners = {value: scale_owner(value, part.chosen) for value in made}
    return {value: part.ranges[owner] for value, owner in owners.items() if owner in part.ranges}


def _run_quantizer(model: ir.Model, plan: _QuantizerPlan) -> ir.Model:
    proto = ir.to_proto(model)
    # The mark of onnxruntime's own preprocessing: types are complete, do not infer them again.
    onnx.helper.set_model_props(proto, {"onnx.infer": "onnxruntime.quant"})
    with quiet():
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=False,
            weight_qType=plan.weight_type,
            activation_qType=plan.activation_type,
            tensors_range=dict.fromkeys(plan.activations, _UNUSED_RANGE),
            nodes_to_quantize=sorted(plan.nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(plan.operators),
            extra_options={
                "TensorQuantOverrides": plan.activations | plan.weights,
                "ForceQuantizeNoInputCheck": True,
                # A Gemm may give floats; where a quantized node reads it, that one asks for it.
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
            },
        )
        quantized: onnx.ModelProto = quantizer.quantize_model()
    return ir.from_proto(quantized)


def _quantized_weights(
    graph: ir.Graph, part: _GridPart, avoid_saturation: bool
) -> dict[ir.Value, QuantizedWeight]:
    """The weights of a part's layers, which are put on their grids in place."""
    least: dict[ir.Value, Array] = {}
    found: dict[ir.Value, QuantizedWeight] = {}
    for node in graph:
        if node not in part.chosen or layer_of(node) is None:
            continue
        source, value = node.inputs[:2]
        assert source is not None
        assert value is not None
        bounds = part.ranges[scale_owner(source, part.chosen)]
        step = _bias_step(node, part.quantizer.grid(*bounds)[0])
        least[value] = np.maximum(step, least.get(value, 0))
        if value not in found:
            format = format_of(node, part.formats)
            found[value] = quantized_weight(node, format, avoid_saturation=avoid_saturation)
    for value, weight in found.items():
        found[value] = weight.at_least(least[value])
        # On the grid already, so that the quantizer's own rounding has nothing to decide.
        value.const_value = ir.tensor(found[value].values, name=value.name)
    return found


def _bias_step(node: ir.Node, scale: float) -> Array:
    """The least weight step at which the int32 bias and what is added to it cannot overflow.

    A bias is stored in steps of input scale times weight scale. The quantizer keeps the bias itself
    within 32 bits and leaves no room for the sum of products.
    """
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return np.zeros(1) if bias is None else np.abs(bias).astype(np.float64) / (scale * _BIAS_LIMIT)


def _quant_type(onnx_type: str) -> QuantType:
    """The quantizer's name of an ONNX type."""
    wanted = onnx.TensorProto.DataType.Value(onnx_type)
    return next(kind for kind in QuantType if kind.tensor_type == wanted)


def _activation(quantizer: StaticActivations, kind: QuantType, bounds: Range) -> dict[str, Any]:
    scale, zero_point = quantizer.grid(*bounds)
    return {
        "quant_type": kind,
        "scale": np.array(scale, dtype=np.float32),
        "zero_point": np.array(zero_point, dtype=ir.DataType[quantizer.onnx_type].numpy()),
    }


def _channels(weight: QuantizedWeight) -> list[dict[str, Any]]:
    zero = np.array(0, dtype=weight.stored.dtype)
    kind = _quant_type(ir.DataType.from_numpy(weight.stored.dtype).name)
    return [
        {"axis": weight.axis, "quant_type": kind, "scale": np.array(step), "zero_point": zero}
        for step in weight.scale
    ]


def _name_apart(graph: ir.Graph, known: Collection[str | None], suffix: str) -> None:
    """Give what the quantizer inserted other names than it would insert for another part."""
    for node in graph:
        if node.name not in known:
            node.name = f"{node.name}.{suffix}"
            for value in node.outputs:
                if not value.is_graph_output():
                    value.name = f"{value.name}.{suffix}"
    for name, value in tuple(graph.initializers.items()):
        if name not in known:
            value.name = f"{name}.{suffix}"


def _spare_other_readers(
    graph: ir.Graph, known: Collection[str | None], own: Collection[str]
) -> None:
    """Let what is not quantized read what is not quantized.

    The quantizer lets every reader of a tensor read its rounded form, and the caller of the file,
    if the tensor is an output. Where a node of another part
    or none makes the tensor, such nodes can read it as it was made.

    Args:
        graph: just quantized.
        known: names of the nodes that were there before.
        own: names of those among them that were quantized.
    """
    for node in tuple(graph):
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        producer = source.producer() if source else None
        made_here = producer is not None and producer.name in own
        if source is None or made_here or node.name in known:
            continue
        for back in consumers(node.outputs[0]):
            stand_in(graph, back.outputs[0], source, only=lambda user: user.name not in own)
