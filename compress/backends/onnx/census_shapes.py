"""Shapes of tensors that no run has shown: what onnxruntime and onnx infer of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from compress.backends.onnx.census_graph import attributes_of, every_graph, every_node
from compress.backends.onnx.files import save
from compress.backends.onnx.operators import Shape
from compress.backends.onnx.session import open_session
from compress.errors import LoweringError

__all__ = ["in_bodies", "inferred", "sized_inputs"]


def sized_inputs(model: onnx.ModelProto) -> dict[str, Shape | None]:
    """The shape of each input with free axes of one; ``None`` for what is no tensor."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        tensor.name: _sized(tensor) for tensor in model.graph.input if tensor.name not in stored
    }


def _sized(tensor: onnx.ValueInfoProto) -> Shape | None:
    kind = tensor.type.tensor_type
    if not tensor.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.HasField("dim_value") else 1 for axis in kind.shape.dim)


def inferred(model: onnx.ModelProto, folder: Path) -> tuple[dict[str, Shape], dict[str, str]]:
    """Shapes and types of the tensors of a model whose inputs have free axes of one."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for tensor in sized.graph.input:
        for axis in tensor.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = 1
    shapes, types = _by_onnxruntime(sized, folder)
    return in_bodies(sized, shapes, types), types


def in_bodies(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], types: Mapping[str, str]
) -> dict[str, Shape]:
    """``shapes``, and what follows from them for other tensors, those in bodies first of all."""
    with_shapes = onnx.ModelProto()
    with_shapes.CopyFrom(model)
    del with_shapes.graph.value_info[:]
    with_shapes.graph.value_info.extend(
        helper.make_tensor_value_info(name, _number(types[name]), shape)
        for name, shape in shapes.items()
        if _number(types.get(name, "")) != TensorProto.UNDEFINED
    )
    for node in every_node(with_shapes.graph.node):
        _add_body_shapes(node, shapes)
    try:
        found = onnx.shape_inference.infer_shapes(with_shapes, data_prop=True)
    except (RuntimeError, ValueError, DecodeError):  # its own rules broken, or more than 2 GiB
        found = with_shapes
    return {**dict(_shapes_in(found)), **shapes}


def _number(kind: str) -> int:
    names = TensorProto.DataType.keys()
    return TensorProto.DataType.Value(kind.upper()) if kind.upper() in names else 0


def _by_onnxruntime(
    model: onnx.ModelProto, folder: Path
) -> tuple[dict[str, Shape], dict[str, str]]:
    """What onnxruntime says of the main graph's tensors, its own operators' included."""
    names = list(dict.fromkeys(out for node in model.graph.node for out in node.output if out))
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    path = folder / "exposed.onnx"
    save(exposed, path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = open_session(path, options)
    except LoweringError:  # such as a size of one that an operator cannot have
        return {}, {}
    tensors = [t for t in (*session.get_inputs(), *session.get_outputs()) if "tensor(" in t.type]
    plain = [tensor for tensor in tensors if tensor.type.startswith("tensor(")]
    types = {tensor.name: tensor.type[len("tensor(") : -1] for tensor in plain}
    shapes: dict[str, Shape] = {
        tensor.name: tuple(tensor.shape)
        for tensor in plain
        # A shape of which nothing is known looks as that of a scalar does.
        if tensor.shape and all(isinstance(axis, int) for axis in tensor.shape)
    }
    return shapes, types


def _add_body_shapes(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> None:
    """Give the inputs of a loop's body the shapes of the first pass, as onnx does not."""
    attributes = {attribute.name: attribute.g for attribute in node.attribute}
    body = attributes.get("body")
    if body is None:
        return
    given = [shapes.get(name) for name in node.input]
    if node.op_type == "Loop":
        given = [(), (), *given[2:]]
    elif node.op_type == "Scan":
        given = _first_slices(given, attributes_of(node))
    for tensor, shape in zip(body.input, given, strict=False):
        if shape is not None and not tensor.type.tensor_type.HasField("shape"):
            kind = tensor.type.tensor_type
            kind.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=s) for s in shape)
            if not shape:
                kind.shape.SetInParent()


def _first_slices(
    given: Sequence[Shape | None], attributes: Mapping[str, int | list[int]]
) -> list[Shape | None]:
    scanned = attributes["num_scan_inputs"]
    assert isinstance(scanned, int)
    axes = attributes.get("scan_input_axes")
    axes = axes if isinstance(axes, list) else [0] * scanned
    states = [*given[: len(given) - scanned]]
    for shape, axis in zip(given[len(given) - scanned :], axes, strict=False):
        place = axis % len(shape) if shape else 0
        states.append(None if not shape else (*shape[:place], *shape[place + 1 :]))
    return states


def _shapes_in(model: onnx.ModelProto) -> Iterator[tuple[str, Shape]]:
    for graph in every_graph(model.graph):
        yield from ((tensor.name, tuple(tensor.dims)) for tensor in graph.initializer)
        for tensor in (*graph.input, *graph.value_info, *graph.output):
            kind = tensor.type.tensor_type
            if kind.HasField("shape"):
                axes = kind.shape.dim
                yield (
                    tensor.name,
                    tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes),
                )
