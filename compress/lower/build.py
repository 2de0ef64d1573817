"""``lower``: a candidate as one checked ONNX file.

The order of work::

    export        float32 graph at a static batch, layers marked          export.py
    tidy          few shapes: products, weights, poolings                  tidy.py
    quantize      static int8, by calibration on this graph                quantize.py ranges.py
    encode        dynamic int8, integer weights, float16                   encode.py
    finish, save  strip, share, shorten; external data where needed        graph.py files.py
    check         load, run, compare with the simulated module             parity.py
    census        what the file is made of                                 census.py
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from compress.algorithms.fakequant import declared_formats, quantizable_layers
from compress.artifact import Artifact, Lowering, file_sha256, model_files, modules_file
from compress.candidate import Candidate
from compress.errors import ContractViolation, LoweringError, StorageError
from compress.inputs import Inputs, forward
from compress.lower.census import take_census
from compress.lower.encode import encode_dynamic, encode_float16, encode_weights, guard_float
from compress.lower.export import export, layer_of, scopes
from compress.lower.files import save
from compress.lower.graph import Array, finish
from compress.lower.parity import check_parity, simulated_outputs
from compress.lower.quantize import quantize
from compress.lower.ranges import Range
from compress.lower.regions import layers_with
from compress.lower.tidy import tidy
from compress.numerics import LayerFormat
from compress.select import named

__all__ = ["encode", "lower"]

_FLOAT = "integer weights and float32 arithmetic"
_MODULE = "compresskit.module"  # in a node's notes, which are not written to the file


def lower(
    candidate: Candidate,
    lowering: Lowering,
    *,
    calibration: Sequence[Inputs],
    check: Inputs,
    path: Path,
) -> Artifact:
    """Write ``candidate`` to ``path`` in its declared formats, check it, and describe it.

    Args:
        candidate: left as it was.
        lowering: batch, opset and encoding that the target wants.
        calibration: batches of inputs for the ranges of static int8 activations; may be empty if
            there are none.
        check: real inputs for parity, samples on axis 0; a few hundred are enough.
        path: of the model; weights above 2 GB go to ``NAME.data`` beside it.

    Raises:
        LoweringError: a model that cannot be exported or encoded.
        ParityError: a file that does not compute what the module computes; nothing is left at
            ``path`` then.
        StorageError: the disk refused.
    """
    module = copy.deepcopy(candidate.module).eval()
    _check_output(candidate)
    graph = export(module, candidate.example, lowering)
    declared = declared_formats(module, candidate.numerics, candidate.example)
    there = {layer_of(node) for node in graph.graph}
    formats = {name: format for name, format in declared.items() if name in there}
    model, ranges, warnings = encode(
        graph,
        formats | _products(module, declared),
        calibration,
        avoid_saturation=lowering.avoid_saturation,
    )
    expected = simulated_outputs(
        module, check, formats, ranges, avoid_saturation=lowering.avoid_saturation
    )
    if not np.isfinite(expected).all():
        raise LoweringError(
            "the module's outputs on the check inputs are not finite, so that an artifact has "
            "nothing to agree with; check the weights, and exclude layers from float16."
        )
    return _write(model, path, lowering, check, expected, formats, warnings)


def encode(
    model: ir.Model,
    formats: Mapping[str, LayerFormat],
    calibration: Sequence[Inputs],
    *,
    avoid_saturation: bool,
) -> tuple[ir.Model, dict[str, Range], tuple[str, ...]]:
    """The exported float graph in its declared formats, ready to be saved; ``model`` is used up.

    Returns the graph, the input range of every layer with static int8 activations, and what the
    reader of a record should know about the encoding.

    Raises:
        LoweringError: formats that this graph cannot be encoded in.
    """
    copied = tidy(model, formats)
    warnings = _warnings(model.graph, formats, copied)
    static = quantize(model, formats, calibration, avoid_saturation=avoid_saturation)
    encode_dynamic(static.model, formats, avoid_saturation=avoid_saturation)
    encode_weights(static.model, formats, avoid_saturation=avoid_saturation)
    encode_float16(static.model, formats)
    guard_float(static.model)
    _note_modules(static.model.graph)
    finish(static.model)
    unused = {name: (0.0, 0.0) for name, format in formats.items() if format.is_static_int8}
    return static.model, unused | static.ranges, warnings


def _write(
    model: ir.Model,
    path: Path,
    lowering: Lowering,
    check: Inputs,
    expected: Array,
    formats: Mapping[str, LayerFormat],
    warnings: tuple[str, ...],
) -> Artifact:
    is_float = all(format.is_float32 for format in formats.values())
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Checked in a folder of its own and then moved: a bad file never stands at ``path``.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            save(ir.to_proto(model), draft)
            parity = check_parity(draft, check, expected, is_float=is_float)
            for stale in model_files(path):
                stale.unlink(missing_ok=True)
            for part in reversed(model_files(draft)):
                part.replace(path.parent / part.name)
        sha256 = file_sha256(path)
        modules = {str(n.name): n.meta[_MODULE] for n in model.graph if _MODULE in n.meta}
        modules_file(path).write_text(json.dumps({"sha256": sha256, "modules": modules}) + "\n")
    except OSError as error:
        raise StorageError(
            f"{path}: the artifact could not be written ({error.strerror or error}); free space "
            "or choose another folder."
        ) from error
    return Artifact(
        path=path,
        sha256=sha256,
        bytes=sum(part.stat().st_size for part in model_files(path)),
        lowering=lowering,
        census=take_census(path),
        parity=parity,
        warnings=warnings,
    )


def _products(module: nn.Module, formats: Mapping[str, LayerFormat]) -> dict[str, LayerFormat]:
    # What a layer makes of constants is a constant itself and stays float, which is told of
    # products. A table is often read at fixed places (positions, say): that is nothing to tell.
    return {name: formats[name] for name in quantizable_layers(module) if name in formats}


def _note_modules(graph: ir.Graph) -> None:
    for node in graph:
        if node.metadata_props:  # what the encoding inserted came from no module
            # A folded batch norm leaves its own scope on the product, which is its layer's.
            node.meta[_MODULE] = layer_of(node) or scopes(node)[-1]


def _check_output(candidate: Candidate) -> None:
    try:
        with torch.no_grad():
            forward(candidate.module, candidate.example)
    except ContractViolation as error:
        raise LoweringError(f"cannot lower: {error}") from error


def _warnings(
    graph: ir.Graph, formats: Mapping[str, LayerFormat], copied: Sequence[str]
) -> tuple[str, ...]:
    layers = {name: node.op_type for name, node in layers_with(graph, formats, lambda _: True)}
    present = {name: format for name, format in formats.items() if name in layers}
    sub_byte = [n for n, f in present.items() if f.weights in ("int4", "int2")]
    convolutions = [
        n for n, f in present.items() if f.activations == "dynamic" and "Conv" in layers[n]
    ]
    no_kernel = [n for n, f in present.items() if f.is_static_int8 and layers[n] == "ConvTranspose"]
    absent = [n for n, f in formats.items() if not f.is_float32 and n not in layers]
    notes = (
        (sub_byte, "stored one value per byte, since onnxruntime has no smaller kernels for them"),
        (convolutions, f"{_FLOAT}, since dynamic int8 convolutions take 5 to 10 times as long"),
        (no_kernel, f"{_FLOAT}, since onnxruntime has no int8 transposed convolution"),
        (copied, "a weight that is shared with other formats was copied"),
        (absent, "its product is computed outside of the layer, so it stays float32"),
    )
    return tuple(f"{named(names)}: {note}." for names, note in notes if names)
