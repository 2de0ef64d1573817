"""Census: what an ONNX file is made of, and what onnxruntime will run of it in int8.

Works on any ONNX file and needs no torch. Counts come from the file; which products run on int8
kernels, and which float operators stand between them, come from the graph that onnxruntime makes
of it, since a QuantizeLinear in a file promises nothing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from compress.artifact import Census, model_files
from compress.errors import LoweringError
from compress.lower.files import save
from compress.lower.session import open_session, run
from compress.operators import FLOAT_PRODUCTS, INT8_PRODUCTS, MOVES, is_int8, product_macs

__all__ = ["take_census"]

# Inputs that hold scales and zero points, and the zero point of a stored weight.
_PARAMETERS = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7), "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8), "MatMulInteger": (2, 3), "ConvInteger": (2, 3),
}  # fmt: skip
_ZERO_POINT = {
    "DequantizeLinear": (0, 2), "QLinearConv": (3, 5), "QLinearMatMul": (3, 5), "QGemm": (3, 5),
    "MatMulInteger": (1, 3), "ConvInteger": (1, 3),
}  # fmt: skip

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class _Ran:
    """A graph after one run: the shape and type of each tensor, and the batch size."""

    graph: onnx.GraphProto
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    batch: int


def take_census(path: Path) -> Census:
    """Count what is in the file at ``path``, external data included.

    It is loaded and run once on inputs of zeros, with free dimensions set to one.

    Raises:
        LoweringError: not an ONNX file, or one that onnxruntime cannot load or run.
    """
    model = _load(path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    by_type: Counter[str] = Counter()
    for array in constants.values():
        by_type[str(array.dtype)] += array.nbytes
    size = sum(part.stat().st_size for part in model_files(path))
    nonzero = _nonzero(model.graph, constants)
    operators = Counter(node.op_type for node in model.graph.node)
    with tempfile.TemporaryDirectory() as folder:
        optimised = _optimise(path, Path(folder))
        before, after = _run_once(model, Path(folder)), _run_once(optimised, Path(folder))
    return Census(
        operators=dict(sorted(operators.items())),
        weight_bytes=dict(sorted(by_type.items())),
        graph_bytes=size - by_type.total(),
        macs=_macs(before, FLOAT_PRODUCTS | INT8_PRODUCTS),
        int8_macs=_macs(after, INT8_PRODUCTS),
        nonzero_weights=nonzero,
        float_islands=_islands(after),
    )


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise LoweringError(
            f"{path}: not a readable ONNX file ({str(error).strip() or 'it is damaged'}); it may "
            "be truncated, or its external data may be missing."
        ) from error
    if not model.graph.node:
        raise LoweringError(f"{path}: not an ONNX model: it holds no operators.")
    return model


def _optimise(path: Path, folder: Path) -> onnx.ModelProto:
    # The extended level has all int8 fusions; the level above changes layouts, which depend on
    # the processor and leave shapes and islands as they are.
    optimised = folder / "optimised.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimised)
    if len(model_files(path)) > 1:
        beside = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(beside, f"{optimised.name}.data")
    open_session(path, options)
    return _load(optimised)


def _run_once(model: onnx.ModelProto, folder: Path) -> _Ran:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    names = list(dict.fromkeys(out for n in model.graph.node for out in n.output if out))
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    path = folder / "exposed.onnx"
    save(exposed, path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(path, options)
    feeds = {tensor.name: _zeros(tensor) for tensor in session.get_inputs()}
    arrays = {**feeds, **dict(zip(names, run(session, names, feeds), strict=True))}
    tensors = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    shapes = {name: array.shape for name, array in tensors.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    first = next(iter(feeds.values()), np.zeros(1))
    batch = first.shape[0] if first.ndim else 1
    dtypes = {name: str(array.dtype) for name, array in tensors.items()}
    return _Ran(model.graph, shapes, dtypes, batch)


def _zeros(tensor: Any) -> Array:
    shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
    kind = tensor.type.removeprefix("tensor(").removesuffix(")")
    names = {"float": "float32", "double": "float64"}
    return np.zeros(shape, dtype=names.get(kind, kind))


def _macs(ran: _Ran, products: Mapping[str, int]) -> int:
    total = 0
    for node in ran.graph.node:
        if node.op_type in products:
            total += _node_macs(ran, node, products[node.op_type])
    return total // ran.batch


def _node_macs(ran: _Ran, node: onnx.NodeProto, weight: int) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    source, other = ran.shapes[node.input[0]], ran.shapes[node.input[weight]]
    result = ran.shapes[node.output[0]]
    return product_macs(node.op_type, source, other, result, transposed=transposed)


def _islands(ran: _Ran) -> tuple[str, ...]:
    nodes = list(ran.graph.node)
    after, before = _flags(nodes, ran), [*reversed(_flags(nodes[::-1], ran, backward=True))]
    names = [
        node.op_type
        for node, has_before, has_after in zip(nodes, after, before, strict=True)
        if has_before and has_after and _is_float(node, ran)
    ]
    return tuple(dict.fromkeys(names))


def _flags(nodes: Sequence[onnx.NodeProto], ran: _Ran, *, backward: bool = False) -> list[bool]:
    """For each node, whether an int8 one comes before it in this (topological) order."""
    reached: set[str] = set()
    flags = []
    for node in nodes:
        reads, makes = (node.output, node.input) if backward else (node.input, node.output)
        flags.append(any(name in reached for name in reads))
        if flags[-1] or _is_int8(node, ran):
            reached.update(name for name in makes if name)
    return flags


def _is_int8(node: onnx.NodeProto, ran: _Ran) -> bool:
    return is_int8(node.op_type, {ran.dtypes.get(name, "") for name in node.output})


def _is_float(node: onnx.NodeProto, ran: _Ran) -> bool:
    floats = any(ran.dtypes.get(name, "").startswith("float") for name in node.output)
    dynamic = node.op_type == "DynamicQuantizeLinear"
    return floats and not dynamic and node.op_type not in MOVES and not _is_int8(node, ran)


def _nonzero(graph: onnx.GraphProto, constants: Mapping[str, Array]) -> int:
    """Weights that are not zero: what is left of the constants without scales and shapes."""
    parameters = _parameter_names(graph)
    zero_points = {
        node.input[weight]: constants.get(node.input[zero])
        for node in graph.node
        if node.op_type in _ZERO_POINT
        for weight, zero in [_ZERO_POINT[node.op_type]]
        if len(node.input) > max(weight, zero)
    }
    total = 0
    for name, array in constants.items():
        if array.ndim and array.dtype != np.int64 and name not in parameters:
            zero_point = zero_points.get(name)
            total += int(
                np.count_nonzero(array if zero_point is None else _centred(array, zero_point))
            )
    return total


def _centred(array: Array, zero_point: Array) -> Array:
    if not zero_point.any():
        return array
    # One zero point for all, or one per channel along an axis that its length identifies.
    shape = [zero_point.size if size == zero_point.size else 1 for size in array.shape]
    return array.astype(np.int32) - zero_point.astype(np.int32).reshape(shape)


def _parameter_names(graph: onnx.GraphProto) -> set[str]:
    made_by = {name: node for node in graph.node for name in node.output}
    names: set[str] = set()
    for node in graph.node:
        places = _PARAMETERS.get(node.op_type, ())
        names.update(node.input[place] for place in places if place < len(node.input))
        if node.op_type == "Mul":
            # The scale of weight-only (Cast, Mul) and of dynamic (DynamicQuantizeLinear, Mul).
            makers = [made_by[name] for name in node.input if name in made_by]
            kinds = {maker.op_type for maker in makers}
            if "Cast" in kinds or "DynamicQuantizeLinear" in kinds:
                names.update(node.input)
            names.update(_scales_looked_up(makers, made_by))
    return names


def _scales_looked_up(
    makers: Sequence[onnx.NodeProto], made_by: Mapping[str, onnx.NodeProto]
) -> list[str]:
    # Of a table in integers: Gather, Cast, times a Gather of the scales.
    casts = [maker for maker in makers if maker.op_type == "Cast"]
    scales = [maker for maker in makers if maker.op_type == "Gather"]
    rows = [made_by[c.input[0]].op_type for c in casts if c.input[0] in made_by]
    return [scale.input[0] for scale in scales] if rows == ["Gather"] else []
