"""Calibration on the float graph: the range of each tensor that will be quantized.

Runs the graph itself, so that tensors which are no module's input are seen too; how a range is
chosen from what was seen is :mod:`compress.quantization.ranges`'. Memory is bounded by one batch of
one group of tensors, whatever the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir
import onnxruntime as ort

from compress.backends.onnx.export import scopes
from compress.backends.onnx.feeds import batches
from compress.backends.onnx.graph import Array, dims
from compress.backends.onnx.session import open_exposed, run
from compress.errors import LoweringError
from compress.modules.inputs import Inputs
from compress.quantization.fakequant import chosen_range
from compress.quantization.numerics import LayerFormat
from compress.quantization.ranges import RangeObserver

__all__ = ["GROUP_BYTES", "observe"]

#: Tensors are collected in groups whose values for one batch take at most this much.
GROUP_BYTES = 32 << 20

Range = tuple[float, float]


def observe(
    model: ir.Model,
    wanted: Mapping[ir.Value, LayerFormat],
    data: Sequence[Inputs],
    *,
    group_bytes: int = GROUP_BYTES,
) -> dict[ir.Value, Range]:
    """The range of every wanted tensor over ``data``, as the format that it gets has it chosen.

    Raises:
        LoweringError: no data, or a tensor with a value that is not finite.
    """
    if not wanted:
        return {}
    if not data:
        activations = next(iter(wanted.values())).activations
        raise LoweringError(
            f"{activations} activations need calibration data, and none was given; pass at least "
            "one batch."
        )
    observers = {value: RangeObserver() for value in wanted}
    for group in _groups(wanted, group_bytes):
        for feeds, names, arrays in _run(model, group, data):
            for value in group:
                seen = feeds.get(value.name or "")
                _update(observers[value], value, arrays[names[value]] if seen is None else seen)
    return {value: chosen_range(observers[value], wanted[value]) for value in wanted}


def _groups(values: Iterable[ir.Value], limit: int) -> Iterator[list[ir.Value]]:
    group: list[ir.Value] = []
    used = 0
    for value in values:
        size = 4 * math.prod(dims(value))
        if group and used + size > limit:
            yield group
            group, used = [], 0
        group.append(value)
        used += size
    yield group


def _run(
    model: ir.Model, group: Sequence[ir.Value], data: Sequence[Inputs]
) -> Iterator[tuple[dict[str, Array], dict[ir.Value, int], list[Array]]]:
    computed = [value for value in group if not value.is_graph_input()]
    names = [str(value.name) for value in computed]
    # A group may be of inputs alone; then the session only cuts the data.
    exposed = names or [str(output.name) for output in model.graph.outputs]
    level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = open_exposed(ir.to_proto(model), exposed, level)
    index = {value: number for number, value in enumerate(computed)}
    for feeds, _ in batches(data, session):
        yield feeds, index, run(session, names, feeds)


def _update(observer: RangeObserver, value: ir.Value, array: Array) -> None:
    try:
        observer.update(array)
    except ValueError as error:
        raise LoweringError(
            f"the tensor {value.name!r} {_place(value)} is not finite on the calibration data; "
            "exclude what uses it from the quantization, or clamp it."
        ) from error


def _place(value: ir.Value) -> str:
    node = value.producer()
    if node is None:
        return "that goes into the model"
    module = scopes(node)[-1]
    return f"in the module {module!r}" if module else "in the model's own forward"
