"""Export: a float32 module as an ONNX graph with its layers marked.

Its shapes are those of one static batch, less the axes that are asked to stay open.

Owns the call of torch's exporter and the translation of its failures. Knows nothing of number
formats. Each node carries the module that it came from (:func:`scopes`), and the product of each
layer that can have a format carries that layer's path (:func:`layer_of`), as does the Gather of an
embedding; marks are removed when the file is written.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from compress.artifact import Lowering
from compress.backends.onnx.outputs import name_outputs, returning_a_tuple
from compress.backends.onnx.quiet import quiet
from compress.backends.onnx.translate import TRANSLATIONS, projections_in_steps
from compress.errors import LoweringError
from compress.modules.inputs import Inputs, at_batch
from compress.modules.outputs import OUTPUT
from compress.quantization.fakequant import layers_with_formats
from compress.quantization.recurrent import RECURRENT, is_stepwise

__all__ = [
    "STATIC",
    "OpenShapes",
    "check_weights",
    "export",
    "layer_of",
    "line_of",
    "mark_like",
    "scopes",
    "trace",
]


@dataclass(frozen=True)
class OpenShapes:
    """What a file leaves open, and which outputs it has.

    ``axes`` names the open axes of each input, as in ``{"input_ids": {0: "batch_size"}}``: axes of
    one name have one size. Without any, all shapes are those of the batch. ``output`` is what an
    output is called that has no name, and ``ships`` which of several the file has: all if empty.
    """

    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    output: str = OUTPUT
    ships: tuple[str, ...] = ()


#: All shapes are fixed.
STATIC = OpenShapes()

# By the names of forward's arguments, or by their places.
_Axes = dict[str, dict[int, str]] | tuple[dict[int, str], ...] | None

_SCOPES = "pkg.torch.onnx.name_scopes"
_STACK = "pkg.torch.onnx.stack_trace"
_LAYER = "compresskit.layer"
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_OLDEST_OPSET = 18  # that the exporter writes; converting its output further down loses the marks
_USER_CODE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.+)')
# Where no line is the user's: torch, and this package.
_OTHERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
# What the exporter says of clamp(x, -1, 0.5): it has no overload for an integer beside a float.
_MIXED_NUMBERS = "Cannot find a compatible OpOverload"
# And of an axis that was to stay open, where forward has its size as a number.
_SPECIALIZED = ("conflicts between user-specified", "but your code specialized", "not in VR[")
_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)'")


def export(
    module: nn.Module,
    example: Inputs,
    lowering: Lowering,
    *,
    careful: bool = False,
    shapes: OpenShapes = STATIC,
) -> ir.Model:
    """``module`` as float32 ONNX with batch norms folded and constants computed.

    Args:
        module: in eval mode; it is left as it was.
        example: a batch of any size; repeated or cut to ``lowering.traced`` samples.
        lowering: its batch and opset are used.
        careful: use only those rewrites of the exporter's optimizer that lowering builds on.
        shapes: the axes that stay open, and the outputs.

    Raises:
        LoweringError: weights that are not finite, an opset that is too old, or code that torch
            cannot trace or ONNX cannot express; it names the module or operator.
    """
    if lowering.opset < _OLDEST_OPSET:
        raise LoweringError(
            f"lowering.opset must be {_OLDEST_OPSET} or more, the oldest that torch exports; "
            f"got {lowering.opset}."
        )
    check_weights(module)
    with returning_a_tuple(module, shapes.ships, shapes.output) as outputs:
        program = _run_exporter(module, at_batch(example, lowering.batch), lowering.opset, shapes)
    # Folding a batch norm leaves a node with the batch norm's scope and equal weights are
    # merged, so the layers are marked while each product still has its own module.
    _mark_layers(program.model.graph, module)
    names = [value.name for value in program.model.graph.inputs]
    with quiet():
        if careful:
            _optimize_carefully(program.model)
        else:
            program.optimize()
    model = program.model
    if model.opset_imports.get("") != lowering.opset:
        raise LoweringError(
            f"opset {lowering.opset} is not one that this torch can export; "
            f"opset {model.opset_imports.get('')} would do."
        )
    name_outputs(model.graph, outputs, names)
    # Of a net that returns its input, the optimizer gives the input's name to the output.
    for value, name in zip(model.graph.inputs, names, strict=True):
        value.name = name
    return model


def trace(
    module: nn.Module, example: Inputs, lowering: Lowering, shapes: OpenShapes = STATIC
) -> torch.onnx.ONNXProgram:
    """What the exporter makes of ``module``, not yet optimized, beside the program that it traced.

    Raises:
        LoweringError: code that torch cannot trace or ONNX cannot express.
    """
    with returning_a_tuple(module, shapes.ships, shapes.output):
        return _run_exporter(module, at_batch(example, lowering.traced), lowering.opset, shapes)


def scopes(node: ir.Node) -> list[str]:
    """Paths of the modules that ``node`` came from, outermost (the root, ``""``) first."""
    text = node.metadata_props.get(_SCOPES)
    return [str(path) for path in ast.literal_eval(text)[:-1]] if text else [""]


def layer_of(node: ir.Node) -> str | None:
    """Path of the layer with a format whose product ``node`` computes, or rows it looks up."""
    return node.metadata_props.get(_LAYER)


def line_of(node: ir.Node) -> str | None:
    """The line of the user's code that ``node`` came from, such as ``line 12 of net.py``."""
    places = _USER_CODE.findall(node.metadata_props.get(_STACK) or "")
    own = [place for place in places if "/torch/" not in place[0]]
    return f"line {own[-1][1]} of {own[-1][0]}" if own else None


def mark_like(node: ir.Node, source: ir.Node, *, layer: bool = False) -> ir.Node:
    """``node``, marked with the modules of ``source`` and, if asked, with its layer."""
    keys = (_SCOPES, _LAYER) if layer else (_SCOPES,)
    for key in keys:
        if key in source.metadata_props:
            node.metadata_props[key] = source.metadata_props[key]
    return node


def check_weights(module: nn.Module) -> None:
    """Refuse weights that are no numbers.

    Raises:
        LoweringError: names the first.
    """
    parameters = ((name, tensor.isfinite()) for name, tensor in module.named_parameters())
    # A buffer may be a mask of minus infinity.
    buffers = ((name, ~tensor.isnan()) for name, tensor in module.named_buffers())
    for name, good in (*parameters, *buffers):
        if not bool(good.all()):
            raise LoweringError(
                f"the weight {name!r} holds values that are not finite; a model that diverged "
                "cannot be lowered: train it with a smaller learning rate."
            )


def _run_exporter(
    module: nn.Module, batch: Inputs, opset: int, shapes: OpenShapes
) -> torch.onnx.ONNXProgram:
    arguments = () if isinstance(batch, dict) else (batch,)
    named = batch if isinstance(batch, dict) else {}
    axes = _axes_of(batch, shapes)
    try:
        return _translated(module, arguments, named, opset, axes)
    except torch.onnx.OnnxExporterError as error:
        if _MIXED_NUMBERS not in str(_causes(error)[-1]):
            raise LoweringError(_explain(error, module)) from error
    try:
        with quiet(), torch.no_grad(), projections_in_steps():
            traced = torch.export.export(
                module, arguments, named, dynamic_shapes=_as_dimensions(axes), strict=False
            )
        _unify_numbers(traced.graph)
        return _translated(traced, arguments, named, opset, axes)
    except torch.onnx.OnnxExporterError as error:
        raise LoweringError(_explain(error, module)) from error


def _translated(
    module: nn.Module | torch.export.ExportedProgram,
    arguments: tuple[Tensor, ...],
    named: dict[str, Tensor],
    opset: int,
    axes: _Axes,
) -> torch.onnx.ONNXProgram:
    with quiet(), torch.no_grad(), projections_in_steps():
        program = torch.onnx.export(
            module,
            arguments,
            kwargs=named,
            dynamo=True,
            optimize=False,
            opset_version=opset,
            dynamic_shapes=axes,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    return program


def _axes_of(batch: Inputs, shapes: OpenShapes) -> _Axes:
    """The open axes in the form of a batch; ``None`` where all are fixed."""
    if not shapes.axes:
        return None
    if isinstance(batch, dict):
        return {name: dict(shapes.axes.get(name, {})) for name in batch}
    (axes,) = shapes.axes.values()
    return (dict(axes),)


def _as_dimensions(axes: _Axes) -> Any:
    """The same as torch.export has it, which takes no names."""
    if axes is None:
        return None
    open_axes = [dict.fromkeys(names, torch.export.Dim.DYNAMIC) for names in _mappings(axes)]
    return dict(zip(axes, open_axes, strict=True)) if isinstance(axes, dict) else tuple(open_axes)


def _mappings(axes: dict[str, dict[int, str]] | tuple[dict[int, str], ...]) -> list[dict[int, str]]:
    return list(axes.values() if isinstance(axes, dict) else axes)


def _unify_numbers(graph: torch.fx.Graph) -> None:
    """Make integers floats where an operator on floats is given both, as ``clamp(x, -1, 0.5)``."""
    for node in graph.nodes:
        numbers = [a for a in (*node.args, *node.kwargs.values()) if type(a) in (int, float)]
        source = node.args[0] if node.args else None
        value = source.meta.get("val") if isinstance(source, torch.fx.Node) else None
        mixed = len({type(number) for number in numbers}) == 2
        if mixed and isinstance(value, Tensor) and value.is_floating_point():
            node.args = tuple(_as_float(a) for a in node.args)
            node.kwargs = {key: _as_float(a) for key, a in node.kwargs.items()}


def _as_float(argument: Any) -> Any:
    return float(argument) if type(argument) is int else argument


def _optimize_carefully(model: ir.Model) -> None:
    """Constants computed, batch norms folded, and nothing else rewritten."""
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules import common

    rules = [
        common.fuse_batchnorm_into_conv_rule,
        common.fuse_batchnorm_into_conv_transpose_rule,
        common.fuse_batchnorm_into_gemm_rule,
    ]
    optimizer.inline(model)
    for _ in range(2):
        optimizer.fold_constants(model)
        rewriter.RewritePass(rules)(model)
        passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.DeduplicateInitializersPass()(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.NameFixPass()(model)


def _mark_layers(graph: ir.Graph, module: nn.Module) -> None:
    # One module under two names is one layer, known by its first name.
    first_name = {id(module.get_submodule(name)): name for name in layers_with_formats(module)}
    modules = dict(module.named_modules(remove_duplicate=False))
    for node in graph:
        innermost = modules.get(scopes(node)[-1])
        if id(innermost) in first_name and node.op_type in _operators_of(innermost):
            node.metadata_props[_LAYER] = first_name[id(innermost)]


def _operators_of(layer: nn.Module | None) -> frozenset[str]:
    """The operators that read the weights of ``layer``; its forward may have others around them."""
    if isinstance(layer, nn.Embedding):
        return frozenset({"Gather"})
    if isinstance(layer, RECURRENT) and not is_stepwise(layer):
        return _RECURRENT
    return _PRODUCTS


def _explain(error: Exception, module: nn.Module) -> str:
    text = "\n".join(str(cause) for cause in _causes(error))
    if found := _OPERATOR.search(text):
        return (
            f"the operator {found[1]!r} has no ONNX form; replace it in the model's forward by "
            "operators that have one."
        )
    if any(mark in text for mark in _SPECIALIZED):
        return (
            "the model works for one size alone of an axis that is to stay open: its forward has "
            "that size as a number; take it from the shape of an input instead."
        )
    places = [place for place in _USER_CODE.findall(text) if "/torch/" not in place[0]]
    if "data-dependent" in text and places:
        file, line, _, code = places[-1]
        return (
            f"{_module_at(file, int(line), module)} decides by the values of a tensor "
            f"({code.strip()!r}, line {line} of {file}), which a static graph cannot; use "
            "torch.where or a mask instead."
        )
    cause = _causes(error)[-1]
    frames = traceback.extract_tb(cause.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_OTHERS)]
    line = f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""
    in_layer = any(frame.filename.endswith("/torch/nn/modules/rnn.py") for frame in frames)
    if in_layer and any("pack_padded_sequence" in _text(frame.filename) for frame in own):
        return (
            f"packed sequences have no ONNX form{line}; give the layer padded ones, and take its "
            "outputs at the lengths by gather."
        )
    reason = next((line for line in str(cause).splitlines() if line.strip()), "")
    return (
        f"the model cannot be exported to ONNX: {reason.strip().rstrip('.')}{line}; see "
        "torch.export's limits on what forward may do."
    )


def _text(file: str) -> str:
    return "".join(linecache.getlines(file))


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain


def _module_at(file: str, line: int, module: nn.Module) -> str:
    for name, layer in reversed(list(module.named_modules())):
        try:
            code, start = inspect.getsourcelines(type(layer))
        except (OSError, TypeError):
            continue
        if inspect.getsourcefile(type(layer)) == file and start <= line < start + len(code):
            own = f"the module {name!r}" if name else "the model itself"
            return f"{own} ({type(layer).__name__})"
    return "the model's forward"
