"""Which nodes of the graph are computed in which format.

Formats are declared for layers; what stands between two layers of one format (an addition, a
pooling, a concatenation) follows them, so that values need not be converted back and forth. Knows
nothing of scales or of how a format is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from compress.backends.onnx.export import layer_of, scopes
from compress.backends.onnx.graph import array_of, reaches
from compress.backends.onnx.recurrent import RECURRENT
from compress.quantization.formats import ACTIVATIONS
from compress.quantization.formats.uniform import StaticActivations
from compress.quantization.numerics import FLOAT32, LayerFormat

__all__ = [
    "KEEPS_SCALE",
    "absorbs",
    "cast_nodes",
    "computed_formats",
    "form_of",
    "format_of",
    "layers_with",
    "sole_producer",
    "static_nodes",
]

#: Quantized operators whose output has the scale of their input, since they only move or select.
KEEPS_SCALE = frozenset({"Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze"})
KEEPS_SCALE |= {"AveragePool", "Transpose", "Unsqueeze"}

# What is computed between two layers of one format in that format too.
_STATIC_BETWEEN = KEEPS_SCALE | {"Add", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul"}
_STATIC_BETWEEN |= {"Clip", "Relu", "Sigmoid"}
_CAST_BETWEEN = _STATIC_BETWEEN - {"Resize"} | {"Tanh"}

_LARGEST_SHIFT = 1 / 16  # of a constant factor, by rounding


def format_of(node: ir.Node, formats: Mapping[str, LayerFormat]) -> LayerFormat:
    """The declared format of the layer whose product ``node`` is; float32 for any other node."""
    layer = layer_of(node)
    return FLOAT32 if layer is None else formats.get(layer, FLOAT32)


def layers_with(
    graph: Iterable[ir.Node],
    formats: Mapping[str, LayerFormat],
    wanted: Callable[[LayerFormat], bool],
) -> list[tuple[str, ir.Node]]:
    """Path and product of every layer whose format is ``wanted``, in graph order."""
    named = [(layer_of(node), node) for node in graph]
    return [
        (name, node)
        for name, node in named
        if name is not None and wanted(format_of(node, formats))
    ]


def computed_formats(graph: ir.Graph, formats: Mapping[str, LayerFormat]) -> dict[str, LayerFormat]:
    """The formats that layers are encoded in, where the runtime has no kernel for those declared.

    float32 arithmetic takes the place of that of the activations, and weights keep their format; a
    layer whose product is computed outside of it stays float32.
    """
    operators = {name: node.op_type for name, node in layers_with(graph, formats, lambda _: True)}
    return {
        name: _computed(format, operators[name]) if name in operators else FLOAT32
        for name, format in formats.items()
    }


def _computed(format: LayerFormat, operator: str) -> LayerFormat:
    kernels = format.activation_quantizer.kernels
    if kernels is None or operator in kernels:
        return format
    return format.weights_only


def form_of(node: ir.Node) -> str:
    """An operator and its attributes: what decides which kernel computes it, and how."""
    attributes = sorted((a.name, str(a.value)) for a in node.attributes.values())
    own = ", ".join(f"{name}={value}" for name, value in attributes)
    return f"{node.op_type} ({own})" if own else node.op_type


def static_nodes(
    graph: ir.Graph,
    formats: Mapping[str, LayerFormat],
    activations: str,
    fallbacks: Collection[str] = frozenset(),
) -> set[ir.Node]:
    """Nodes whose inputs are quantized statically: layers, and what stands between them.

    An activation function right behind one of them belongs to it even where no such layer follows,
    since the output's range expresses it at no cost.

    Args:
        graph: the canonical float graph.
        formats: of its layers, as they are computed (:func:`computed_formats`).
        activations: the name of a static format.
        fallbacks: forms (:func:`form_of`) of operators between layers that stay float.
    """

    def has_format(format: LayerFormat) -> bool:
        return format.activations == activations

    kernels = ACTIVATIONS[activations].kernels
    found = layers_with(graph, formats, has_format)
    layers = [node for _, node in found if kernels is None or node.op_type in kernels]
    able = [node for node in graph if form_of(node) not in fallbacks]
    chosen = {*layers}
    chosen |= _between(able, layers, _STATIC_BETWEEN, formats, has_format, _grid_of(activations))
    for node in graph:
        producer = sole_producer(node)
        if node.op_type in ("Relu", "Clip") and producer in chosen and _sets_scale(producer):
            chosen.add(node)
    return chosen


def absorbs(node: ir.Node, chosen: Collection[ir.Node]) -> bool:
    """Whether the output range of the quantized node before it does all that ``node`` does.

    True of Relu and Clip behind an operator that chooses its scale: a range that starts at zero
    clips at zero. A Clip whose bounds exclude zero is kept, since zero is on every grid.
    """
    producer = sole_producer(node)
    if producer is None or producer not in chosen or producer.op_type in KEEPS_SCALE:
        return False
    return node.op_type == "Relu" or (node.op_type == "Clip" and _spans_zero(node))


def sole_producer(node: ir.Node) -> ir.Node | None:
    """The node that makes the first input, where it makes it for ``node`` alone."""
    value = node.inputs[0] if node.inputs else None
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return value.producer()


def cast_nodes(
    graph: ir.Graph, formats: Mapping[str, LayerFormat], activations: str
) -> set[ir.Node]:
    """Nodes computed in another float type: layers declared so, and what stands between them.

    Args:
        graph: the canonical float graph.
        formats: of its layers.
        activations: the name of a format whose operators run in its type.
    """

    def has_format(format: LayerFormat) -> bool:
        return format.activations == activations

    found = layers_with(graph, formats, has_format)
    layers = [node for _, node in found if node.op_type not in RECURRENT]
    # A factor that eight bits lose is better left in float32 as well.
    grid = _grid_of("int8")
    return {*layers, *_between(graph, layers, _CAST_BETWEEN, formats, has_format, grid)}


def _between(
    nodes: Iterable[ir.Node],
    layers: list[ir.Node],
    operators: frozenset[str],
    formats: Mapping[str, LayerFormat],
    wanted: Callable[[LayerFormat], bool],
    grid: StaticActivations,
) -> set[ir.Node]:
    able = {
        node
        for node in nodes
        if node.op_type in operators
        and (node.op_type != "Resize" or _is_nearest(node))
        and (node.op_type != "Mul" or _keeps_factors(node, grid))
        and _module_has(node, formats, wanted)
    }
    return reaches(layers, able, forward=True) & reaches(layers, able, forward=False)


def _module_has(
    node: ir.Node, formats: Mapping[str, LayerFormat], wanted: Callable[[LayerFormat], bool]
) -> bool:
    # The innermost module around the node that has layers at all decides for it.
    for scope in reversed(scopes(node)):
        inside = [f for name, f in formats.items() if not scope or _is_under(name, scope)]
        if inside:
            return any(wanted(format) for format in inside)
    return False


def _is_under(name: str, scope: str) -> bool:
    return name == scope or name.startswith(f"{scope}.")


def _grid_of(activations: str) -> StaticActivations:
    quantizer = ACTIVATIONS[activations]
    assert isinstance(quantizer, StaticActivations)
    return quantizer


def _keeps_factors(node: ir.Node, grid: StaticActivations) -> bool:
    """Whether a constant factor survives being rounded to one grid: layer scale often does not."""
    for array in (array_of(value) for value in node.inputs):
        if array is None or array.size == 1:
            continue
        scale, zero = grid.grid(float(array.min()), float(array.max()))
        rounded = (np.rint(array / scale + zero).clip(0, grid.levels) - zero) * scale
        if (np.abs(rounded - array) > _LARGEST_SHIFT * np.abs(array)).any():
            return False
    return True


def _is_nearest(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    return mode is None or mode.as_string() == "nearest"


def _spans_zero(node: ir.Node) -> bool:
    low, high = [*node.inputs[1:], None, None][:2]
    bounds = [(low, -1), (high, 1)]
    given = [(array_of(value), sign) for value, sign in bounds if value is not None]
    return all(array is not None and sign * array.item() >= 0 for array, sign in given)


def _sets_scale(node: ir.Node | None) -> bool:
    # A Gemm may also give floats, so what follows it need not be int8.
    return node is not None and node.op_type not in {*KEEPS_SCALE, "Gemm"}
