"""Export: a float32 module as an ONNX graph at one static batch, with its layers marked.

Owns the call of torch's exporter and the translation of its failures. Knows nothing of number
formats. Each node carries the module that it came from (:func:`scopes`), and the product of each
layer that can have a format carries that layer's path (:func:`layer_of`), as does the Gather of an
embedding; marks are removed when the file is written.
"""

from __future__ import annotations

import ast
import inspect
import re

import onnx_ir as ir
import torch
from torch import Tensor, nn

from compress.algorithms.fakequant import layers_with_formats
from compress.artifact import Lowering
from compress.errors import LoweringError
from compress.inputs import Inputs
from compress.lower.quiet import quiet

__all__ = ["OUTPUT", "at_batch", "export", "layer_of", "mark_like", "scopes"]

#: The name of the only output of every file.
OUTPUT = "output"

_SCOPES = "pkg.torch.onnx.name_scopes"
_LAYER = "compresskit.layer"
_PRODUCTS = ("Conv", "ConvTranspose", "Gather", "Gemm", "MatMul")
_OLDEST_OPSET = 18  # that the exporter writes; converting its output further down loses the marks
_USER_CODE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.+)')
_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)'")


def export(module: nn.Module, example: Inputs, lowering: Lowering) -> ir.Model:
    """``module`` as float32 ONNX with batch norms folded and constants computed.

    Args:
        module: in eval mode; it is left as it was.
        example: a batch of any size; repeated or cut to ``lowering.batch`` samples.
        lowering: its batch and opset are used.

    Raises:
        LoweringError: weights that are not finite, an opset that is too old, or code that torch
            cannot trace or ONNX cannot express; it names the module or operator.
    """
    if lowering.opset < _OLDEST_OPSET:
        raise LoweringError(
            f"lowering.opset must be {_OLDEST_OPSET} or more, the oldest that torch exports; "
            f"got {lowering.opset}."
        )
    _check_finite(module)
    batch = at_batch(example, lowering.batch)
    model = _run_exporter(module, batch, lowering.opset)
    if model.opset_imports.get("") != lowering.opset:
        raise LoweringError(
            f"opset {lowering.opset} is not one that this torch can export; "
            f"opset {model.opset_imports.get('')} would do."
        )
    (output,) = model.graph.outputs
    output.name = OUTPUT
    return model


def at_batch(inputs: Inputs, size: int) -> Inputs:
    """``inputs`` cut, or repeated from the start, to ``size`` samples."""

    def fit(tensor: Tensor) -> Tensor:
        return tensor[torch.arange(size) % len(tensor)]

    if isinstance(inputs, dict):
        return {name: fit(tensor) for name, tensor in inputs.items()}
    return fit(inputs)


def scopes(node: ir.Node) -> list[str]:
    """Paths of the modules that ``node`` came from, outermost (the root, ``""``) first."""
    text = node.metadata_props.get(_SCOPES)
    return [str(path) for path in ast.literal_eval(text)[:-1]] if text else [""]


def layer_of(node: ir.Node) -> str | None:
    """Path of the layer with a format whose product ``node`` computes, or rows it looks up."""
    return node.metadata_props.get(_LAYER)


def mark_like(node: ir.Node, source: ir.Node, *, layer: bool = False) -> ir.Node:
    """``node``, marked with the modules of ``source`` and, if asked, with its layer."""
    keys = (_SCOPES, _LAYER) if layer else (_SCOPES,)
    for key in keys:
        if key in source.metadata_props:
            node.metadata_props[key] = source.metadata_props[key]
    return node


def _check_finite(module: nn.Module) -> None:
    parameters = ((name, tensor.isfinite()) for name, tensor in module.named_parameters())
    # A buffer may be a mask of minus infinity.
    buffers = ((name, ~tensor.isnan()) for name, tensor in module.named_buffers())
    for name, good in (*parameters, *buffers):
        if not bool(good.all()):
            raise LoweringError(
                f"the weight {name!r} holds values that are not finite; a model that diverged "
                "cannot be lowered: train it with a smaller learning rate."
            )


def _run_exporter(module: nn.Module, batch: Inputs, opset: int) -> ir.Model:
    arguments = () if isinstance(batch, dict) else (batch,)
    named = batch if isinstance(batch, dict) else None
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                arguments,
                kwargs=named,
                dynamo=True,
                optimize=False,
                opset_version=opset,
                verbose=False,
            )
            assert program is not None
            # Folding a batch norm leaves a node with the batch norm's scope and equal weights are
            # merged, so the layers are marked while each product still has its own module.
            _mark_layers(program.model.graph, module)
            program.optimize()
    except torch.onnx.OnnxExporterError as error:
        raise LoweringError(_explain(error, module)) from error
    return program.model


def _mark_layers(graph: ir.Graph, module: nn.Module) -> None:
    # One module under two names is one layer, known by its first name.
    first_name = {id(module.get_submodule(name)): name for name in layers_with_formats(module)}
    modules = dict(module.named_modules(remove_duplicate=False))
    for node in graph:
        innermost = modules.get(scopes(node)[-1])
        if node.op_type in _PRODUCTS and id(innermost) in first_name:
            node.metadata_props[_LAYER] = first_name[id(innermost)]


def _explain(error: Exception, module: nn.Module) -> str:
    text = "\n".join(str(cause) for cause in _causes(error))
    if found := _OPERATOR.search(text):
        return (
            f"the operator {found[1]!r} has no ONNX form; replace it in the model's forward by "
            "operators that have one."
        )
    places = [place for place in _USER_CODE.findall(text) if "/torch/" not in place[0]]
    if "data-dependent" in text and places:
        file, line, _, code = places[-1]
        return (
            f"{_module_at(file, int(line), module)} decides by the values of a tensor "
            f"({code.strip()!r}, line {line} of {file}), which a static graph cannot; use "
            "torch.where or a mask instead."
        )
    reason = next((line for line in str(_causes(error)[-1]).splitlines() if line.strip()), "")
    return (
        f"the model cannot be exported to ONNX: {reason.strip().rstrip('.')}; see "
        "torch.export's limits on what forward may do."
    )


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
