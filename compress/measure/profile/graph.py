"""Graphs as plain data: the file's, the one that onnxruntime made of it, and who is who.

What a node of the running graph is called depends on what onnxruntime fused. Modules are found by,
in this order: the note beside an artifact, the exporter's metadata, paths in node names, paths in
the names of weights; and from the file to the running graph by node, tensor and weight names.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.artifact import file_sha256, modules_file

__all__ = [
    "ConstantTensor",
    "Graph",
    "GraphNode",
    "match",
    "modules_of",
    "modules_of_running",
    "noted",
    "read_graph",
    "written_names",
]

_SCOPES = "pkg.torch.onnx.name_scopes"  # what torch's exporter leaves on each node
# What onnxruntime appends where it writes a node anew in another layout, and to make names unique.
_REWRITTEN = re.compile(r"(?:_nchwc)?(?:_token_\d+)?$")

# What onnxruntime puts before names of values in half precision that it computes in full.
_WIDENED = "InsertedPrecisionFreeCast_"


@dataclass(frozen=True)
class GraphNode:
    """One operator. ``scope`` is the module that the exporter noted, ``None`` if it noted none."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str = ""
    scope: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConstantTensor:
    """Shape and type (as in ``int8``, ``float``) of a stored tensor."""

    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True)
class Graph:
    """Operators in an order in which they can run, and constants by name."""

    nodes: tuple[GraphNode, ...]
    constants: Mapping[str, ConstantTensor]

    def makers(self) -> dict[str, int]:
        """The place of the node that makes each tensor."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.outputs if name}

    def readers(self) -> dict[str, list[int]]:
        """The places of the nodes that read each tensor."""
        found: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in node.inputs:
                found.setdefault(name, []).append(i)
        return found


# -- reading ----------------------------------------------------------------------------------


def read_graph(content: bytes) -> Graph:
    """The main graph of an ONNX file; external data is not looked at."""
    import onnx

    model = onnx.load_model_from_string(content)
    constants = {
        tensor.name: ConstantTensor(tuple(tensor.dims), _type_name(tensor.data_type))
        for tensor in model.graph.initializer
    }
    return Graph(tuple(_node(node) for node in model.graph.node), constants)


def _type_name(number: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(number)).lower()


def _node(node: Any) -> GraphNode:
    notes = {entry.key: entry.value for entry in node.metadata_props}
    return GraphNode(
        name=node.name,
        operator=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        domain=node.domain,
        scope=_scope(notes.get(_SCOPES)),
        attributes=dict(_attributes(node)),
    )


def _attributes(node: Any) -> Iterator[tuple[str, Any]]:
    """What amounts of work follow from: numbers, lists of them, texts."""
    import onnx

    kinds = onnx.AttributeProto
    plain = {kinds.INT, kinds.INTS, kinds.FLOAT, kinds.FLOATS, kinds.STRING}
    for entry in node.attribute:
        if entry.type in plain:
            yield entry.name, onnx.helper.get_attribute_value(entry)


def _scope(text: str | None) -> str | None:
    try:
        return str(ast.literal_eval(text or "")[-2])
    except (ValueError, SyntaxError, IndexError, TypeError):
        return None


def noted(model: Path) -> dict[str, str]:
    """Modules by node name from the note that lowering left; empty without one for this file."""
    try:
        note = json.loads(modules_file(model).read_text(encoding="utf-8"))
        if note["sha256"] == file_sha256(model):
            return {str(name): str(module) for name, module in note["modules"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


# -- modules ----------------------------------------------------------------------------------


def modules_of(graph: Graph, note: Mapping[str, str]) -> list[str | None]:
    """The module of each node of a file; ``None`` where nothing names one."""
    found = [_named(node, note, graph.constants) for node in graph.nodes]
    _take_from_makers(graph, found)
    _take_from_readers(graph, found)
    return found


def _named(
    node: GraphNode, note: Mapping[str, str], constants: Mapping[str, ConstantTensor]
) -> str | None:
    for module in (note.get(node.name), node.scope, _path_in_node(node.name)):
        if module is not None:
            return module
    return next(_paths_in_weights(node, constants), None)


def _path_in_node(name: str) -> str | None:
    """``layer1.0.conv1`` from ``/layer1/layer1.0/conv1/Conv``, as older exporters name nodes."""
    parts = [part for part in name.split("/")[:-1] if part]
    path: list[str] = []
    for part in parts:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path) if path else None


def _paths_in_weights(node: GraphNode, constants: Mapping[str, ConstantTensor]) -> Iterator[str]:
    for name in node.inputs:
        module, dot, _ = name.rpartition(".")
        if name in constants and dot and "::" not in name:
            yield module


def _take_from_makers(graph: Graph, found: list[str | None]) -> None:
    """A node that nothing names belongs to who made what it reads."""
    made_by = graph.makers()
    for i, node in enumerate(graph.nodes):
        if found[i] is None:
            found[i] = _first(found, [made_by[name] for name in node.inputs if name in made_by])


def _take_from_readers(graph: Graph, found: list[str | None]) -> None:
    read_by = graph.readers()
    for i, node in reversed([*enumerate(graph.nodes)]):
        if found[i] is None:
            found[i] = _first(found, [j for name in node.outputs for j in read_by.get(name, ())])


def _first(found: Sequence[str | None], places: Sequence[int]) -> str | None:
    return next((found[place] for place in places if found[place] is not None), None)


def modules_of_running(
    running: Graph, source: Graph, modules: Sequence[str | None]
) -> list[str | None]:
    """The module of each node of the graph that runs, given those of the file's nodes."""
    by_node = {n.name: m for n, m in zip(source.nodes, modules, strict=True) if n.name}
    by_tensor = {
        name: module
        for node, module in zip(source.nodes, modules, strict=True)
        for name in node.outputs
    }
    by_tensor = {**_read_in_place(running, source, by_tensor), **by_tensor}
    by_weight = _sole_readers(source, modules)
    found: list[str | None] = []
    for node in running.nodes:
        written = _REWRITTEN.sub("", node.name)
        places = [
            by_node.get(written),
            *(by_tensor.get(name) for name in node.outputs),
            by_tensor.get(written),
            *(by_weight.get(name) for name in node.inputs),
        ]
        found.append(next((module for module in places if module is not None), None))
    # What onnxruntime put before a node is there for that node.
    _take_from_readers(running, found)
    _take_from_makers(running, found)
    return found


def _read_in_place(
    running: Graph, source: Graph, by_tensor: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The modules of tensors with new names, from nodes that read others in the file.

    An operator that onnxruntime writes out as several leaves its name on none of them.
    """
    written = {node.name: node for node in source.nodes if node.name}
    found = {}
    for node in running.nodes:
        before = written.get(node.name)
        if before and (before.operator, len(before.inputs)) == (node.operator, len(node.inputs)):
            for new, old in zip(node.inputs, before.inputs, strict=True):
                found[new] = by_tensor.get(old)
    return found


def _sole_readers(graph: Graph, modules: Sequence[str | None]) -> dict[str, str]:
    found = {}
    for name, places in graph.readers().items():
        readers = {modules[place] for place in places}
        if name in graph.constants and len(readers) == 1 and (sole := readers.pop()) is not None:
            found[name] = sole
    return found


def match(operators: Sequence[tuple[str, str]], graph: Graph) -> list[int | None]:
    """The place in ``graph`` of each operator that ran, given its name and type, in that order.

    onnxruntime calls a node without a name by its type and a number of its own; nodes of one type
    run in the order in which they are written. What is not found ran inside another operator.
    """
    named = {node.name: i for i, node in enumerate(graph.nodes) if node.name}
    nameless: dict[str, list[int]] = {}
    for i, node in reversed([*enumerate(graph.nodes)]):
        if not node.name:
            nameless.setdefault(node.operator, []).append(i)
    found: list[int | None] = []
    for name, operator in operators:
        place = named.get(name)
        if place is None and nameless.get(operator) and name.rpartition("_")[0] == operator:
            place = nameless[operator].pop()
        found.append(place)
    return found


def written_names(node: GraphNode) -> tuple[str, ...]:
    """What a node of the running graph, and what it makes, may be called in the file."""
    given = [name.removeprefix(_WIDENED) for name in (*node.outputs, node.name)]
    return tuple(_REWRITTEN.sub("", name) for name in given if name)
