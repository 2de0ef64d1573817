"""Editing an ONNX graph: constants, rewiring, and the last cleaning before it is written.

Knows nothing of torch, layers or number formats.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

__all__ = [
    "Array",
    "add_constant",
    "array_of",
    "consumers",
    "dims",
    "finish",
    "follow",
    "insert",
    "integers",
    "is_storage_type",
    "reaches",
    "replace",
    "rewire",
    "shield",
    "stand_in",
    "sweep",
]

Array = np.ndarray[Any, np.dtype[Any]]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

# What reads a weight as a matrix: products, and the Cast of one in integers.
_MATRIX_READERS = frozenset({"Cast", "Gemm", "MatMul", "MatMulInteger"})
_LOWEST = float(np.finfo(np.float32).min)
_WORTH_A_NODE = 1024  # bytes; a Transpose takes some dozens


def array_of(value: ir.Value | None) -> Array | None:
    """The constant in ``value``, or ``None`` if it is computed or absent."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def add_constant(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    """A new initializer, called ``name`` or, where that is taken, a variation of it."""
    unique = next(n for n in _variations(name) if n not in graph.initializers)
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=unique)
    value = ir.Value(
        name=unique,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def insert(graph: ir.Graph, before: ir.Node, node: ir.Node) -> ir.Value:
    """Put ``node`` into the graph; its only output."""
    graph.insert_before(before, node)
    return node.outputs[0]


def shield(graph: ir.Graph, before: ir.Node, value: ir.Value) -> ir.Value:
    """``value`` behind a Clip that clips nothing, which keeps onnxruntime from fusing across it."""
    lowest = add_constant(graph, np.array(_LOWEST, dtype=np.float32), "lowest")
    return insert(graph, before, ir.node("Clip", [value, lowest]))


def consumers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read ``value``."""
    return [node for node, _ in value.uses()]


def rewire(
    old: ir.Value, new: ir.Value, *, only: Callable[[ir.Node], bool] = lambda _: True
) -> None:
    """Make the readers of ``old`` read ``new``, those for which ``only`` holds."""
    for node, index in tuple(old.uses()):
        if only(node):
            node.replace_input_with(index, new)


def replace(graph: ir.Graph, node: ir.Node, result: ir.Value) -> None:
    """Remove ``node``; ``result`` takes the place of its only output, and its name if unnamed."""
    (old,) = node.outputs
    if result.name is None:
        result.name, old.name = old.name, f"{old.name}.replaced"
    result.shape, result.type = old.shape, old.type
    stand_in(graph, old, result, only=lambda user: user is not result.producer())
    graph.remove(node, safe=True)


def follow(
    graph: ir.Graph,
    value: ir.Value,
    node: ir.Node,
    *,
    only: Callable[[ir.Node], bool] = lambda _: True,
) -> ir.Value:
    """Put ``node`` behind the producer of ``value``; readers of ``value`` read its output.

    Those for which ``only`` does not hold read ``value`` as before.
    """
    producer = value.producer()
    assert producer is not None
    graph.insert_after(producer, node)
    (result,) = node.outputs
    stand_in(graph, value, result, only=lambda user: user is not node and only(user))
    return result


def stand_in(
    graph: ir.Graph, old: ir.Value, new: ir.Value, *, only: Callable[[ir.Node], bool]
) -> None:
    """Make ``new`` an output of the graph in place of ``old``, and what is read in its place.

    Readers for which ``only`` does not hold read ``old`` as before.
    """
    rewire(old, new, only=only)
    for index, output in enumerate(graph.outputs):
        if output is old:
            new.name, old.name = old.name, f"{old.name}.inner"
            new.shape, new.type = new.shape or old.shape, new.type or old.type
            graph.outputs[index] = new


def reaches(
    start: Collection[ir.Node], through: Collection[ir.Node], *, forward: bool
) -> set[ir.Node]:
    """Nodes of ``through`` that a path leads to from ``start`` without leaving ``through``."""
    found: set[ir.Node] = set()
    frontier = list(start)
    while frontier:
        node = frontier.pop()
        for near in set(node.successors() if forward else node.predecessors()):
            if near in through and near not in found:
                found.add(near)
                frontier.append(near)
    return found


def dims(value: ir.Value) -> tuple[int, ...]:
    """The shape of ``value``, which the export always knows; -1 for an axis that it left open."""
    assert value.shape is not None
    return tuple(size if isinstance(size, int) else -1 for size in value.shape)


def integers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """An attribute that lists integers."""
    attribute = node.attributes.get(name)
    return default if attribute is None else [int(i) for i in attribute.as_ints()]


def sweep(model: ir.Model) -> None:
    """Drop nodes and initializers that nothing reads."""
    passes.RemoveUnusedNodesPass()(model)


def finish(model: ir.Model) -> None:
    """Strip what is only for people and tools, share equal constants, and shorten names.

    A matrix that is another one transposed is not stored either, but computed from that one.

    Names of inputs and outputs are kept. The result depends on the graph alone.
    """
    sweep(model)
    model.graph.sort()
    passes.RemoveUnusedOpsetsPass()(model)
    _share_constants(model.graph)
    _share_transposed(model.graph)
    passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.name = "main"
    model.producer_name, model.producer_version, model.domain = "compresskit", None, None
    _shorten_names(model.graph)


def is_storage_type(kind: ir.DataType) -> bool:
    """Whether no operator but Cast takes tensors of a type: floats of eight bits or fewer."""
    return kind.is_floating_point() and kind.bitwidth <= 8


def _share_constants(graph: ir.Graph) -> None:
    first: dict[tuple[ir.DataType, tuple[int, ...], bytes], ir.Value] = {}
    for name, value in tuple(graph.initializers.items()):
        array = array_of(value)
        if array is None or value.dtype is None or value.is_graph_output():
            continue
        kept = first.setdefault((value.dtype, array.shape, array.tobytes()), value)
        if kept is not value:
            rewire(value, kept)
            del graph.initializers[name]


def _share_transposed(graph: ir.Graph) -> None:
    """Store a matrix that is read both ways once, as an embedding that an output layer is tied to.

    Runtimes compute the Transpose of a constant once, when they load a file. Embeddings stay as
    they are: their rows are looked up where they lie.
    """
    stored: dict[tuple[ir.DataType, tuple[int, ...]], list[ir.Value]] = {}
    for value in sorted(graph.initializers.values(), key=_is_read_as_matrix):
        array = array_of(value)
        if array is None or value.dtype is None or array.ndim != 2 or array.nbytes < _WORTH_A_NODE:
            continue
        turned = stored.get((value.dtype, array.shape[::-1]), [])
        source = next((other for other in turned if _is_turned(array, other)), None)
        if source is None or not _is_read_as_matrix(value):
            stored.setdefault((value.dtype, array.shape), []).append(value)
            continue
        _read_transposed(graph, value, source)
        graph.initializers.pop(str(value.name))


def _read_transposed(graph: ir.Graph, value: ir.Value, source: ir.Value) -> None:
    """Make the readers of ``value`` read the transpose of ``source``."""
    if source.dtype is None or not is_storage_type(source.dtype):
        transpose = ir.node("Transpose", [source], {"perm": [1, 0]})
        rewire(value, insert(graph, graph[0], transpose))
        return
    for cast in consumers(value):
        cast.replace_input_with(0, source)
        (floats,) = cast.outputs
        follow(graph, floats, ir.node("Transpose", [floats], {"perm": [1, 0]}))


def _is_read_as_matrix(value: ir.Value) -> bool:
    readers = consumers(value)
    return not value.is_graph_output() and all(n.op_type in _MATRIX_READERS for n in readers)


def _is_turned(array: Array, other: ir.Value) -> bool:
    known = array_of(other)
    assert known is not None
    # One row tells most matrices apart.
    return known[0].tobytes() == array[:, 0].tobytes() and known.tobytes() == array.T.tobytes()


def _shorten_names(graph: ir.Graph) -> None:
    fixed = {v.name for v in (*graph.inputs, *graph.outputs)}
    names = (name for name in _base36() if name not in fixed)
    constants = tuple(graph.initializers.values())
    graph.initializers.clear()
    for value in constants:
        _forget(value, next(names))
        if (array := array_of(value)) is not None:
            # Raw bytes: some writers spell small integers out, at up to ten bytes each.
            value.const_value = ir.tensor(array, dtype=value.dtype, name=value.name)
        value.shape, value.type = None, None
        graph.register_initializer(value)
    for value in (*graph.inputs, *graph.outputs):
        value.metadata_props.clear()
    for node in graph:
        node.name = next(names)
        for value in node.outputs:
            if value.name not in fixed:
                _forget(value, next(names))
                value.shape, value.type = None, None


def _forget(value: ir.Value, name: str) -> None:
    value.name = name
    value.metadata_props.clear()


def _base36() -> Iterator[str]:
    # A name that starts with a digit is legal, but some tools generate code from names.
    for length in itertools.count(1):
        for digits in itertools.product(_DIGITS, repeat=length):
            if not digits[0].isdigit():
                yield "".join(digits)


def _variations(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(2):
        yield f"{name}.{number}"
