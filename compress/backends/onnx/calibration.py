"""Which tensors of a static part have a scale of their own, and what range each is given.

Between the partition of the graph (:mod:`compress.backends.onnx.partition`) and what is observed of
its tensors (:mod:`compress.backends.onnx.ranges`): knows how a scale travels through operators that
only move values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx_ir as ir

from compress.backends.onnx.graph import array_of, consumers
from compress.backends.onnx.partition import KEEPS_SCALE, absorbs, format_of, layers_with
from compress.backends.onnx.ranges import Range, observe
from compress.modules.inputs import Inputs
from compress.quantization.numerics import Calibration, LayerFormat

__all__ = ["calibrate", "layer_ranges", "scale_owner"]

# Operators that quantization commutes with: a range decided behind them holds before them.
_COMMUTES = KEEPS_SCALE - {"AveragePool", "Resize", "Slice", "Split"}


def calibrate(
    model: ir.Model,
    chosen: Collection[ir.Node],
    formats: Mapping[str, LayerFormat],
    data: Sequence[Inputs],
) -> dict[ir.Value, Range]:
    """The range of every tensor that the ``chosen`` nodes read or make with its own scale.

    Args:
        model: the canonical float graph.
        chosen: the nodes that are quantized to one format (:func:`static_nodes`).
        formats: of the layers that have this format.
        data: calibration batches.

    Raises:
        LoweringError: no calibration data, or values that are not finite.
    """
    uses = {value: _uses(value, chosen) for value in _quantized(model.graph, chosen)}
    sites = dict.fromkeys(site for found in uses.values() for site in found)
    wanted = {site: _format_behind(site, chosen, formats) for site in sites}
    seen = observe(model, wanted, data)
    return {value: _widest(seen[site] for site in found) for value, found in uses.items()}


def layer_ranges(
    graph: ir.Graph,
    formats: Mapping[str, LayerFormat],
    chosen: Collection[ir.Node],
    ranges: Mapping[ir.Value, Range],
) -> dict[str, Range]:
    """The range of the input of every layer in ``formats``, which have one static format."""
    found: dict[str, Range] = {}
    for name, node in layers_with(graph, formats, lambda f: f.needs_range):
        source = node.inputs[0]
        assert source is not None
        bounds = ranges[scale_owner(source, chosen)]
        # A layer that is called twice is simulated with one range.
        found[name] = _widest([bounds, found.get(name, bounds)])
    return found


def scale_owner(value: ir.Value, chosen: Collection[ir.Node]) -> ir.Value:
    """The tensor whose scale ``value`` has: itself, or what quantized nodes moved to make it."""
    while (producer := value.producer()) is not None:
        source = producer.inputs[0] if producer.inputs else None
        if source is None or producer not in chosen or producer.op_type not in KEEPS_SCALE:
            break
        value = source
    return value


def _quantized(graph: ir.Graph, chosen: Collection[ir.Node]) -> list[ir.Value]:
    # Every tensor that a quantized node reads, and those it makes with a scale of its own.
    found: dict[ir.Value, None] = {}
    for node in graph:
        if node in chosen:
            read = [scale_owner(v, chosen) for v in node.inputs if v and _is_computed(v)]
            own = node.op_type not in {*KEEPS_SCALE, "Gemm"}
            found.update(dict.fromkeys([*read, *(node.outputs if own else [])]))
    return [value for value in found if not _is_absorbed(value, chosen)]


def _is_computed(value: ir.Value) -> bool:
    return array_of(value) is None and value.dtype == ir.DataType.FLOAT


def _is_absorbed(value: ir.Value, chosen: Collection[ir.Node]) -> bool:
    return any(absorbs(node, chosen) for node in consumers(value))


def _uses(value: ir.Value, chosen: Collection[ir.Node]) -> list[ir.Value]:
    """Where the range of ``value`` is decided: where it is computed with.

    A pooled tensor has another distribution than what went into the pooling, and the layer behind
    it is simulated with the range that it sees. Quantizing before the pooling with that range is
    the same as after it.
    """
    found: dict[ir.Value, None] = {}
    for user in consumers(value):
        moves = user in chosen and user.op_type in _COMMUTES
        found.update(dict.fromkeys(_uses(user.outputs[0], chosen) if moves else [value]))
    return list(found) or [value]


def _widest(ranges: Iterable[Range]) -> Range:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _format_behind(
    value: ir.Value, chosen: Collection[ir.Node], formats: Mapping[str, LayerFormat]
) -> LayerFormat:
    """That of the nearest static layer that the value flows into through quantized nodes.

    Where it flows into none, as behind the last layer: the format with the default calibration.
    """
    frontier, seen = consumers(value), set[ir.Node]()
    while frontier:
        for node in frontier:
            if (format := format_of(node, formats)).needs_range:
                return format
        seen.update(frontier)
        inside = [node for node in frontier if node in chosen]
        frontier = [n for node in inside for n in node.successors() if n not in seen]
    some = next(format for format in formats.values() if format.needs_range)
    return some.model_copy(update={"calibration": Calibration()})
