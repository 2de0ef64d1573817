"""Graphs of ONNX with the bodies in them: who reads what, and what does not depend on inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

__all__ = ["Names", "attributes_of", "bodies", "every_graph", "every_node", "live_nodes"]

_RANDOM = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside of ``node``, as ``If`` and ``Loop`` have."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """``nodes`` and those of their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from every_node(body.node)


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """``graph`` and the bodies in it."""
    yield graph
    for node in every_node(graph.node):
        yield from bodies(node)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of ``node`` that are numbers or texts, by name."""
    kinds = onnx.AttributeProto
    plain = {kinds.INT, kinds.INTS, kinds.FLOAT, kinds.FLOATS, kinds.STRING, kinds.STRINGS}
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if a.type in plain}


def live_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that an output of ``graph`` depends on; the others are never run."""
    wanted = {tensor.name for tensor in graph.output}
    found = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            found.append(node)
            wanted.update(_read_by(node))
    return found[::-1]


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for body in bodies(node):
        for inner in every_node(body.node):
            yield from inner.input
        # A body may hand on what it did not make.
        yield from (tensor.name for graph in every_graph(body) for tensor in graph.output)


@dataclass(frozen=True)
class Names:
    """Tensors that do not depend on the inputs' values.

    Those in ``fixed`` may depend on their shapes, those in ``constant`` depend on nothing.
    """

    constant: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()

    def within(self, graph: onnx.GraphProto, given: Iterable[str] = ()) -> Names:
        """These, and those of ``graph``, of whose inputs the ``given`` ones are fixed."""
        stored = {tensor.name for tensor in graph.initializer}
        stored |= {sparse.values.name for sparse in graph.sparse_initializer}
        stored -= {tensor.name for tensor in graph.input}
        constant, fixed = {*self.constant, *stored}, {*self.fixed, *stored, *given}
        for node in graph.node:
            reads = {name for name in node.input if name}
            if node.op_type in _RANDOM or next(bodies(node), None) is not None:
                continue
            if reads <= constant:
                constant.update(node.output)
            if reads <= fixed or node.op_type in ("Shape", "Size"):
                fixed.update(node.output)
        return Names(frozenset(constant), frozenset(fixed))
