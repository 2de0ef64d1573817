"""The outputs of a graph: which of the module's they are, and what they are called.

Their order is that in which the module returns them, so that what a runtime gives is told by place,
even where the file had to call an output otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn

from compress.modules.outputs import as_outputs, only

__all__ = ["name_outputs", "returning_a_tuple"]


@contextmanager
def returning_a_tuple(
    module: nn.Module, ships: Collection[str], unnamed: str
) -> Iterator[list[str]]:
    """While open, ``module`` returns the outputs that ship as one tensor or a tuple of them.

    An exporter takes no data classes that it was not told of, and of names it keeps some. A hook
    changes neither the module's forward nor the paths of what it calls.

    Args:
        module: whatever it returns.
        ships: names of outputs; empty for all.
        unnamed: the name of an output that has none.

    Returns:
        The names, once the module has run.
    """
    names: list[str] = []

    def flatten(_: nn.Module, __: object, given: Any) -> Tensor | tuple[Tensor, ...]:
        outputs = only(as_outputs(given), ships)
        if isinstance(outputs, Tensor):
            names[:] = [unnamed]
            return outputs
        names[:] = outputs
        return tuple(outputs.values())

    handle = module.register_forward_hook(flatten)
    try:
        yield names
    finally:
        handle.remove()


def name_outputs(graph: ir.Graph, names: Sequence[str], taken: Collection[str | None]) -> None:
    """Give the outputs of ``graph`` their names; one that is taken gets a number behind it.

    An output that is an input, a constant or another output gets a tensor of its own.

    Args:
        graph: edited in place.
        names: of its outputs, in order.
        taken: names that inputs have.
    """
    outputs = graph.outputs
    for place, output in enumerate(outputs):
        is_another = any(output is other for other in outputs[:place])
        if is_another or output.is_graph_input() or output.producer() is None:
            outputs[place] = _in_a_tensor_of_its_own(graph, output)
    given: list[str] = []
    for name in names:
        reserved = {"", *taken, *given, *(other for other in names if other != name)}
        given.append(next(free for free in _variations(name) if free not in reserved))
    _free(graph, given)
    for output, name in zip(outputs, given, strict=True):
        output.name = name


def _in_a_tensor_of_its_own(graph: ir.Graph, output: ir.Value) -> ir.Value:
    node = ir.node("Identity", [output])
    graph.append(node)
    (result,) = node.outputs
    result.shape, result.type = output.shape, output.type
    return result


def _free(graph: ir.Graph, names: Collection[str]) -> None:
    """Call what is inside the graph otherwise than ``names``: operators name their results, too."""
    inside = [value for node in graph for value in node.outputs if not value.is_graph_output()]
    inside += graph.initializers.values()
    known = {value.name for value in (*inside, *graph.inputs, *graph.outputs)}
    for value in inside:
        if value.name in names:
            numbered = (f"{value.name}.inner{number}" for number in itertools.count(1))
            value.name = next(name for name in numbered if name not in known and name not in names)
            known.add(value.name)


def _variations(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
