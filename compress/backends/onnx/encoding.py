"""Encoding: the float graph in the formats of its layers, ready to be saved.

Calls what encodes each kind of format, in order, and says what the reader of a record should know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from compress.backends.onnx.canonicalize import canonicalize
from compress.backends.onnx.export import layer_of, scopes
from compress.backends.onnx.graph import finish, reaches
from compress.backends.onnx.kernels import guard
from compress.backends.onnx.layers import (
    encode_casts,
    encode_dynamic,
    encode_weights,
    guard_float,
)
from compress.backends.onnx.locate import LOCATION, describe_operator, location_of
from compress.backends.onnx.partition import computed_formats, form_of, layers_with
from compress.backends.onnx.ranges import Range
from compress.backends.onnx.recurrent import WEIGHTS_ONLY
from compress.backends.onnx.static import quantize
from compress.backends.onnx.weights import can_be_looked_up
from compress.config.selectors import named
from compress.modules.inputs import Inputs
from compress.quantization.numerics import LayerFormat

__all__ = ["EncodedGraph", "KernelFallbacks", "are_float", "encode", "encode_canonical"]
__all__ += ["module_of"]

_IN_BYTES = "stored one value per byte, since onnxruntime has no smaller kernels for them"

# What is kept of a node in memory once its metadata, which would be written to the file, is gone.
_MODULE = "compresskit.module"
_OF_LAYER = "compresskit.of-layer"


class EncodedGraph(NamedTuple):
    """A graph in its formats.

    ``ranges`` has the input range of every layer with static activations, ``warnings`` what
    the reader of a record should know, ``formats`` what each layer is encoded in. ``behind`` has
    for each output the layers that it rests on.
    """

    model: ir.Model
    ranges: dict[str, Range]
    warnings: tuple[str, ...]
    formats: dict[str, LayerFormat]
    behind: tuple[frozenset[str], ...] = ()

    @property
    def is_float(self) -> bool:
        """Whether all arithmetic is float32."""
        return are_float(self.formats.values())

    def formats_of(self, place: int) -> list[LayerFormat]:
        """The formats that an output, counted from 0, rests on; all, if it is the only one."""
        if len(self.behind) < 2:
            return list(self.formats.values())
        return [f for name, f in self.formats.items() if name in self.behind[place]]


def are_float(formats: Iterable[LayerFormat]) -> bool:
    """Whether the arithmetic of all of them is float32."""
    return all(format.activation_quantizer.tolerance is None for format in formats)


@dataclass(frozen=True)
class KernelFallbacks:
    """What is not computed in int8, since the runtime's kernel for it is wrong.

    ``forms`` are of operators between layers (``partition.form_of``), ``layers`` are names.
    """

    forms: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def with_nodes(self, nodes: Iterable[ir.Node]) -> KernelFallbacks:
        """This and what ``nodes`` of an encoded graph are; the same where they say nothing new."""
        known = self
        for node in nodes:
            layer, form = node.meta.get(_OF_LAYER), form_of(node)
            if layer in known.layers or form in known.forms:
                continue
            note = (
                f"{describe_operator(node)}: float32, since onnxruntime's int8 kernel gives other "
                "results than the operator."
            )
            forms, layers = known.forms, known.layers
            forms, layers = (forms, layers | {layer}) if layer else (forms | {form}, layers)
            known = KernelFallbacks(forms, layers, (*known.notes, note))
        return known

    def formats(self, declared: Mapping[str, LayerFormat]) -> dict[str, LayerFormat]:
        """``declared``, with the weights' formats alone for the layers."""
        return {
            name: format.weights_only if name in self.layers else format
            for name, format in declared.items()
        }


def encode(
    model: ir.Model,
    formats: Mapping[str, LayerFormat],
    calibration: Sequence[Inputs],
    *,
    avoid_saturation: bool,
) -> EncodedGraph:
    """The exported float graph in its declared formats, ready to be saved; ``model`` is used up.

    Raises:
        LoweringError: formats that this graph cannot be encoded in.
    """
    copied = canonicalize(model, formats)
    made = encode_canonical(
        model, formats, calibration, avoid_saturation=avoid_saturation, copied=copied
    )
    finish(made.model)
    return made


def encode_canonical(
    model: ir.Model,
    formats: Mapping[str, LayerFormat],
    calibration: Sequence[Inputs],
    *,
    avoid_saturation: bool,
    copied: Sequence[str] = (),
    fallbacks: KernelFallbacks | None = None,
) -> EncodedGraph:
    """As :func:`encode`, of a canonical graph and not yet finished: values have the names they had.

    Args:
        model: used up.
        formats: declared for the layers.
        calibration: batches of inputs.
        avoid_saturation: as in ``Lowering``.
        copied: layers that got a copy of a shared constant.
        fallbacks: what is not computed in int8.
    """
    fallbacks = fallbacks or KernelFallbacks()
    warnings = (*_warnings(model.graph, formats, copied), *fallbacks.notes)
    computed = computed_formats(model.graph, fallbacks.formats(formats))
    behind = tuple(_layers_behind(model.graph))
    static = quantize(
        model, computed, calibration, avoid_saturation=avoid_saturation, fallbacks=fallbacks.forms
    )
    encode_dynamic(static.model, computed, avoid_saturation=avoid_saturation)
    encode_weights(static.model, computed, avoid_saturation=avoid_saturation)
    encode_casts(static.model, computed)
    guard_float(static.model)
    guard(static.model, fallbacks.forms)
    _note_origins(static.model.graph)
    return EncodedGraph(static.model, dict(static.ranges), warnings, computed, behind)


def module_of(node: ir.Node) -> str | None:
    """The module that a node of an encoded graph came from; ``None`` for what encoding inserted."""
    module = node.meta.get(_MODULE)
    return None if module is None else str(module)


def _layers_behind(graph: ir.Graph) -> Iterator[frozenset[str]]:
    """For each output the layers that it rests on."""
    nodes = {*graph}
    for output in graph.outputs:
        last = output.producer()
        assert last is not None
        above = {last, *reaches([last], nodes, forward=False)}
        yield frozenset(name for node in above if (name := layer_of(node)) is not None)


def _note_origins(graph: ir.Graph) -> None:
    for node in graph:
        if node.metadata_props:  # what the encoding inserted came from no module
            layer = layer_of(node)
            # A folded batch norm leaves its own scope on the product, which is its layer's.
            node.meta[_MODULE] = layer or scopes(node)[-1]
            node.meta[LOCATION] = location_of(node)
            if layer is not None:
                node.meta[_OF_LAYER] = layer


def _warnings(
    graph: ir.Graph, formats: Mapping[str, LayerFormat], copied: Sequence[str]
) -> tuple[str, ...]:
    operators = {name: node.op_type for name, node in layers_with(graph, formats, lambda _: True)}
    noted: dict[str, list[str]] = {}
    for name, format in formats.items():
        if name in operators:
            for note in _notes(format, operators[name]):
                noted.setdefault(note, []).append(name)
    absent = [n for n, f in formats.items() if not f.is_float32 and n not in operators]
    others = {
        "a weight that is shared with other formats was copied": copied,
        "its product is computed outside of the layer, so it stays float32": absent,
    }
    return tuple(f"{named(names)}: {note}." for note, names in {**noted, **others}.items() if names)


def _notes(format: LayerFormat, operator: str) -> Iterator[str]:
    """What is to be said of a layer in ``format`` whose product is ``operator``."""
    weights, activations = format.weight_quantizer, format.activation_quantizer
    if weights.bits < ir.DataType[weights.onnx_type].bitwidth:
        yield _IN_BYTES
    if operator == "Gather" and not can_be_looked_up(format):
        yield f"float32 once the file is loaded, since ONNX cannot look up {format.weights}"
    if (reason := activations.without_kernel.get(operator)) is not None:
        yield f"{WEIGHTS_ONLY}, since {reason}"
    elif activations.note is not None:
        yield activations.note
