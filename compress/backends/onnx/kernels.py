"""Kernels: whether onnxruntime's fused operators compute what the graph says.

The session that is deployed is compared with one in which every operator runs by itself, on real
data. Where they differ by more than rounding, the graph is cut at its roundings and each piece gets
what the piece before it should have made: a net that amplifies rounding then shows nothing, and a
wrong kernel shows by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from compress.backends.onnx.graph import Array, shield
from compress.backends.onnx.locate import Tensors, evaluate, noise
from compress.backends.onnx.partition import form_of

__all__ = ["differ", "guard", "wrong_kernels"]

#: What the sessions may differ by, as a share of the variance: rounding that falls the other way.
ROUNDING_NOISE = 1e-4
_STEPS = 2  # of an integer grid; one for each rounding, of the inputs and of the result
_STRAY = 1e-3  # share of values that may be further off, where a sum lies between two steps

_MOVES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def differ(model: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]]) -> bool:
    """Whether the optimized graph computes something else than the graph as it is written."""
    names = [output.name for output in model.graph.output]
    written, fused = (evaluate(model, names, feeds, optimized=level) for level in (False, True))
    return any(noise(written[name], fused[name]) > ROUNDING_NOISE for name in names)


def wrong_kernels(model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> list[ir.Node]:
    """The operators of ``model`` whose fused kernels give other results than the operators do.

    Raises:
        LoweringError: onnxruntime cannot run the graph or a piece of it.
    """
    proto = ir.to_proto(model)
    joints = list(_joints(model.graph))
    names = [str(value.name) for value in joints]
    outputs = [output.name for output in proto.graph.output]
    written = evaluate(proto, [*names, *outputs], feeds)
    if not joints:
        return _first_apart(model.graph, proto, written, feeds)
    pieces = _in_pieces(proto, written, names)
    given = [{**feed, **_joint_feed(written, names, row)} for row, feed in enumerate(feeds)]
    fused = evaluate(pieces, [*names, *outputs], given, optimized=True)
    ends = {str(value.name): value for value in (*joints, *model.graph.outputs)}
    wrong = [ends[name] for name in (*names, *outputs) if _apart(written[name], fused[name])]
    found = (_operator_before(value) for value in wrong)
    return list(dict.fromkeys(node for node in found if node is not None))


def _first_apart(
    graph: ir.Graph,
    proto: onnx.ModelProto,
    outputs: Tensors,
    feeds: Sequence[Mapping[str, Array]],
) -> list[ir.Node]:
    """The operator up to which a graph without roundings has to be fused to be wrong."""
    fused = evaluate(proto, list(outputs), feeds, optimized=True)
    if not any(_apart(outputs[name], fused[name]) for name in outputs):
        return []
    names = [str(value.name) for node in graph for value in node.outputs if value.name]
    written = evaluate(proto, names, feeds)
    for node in graph:
        for value in node.outputs:
            name = str(value.name)
            if value.name and _apart(
                written[name], evaluate(proto, [name], feeds, optimized=True)[name]
            ):
                return [node]
    return []


def guard(model: ir.Model, forms: frozenset[str]) -> None:
    """Keep operators of these forms from being fused with the integers around them.

    As for float products between int8 nodes (``layers.guard_float``), a Clip that clips nothing
    stands between a DequantizeLinear and the operator.
    """
    graph = model.graph
    for node in tuple(graph):
        if form_of(node) not in forms:
            continue
        for index, value in enumerate(node.inputs):
            back = value.producer() if value is not None else None
            if back is None or back.op_type != "DequantizeLinear":
                continue
            assert value is not None
            node.replace_input_with(index, shield(graph, node, value))


def _joints(graph: ir.Graph) -> Iterator[ir.Value]:
    """Tensors at which fused operators end: where values are rounded to integers."""
    seen: set[ir.Value] = set()
    for node in graph:
        value = node.outputs[0] if node.op_type == "QuantizeLinear" else None
        if node.op_type == "DynamicQuantizeLinear":
            value = node.inputs[0]
        inside = value is not None and value.producer() is not None
        if value is not None and inside and not value.is_graph_output() and value not in seen:
            seen.add(value)
            yield value


def _in_pieces(proto: onnx.ModelProto, written: Tensors, names: Sequence[str]) -> onnx.ModelProto:
    """The graph whose readers of the tensors ``names`` read inputs of their own instead."""
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    given = {name: f"{name}.given" for name in names}
    for node in cut.graph.node:
        node.input[:] = [given.get(name, name) for name in node.input]
    for name in names:
        kind = onnx.helper.np_dtype_to_tensor_dtype(written[name].dtype)
        shape = written[name].shape[1:]
        cut.graph.input.append(onnx.helper.make_tensor_value_info(given[name], kind, shape))
    return cut


def _joint_feed(written: Tensors, names: Sequence[str], row: int) -> dict[str, Array]:
    return {f"{name}.given": written[name][row] for name in names}


def _apart(written: Array, fused: Array) -> bool:
    if written.dtype.kind == "f":
        return noise(written, fused) > ROUNDING_NOISE
    steps = np.abs(written.astype(np.int32) - fused.astype(np.int32))
    return float((steps > _STEPS).mean()) > _STRAY


def _operator_before(value: ir.Value) -> ir.Node | None:
    """The operator whose result is rounded to ``value``: a layer, or the last that computes."""
    node = value.producer()
    while node is not None and node.op_type in {*_MOVES, "QuantizeLinear", "DequantizeLinear"}:
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    return node
