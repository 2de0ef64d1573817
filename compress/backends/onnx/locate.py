"""Locating: the operator at which two computations of one function part.

Used once a check has failed, to say where. Tensors are compared by name, in the order of a graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from compress.backends.onnx.export import line_of, scopes
from compress.backends.onnx.graph import Array
from compress.backends.onnx.parity import r_squared
from compress.backends.onnx.session import open_exposed, run

__all__ = [
    "LOCATION",
    "Tensors",
    "describe_operator",
    "evaluate",
    "first_difference",
    "location_of",
    "noise",
    "noisiest",
    "run_graph",
]

#: Where a node keeps what :func:`location_of` says of it once its metadata is gone.
LOCATION = "compresskit.place"

#: What each tensor holds, by name: its values for every feed, flat, one after another.
Tensors = Mapping[str, Array]

#: A tensor whose noise is below this is as good as equal: that of a float graph, with some room.
_EQUAL = 1e-4
#: What rounding to eight bits comes to in one operator.
_QUIET = 1e-4

_USUAL = {"auto_pad": "NOTSET", "ceil_mode": 0, "dilations": 1, "group": 1, "pads": 0, "strides": 1}


def run_graph(
    model: onnx.ModelProto,
    names: Sequence[str],
    feeds: Sequence[Mapping[str, Array]],
    *,
    optimized: bool = False,
) -> list[list[Array]]:
    """For each feed, the values of the tensors called ``names``.

    Without ``optimized`` every operator of the graph runs by itself, as it is written.

    Raises:
        LoweringError: onnxruntime cannot load or run the graph.
    """
    levels = ort.GraphOptimizationLevel
    level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    session = open_exposed(model, names, level)
    return [run(session, list(names), feed) for feed in feeds]


def evaluate(
    model: onnx.ModelProto,
    names: Sequence[str],
    feeds: Sequence[Mapping[str, Array]],
    *,
    optimized: bool = False,
) -> dict[str, Array]:
    """The values of the tensors called ``names``, one row for each feed (:func:`run_graph`).

    Those of a tensor whose shape depends on values are flat, one after another.
    """
    rows = run_graph(model, names, feeds, optimized=optimized)
    return {name: _together([row[i] for row in rows]) for i, name in enumerate(names)}


def _together(values: Sequence[Array]) -> Array:
    if len({value.shape for value in values}) == 1:
        return np.stack(values)
    return np.concatenate([value.reshape(-1) for value in values])


def noise(expected: Array, actual: Array) -> float:
    """Squared error of ``actual`` over the variance of ``expected`` (1 - R²), over all feeds."""
    if expected.size != actual.size:
        return math.inf
    if expected.dtype.kind == "b":
        return float((expected != actual).mean())
    if not np.isfinite(actual).all():
        return math.inf
    return 1 - r_squared(expected.reshape(1, -1), actual.reshape(1, -1))


def first_difference(graph: ir.Graph, expected: Tensors, actual: Tensors) -> ir.Node | None:
    """The first node of ``graph`` with an output that differs, of those in both."""
    for node, value in _outputs(graph):
        if value in expected and value in actual and _differ(expected[value], actual[value]):
            return node
    return None


def noisiest(graph: ir.Graph, expected: Tensors, actual: Tensors) -> ir.Node | None:
    """The node of ``graph`` whose output is noisier than its inputs by the largest factor."""
    levels: dict[str, float] = {}
    found: tuple[float, ir.Node | None] = (0.0, None)
    for node, value in _outputs(graph):
        before = max((levels.get(str(v.name), 0.0) for v in node.inputs if v), default=0.0)
        levels[value] = before
        if value in expected and value in actual and expected[value].dtype.kind == "f":
            levels[value] = noise(expected[value], actual[value])
            found = max(found, (levels[value] / max(before, _QUIET), node), key=lambda f: f[0])
    return found[1]


def describe_operator(node: ir.Node, *, torch_name: str | None = None) -> str:
    """An operator as messages name it: type, attributes, module, and the line that called it.

    ``torch_name`` is what it was exported from; by default its own type and attributes are named.
    """
    return f"{torch_name or _kind(node)} {location_of(node)}"


def location_of(node: ir.Node) -> str:
    """Where ``node`` comes from: ``in the module 'stem.pool' (line 12 of net.py)``."""
    if LOCATION in node.meta:
        return str(node.meta[LOCATION])
    scope, line = scopes(node)[-1], line_of(node)
    module = f"in the module {scope!r}" if scope else "in the model's own forward"
    return f"{module} ({line})" if line else module


def _kind(node: ir.Node) -> str:
    own = [f"{a.name}={_short(a)}" for a in node.attributes.values() if not _is_usual(a)]
    return f"{node.op_type} ({', '.join(own)})" if own else node.op_type


def _outputs(graph: ir.Graph) -> Iterator[tuple[ir.Node, str]]:
    for node in graph:
        for value in node.outputs:
            if value.name:
                yield node, value.name


def _differ(expected: Array, actual: Array) -> bool:
    # A canonical graph may hold the same values in another shape.
    return noise(expected, actual) > _EQUAL


def _is_usual(attribute: ir.Attr) -> bool:
    """Whether an attribute has the value that it has where nothing is said of it."""
    value = attribute.value
    usual = _USUAL.get(attribute.name)
    return usual is not None and all(v == usual for v in (value if _is_list(value) else (value,)))


def _is_list(value: object) -> bool:
    return isinstance(value, tuple | list)


def _short(attribute: ir.Attr) -> str:
    value = attribute.value
    return str(list(value)) if _is_list(value) else str(value)
