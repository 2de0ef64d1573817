"""The float graph of a module, compared with the module before anything is encoded.

Whatever the formats are, an export that computes something else is found here, at float tolerance.
Where the exporter's optimizer is at fault, the graph is made without its rewrites; where the
exporter itself is, or the module, the operator and its line are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from compress.artifact import Lowering
from compress.backends.onnx.canonicalize import canonicalize
from compress.backends.onnx.export import STATIC, OpenShapes, export, trace
from compress.backends.onnx.feeds import cut
from compress.backends.onnx.graph import Array
from compress.backends.onnx.leaf_outputs import leaf_outputs
from compress.backends.onnx.locate import (
    describe_operator,
    evaluate,
    first_difference,
    noise,
    run_graph,
)
from compress.backends.onnx.parity import (
    FLOAT_NOISE,
    Outputs,
    check_same_outputs,
    check_shape,
    compare,
    is_right,
    of_output,
)
from compress.backends.onnx.quiet import quiet
from compress.errors import ParityError
from compress.modules.inputs import Inputs, at_batch, batch_size_of, copied, forward
from compress.modules.outputs import by_name, only
from compress.quantization.numerics import LayerFormat

__all__ = ["FloatGraph", "float_graph"]


@dataclass(frozen=True)
class FloatGraph:
    """The canonical float graph, the layers that got a copy of a constant, and what to note."""

    model: ir.Model
    copied: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def float_graph(
    module: nn.Module,
    example: Inputs,
    lowering: Lowering,
    formats: Callable[[ir.Graph], Mapping[str, LayerFormat]],
    check: Inputs,
    expected: Outputs,
    shapes: OpenShapes = STATIC,
) -> FloatGraph:
    """Export ``module``, canonicalize the graph, and check that it computes the module.

    Args:
        module: in eval mode; it is left as it was.
        example: a batch of any size.
        lowering: its batch and opset are used.
        formats: the declared format of every layer, given the exported graph.
        check: real inputs, samples on axis 0.
        expected: the module's outputs for them, of those that ship.
        shapes: the axes that stay open, and the outputs that ship.

    Raises:
        LoweringError: a module that cannot be exported.
        ParityError: a graph that computes something else; names the operator.
    """

    def attempt(*, careful: bool) -> tuple[FloatGraph, dict[str, Array]]:
        model = export(module, example, lowering, careful=careful, shapes=shapes)
        made = FloatGraph(model, tuple(canonicalize(model, formats(model.graph))))
        return made, _outputs(model, check, lowering.batch, expected)

    made, actual = attempt(careful=False)
    if _is_same(expected, actual):
        return made
    careful, actual = attempt(careful=True)
    if _is_same(expected, actual):
        note = (
            "the exporter's optimizer changes what the model computes, so that only batch norms "
            "were folded."
        )
        return FloatGraph(careful.model, careful.copied, (note,))
    for name, array in expected.items():
        check_shape(array, actual[name], of_output(name, expected))
    raise ParityError(_why(module, careful.model, example, lowering, check, expected, shapes))


def _is_same(expected: Outputs, actual: Outputs) -> bool:
    return all(_is_same_array(array, actual[name]) for name, array in expected.items())


def _is_same_array(expected: Array, actual: Array) -> bool:
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return False
    least = 1 - FLOAT_NOISE
    return is_right(compare(expected, actual), expected, least=least, is_float=True)


def _outputs(model: ir.Model, check: Inputs, size: int, expected: Outputs) -> dict[str, Array]:
    """What the graph gives, by the names that the module has for its outputs."""
    check_same_outputs(expected, len(model.graph.outputs))
    feeds = list(cut(check, [str(value.name) for value in model.graph.inputs], size))
    own = [str(value.name) for value in model.graph.outputs]
    ran = run_graph(ir.to_proto(model), own, [feed for feed, _ in feeds])
    found: dict[str, Array] = {}
    for place, name in enumerate(expected):
        rows = [arrays[place] for arrays in ran]
        if wrong := [row.shape for row in rows if row.shape[:1] != (size,)]:
            raise ParityError(
                f"the exported model gives outputs{of_output(name, expected)} of shape {wrong[0]} "
                f"for a batch of {size}; an output whose size depends on values has no static "
                "form."
            )
        parts = [row[-new:] for row, (_, new) in zip(rows, feeds, strict=True)]
        found[name] = np.concatenate(parts)
    return found


def _why(
    module: nn.Module,
    made: ir.Model,
    example: Inputs,
    lowering: Lowering,
    check: Inputs,
    expected: Outputs,
    shapes: OpenShapes,
) -> str:
    batch = at_batch(check, lowering.traced)
    if found := _mixes_samples(module, check, batch, expected):
        return (
            f"{found}, so that what the model says of a sample depends on the batch that it is "
            f"in, and a file with a batch of {lowering.batch} computes something else; use "
            "statistics that are learned, or of each sample by itself."
        )
    operator = _first_wrong(module, made, example, lowering, batch, shapes)
    return (
        "the exported float32 graph does not compute what the module computes, from "
        f"{operator} on; write it with other operators."
    )


def _first_wrong(
    module: nn.Module,
    made: ir.Model,
    example: Inputs,
    lowering: Lowering,
    batch: Inputs,
    shapes: OpenShapes,
) -> str:
    """The operator that the exporter gets wrong, or that goes wrong later, in words."""
    # At fixed sizes, of which one is traced.
    program = trace(module, example, lowering, OpenShapes(ships=shapes.ships))
    graph = program.model.graph
    assert program.exported_program is not None
    traced = _traced(program.exported_program, batch)
    (feed, _), *_ = cut(batch, [str(value.name) for value in graph.inputs], lowering.traced)
    wrong = first_difference(graph, traced, _same_named(program.model, traced, feed))
    if wrong is not None:
        return describe_operator(wrong, torch_name=_torch_operator(program, wrong))
    wrong = first_difference(made.graph, traced, _same_named(made, traced, feed))
    return "an operator" if wrong is None else describe_operator(wrong)


def _same_named(
    model: ir.Model, wanted: Mapping[str, Array], feed: Mapping[str, Array]
) -> dict[str, Array]:
    names = sorted(wanted.keys() & _made(model.graph))
    return evaluate(ir.to_proto(model), names, [feed])


def _made(graph: ir.Graph) -> set[str]:
    return {str(value.name) for node in graph for value in node.outputs}


class _OutputRecorder(torch.fx.Interpreter):
    """Runs a traced program and keeps what each operator makes."""

    def __init__(self, program: torch.fx.GraphModule) -> None:
        super().__init__(program)
        self.made: dict[str, Array] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "call_function":
            self.made[n.name] = result.detach().numpy()[None].copy()
        return result


@torch.no_grad()
def _traced(program: torch.export.ExportedProgram, batch: Inputs) -> dict[str, Array]:
    own = program.module()
    assert isinstance(own, torch.fx.GraphModule)
    places = [node.name for node in own.graph.nodes if node.op == "placeholder"]
    arguments = [batch] if isinstance(batch, Tensor) else [batch[name] for name in places]
    recorder = _OutputRecorder(own)
    with quiet():
        recorder.run(*arguments, enable_io_processing=False)
    return recorder.made


def _torch_operator(program: torch.onnx.ONNXProgram, node: ir.Node) -> str | None:
    names = {str(value.name) for value in node.outputs}
    assert program.exported_program is not None
    graph = program.exported_program.graph
    return next((str(n.target) for n in graph.nodes if n.name in names), None)


@torch.no_grad()
def _mixes_samples(
    module: nn.Module, check: Inputs, batch: Inputs, expected: Outputs
) -> str | None:
    """What makes the outputs of a sample depend on the rest of its batch, if they do."""
    size = batch_size_of(batch)
    alone = by_name(only(forward(module, copied(batch)), expected))
    if all(_is_alone(array, alone[name].numpy()) for name, array in expected.items()):
        return None
    apart, together = leaf_outputs(module, batch), leaf_outputs(module, check)
    for name, (kind, values) in apart.items():
        other = together.get(name, (kind, values))[1]
        same_kind = values.shape[1:] == other.shape[1:] and len(other) >= size <= len(values)
        if same_kind and noise(other[:size], values[:size]) > FLOAT_NOISE:
            return f"the module {name!r} ({kind}) mixes the samples of a batch"
    return "the model's forward mixes the samples of a batch"


def _is_alone(expected: Array, alone: Array) -> bool:
    """Whether the first samples have the same outputs in a batch of their own."""
    whole = expected[np.arange(len(alone)) % len(expected)]
    return alone.shape == whole.shape and noise(whole, alone) <= FLOAT_NOISE
