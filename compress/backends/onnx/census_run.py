"""Running a file once to see which operators it calls, how often and on which shapes.

onnxruntime's profiler tells of every call, those in bodies included, as nothing else does. Where a
file does not run on made-up inputs, shapes are what can be inferred of them.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from compress.backends.onnx.census_graph import every_graph, every_node
from compress.backends.onnx.census_shapes import inferred, sized_inputs
from compress.backends.onnx.files import save
from compress.backends.onnx.operators import PRODUCTS, UNKNOWN, Shape
from compress.backends.onnx.session import open_session, run
from compress.errors import LoweringError

__all__ = ["PATIENCE_S", "TracedRun", "observe"]

# What free axes are set to. A net whose images or texts are too small at one gets the second for
# all axes but each input's first.
_SIZES = (1, 32)

#: How long a run on zeros may take.
PATIENCE_S = 60

_ENDING = "_kernel_time"  # of the name of an operator's event

Array = np.ndarray[Any, np.dtype[Any]]
Shapes = tuple[Shape | None, ...]


@dataclass(frozen=True)
class TracedRun:
    """A graph whose nodes all have names, and what is known of a run.

    ``calls`` has the shapes of what each product read and made, by node; ``nodes`` those that ran.
    ``shapes`` and ``types`` (such as ``float``, ``uint8``) are of tensors, ``inputs`` the shapes of
    what was fed, with free axes of ``size``. ``failure`` is why it did not run.
    """

    model: onnx.ModelProto
    inputs: Sequence[Shape]
    calls: Mapping[str, Counter[tuple[Shapes, Shapes]]] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    size: int = 1
    failure: str = ""

    @property
    def outputs(self) -> list[Shape]:
        """The shapes of the graph's outputs, as far as they are known."""
        found = (self.shapes.get(tensor.name) for tensor in self.model.graph.output)
        return [shape for shape in found if shape is not None]


def observe(path: Path, folder: Path, *, optimized: bool) -> TracedRun:
    """The graph that onnxruntime makes of the file at ``path``, and a run of it on zeros.

    Without ``optimized`` its operators are those of the file, less local functions, which are
    written out. ``folder`` is for files that nobody needs later.

    Raises:
        LoweringError: onnxruntime cannot load the file.
    """
    model = _expanded(path, folder, optimized=optimized)
    for place, node in enumerate(every_node(model.graph.node)):
        node.name = f"n{place}"
    named = folder / f"named-{int(optimized)}.onnx"
    save(model, named)
    failures = []
    for size in _SIZES if _is_free(model) else _SIZES[:1]:
        try:
            return _traced(model, named, size)
        except LoweringError as error:
            failures.append(str(error).replace(f"{named}: ", "").replace(str(named), "it"))
    shapes, types = inferred(model, folder)
    inputs = [shape for shape in sized_inputs(model).values() if shape is not None]
    return TracedRun(model, inputs, shapes=shapes, types=types, failure=failures[0])


def _expanded(path: Path, folder: Path, *, optimized: bool) -> onnx.ModelProto:
    # The extended level has all int8 fusions; the one above changes layouts, which depend on the
    # processor and leave shapes and islands as they are.
    levels = ort.GraphOptimizationLevel
    written = folder / f"written-{int(optimized)}.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = (
        levels.ORT_ENABLE_EXTENDED if optimized else levels.ORT_DISABLE_ALL
    )
    options.optimized_model_filepath = str(written)
    beside = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(beside, f"{written.name}.data")
    open_session(path, options)
    try:
        return onnx.load(str(written), format="protobuf")
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise LoweringError(
            f"{path}: the graph that onnxruntime makes of it cannot be read ({error})."
        ) from error


# -- a run ------------------------------------------------------------------------------------


def _traced(model: onnx.ModelProto, path: Path, size: int) -> TracedRun:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    # A weight that is packed is gone by the time that inputs are described.
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = open_session(path, options)
    try:
        passes = _passes(model.graph)
        feeds = {
            tensor.name: _made_up(tensor, size, int(tensor.name in passes))
            for tensor in session.get_inputs()
        }
        _run(session, feeds)
    finally:
        trace = Path(session.end_profiling())
    try:
        events = json.loads(trace.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoweringError(f"onnxruntime's profile cannot be read ({error}).") from error
    arrays = {name: value for name, value in feeds.items() if isinstance(value, np.ndarray)}
    trail = _Trail(model, {name: array.shape for name, array in arrays.items()})
    trail.follow(events)
    return TracedRun(
        model,
        [array.shape for array in arrays.values()],
        trail.calls,
        frozenset(trail.ran),
        trail.shapes,
        trail.types,
        size,
    )


def _run(session: Any, feeds: Mapping[str, Any]) -> None:
    # A loop may have no end on zeros.
    options = ort.RunOptions()
    timer = threading.Timer(PATIENCE_S, setattr, (options, "terminate", True))
    timer.start()
    try:
        run(session, None, feeds, options)
    finally:
        timer.cancel()


def _is_free(model: onnx.ModelProto) -> bool:
    """Whether an axis is free that is not the first."""
    inputs = (tensor.type.tensor_type.shape.dim[1:] for tensor in model.graph.input)
    return any(not axis.HasField("dim_value") for axes in inputs for axis in axes)


def _passes(graph: onnx.GraphProto) -> set[str]:
    """What says how often a loop runs: at zero it would not."""
    loops = [node for node in every_node(graph.node) if node.op_type == "Loop"]
    return {name for node in loops for name in node.input[:2]}


def _made_up(tensor: Any, size: int, value: int) -> Any:
    """An input of zeros (or ones), with free axes of ``size``."""
    if tensor.type.startswith("seq("):
        return []
    if tensor.type.startswith("optional("):
        return None
    shape = [
        axis if isinstance(axis, int) else (size if place else 1)
        for place, axis in enumerate(tensor.shape)
    ]
    kind = tensor.type.removeprefix("tensor(").removesuffix(")")
    names = {"float": "float32", "double": "float64"}
    try:
        if kind == "string":
            return np.full(shape, "", dtype=object)
        return np.full(shape, value, dtype=names.get(kind, kind))
    except (TypeError, ValueError, MemoryError) as error:
        raise LoweringError(f"no input of type {tensor.type} can be made up ({error}).") from error


class _Trail:
    """What the events of a run say, in their order."""

    def __init__(self, model: onnx.ModelProto, fed: Mapping[str, Shape]) -> None:
        self._nodes = {node.name: node for node in every_node(model.graph.node)}
        self.shapes: dict[str, Shape] = {
            tensor.name: tuple(tensor.dims)
            for graph in every_graph(model.graph)
            for tensor in graph.initializer
        }
        self.shapes.update(fed)
        self.types: dict[str, str] = {}
        self.calls: dict[str, Counter[tuple[Shapes, Shapes]]] = {}
        self.ran: set[str] = set()

    def follow(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Learn from each call of a node."""
        for event in events:
            node = self._nodes.get(str(event.get("name", "")).removesuffix(_ENDING))
            if node is not None and event.get("cat") == "Node":
                self._learn(node.input, event["args"].get("input_type_shape", ()))
                self._learn(node.output, event["args"].get("output_type_shape", ()))
                self.ran.add(node.name)
                if node.op_type in PRODUCTS:
                    call = self._places(node.input), self._places(node.output)
                    self.calls.setdefault(node.name, Counter())[call] += 1

    def _learn(self, names: Sequence[str], described: Sequence[Mapping[str, Any]]) -> None:
        # Only tensors that are there are described, so that they may be fewer than the names.
        present = [name for name in names if name]
        if len(present) == len(described):
            for name, tensor in zip(present, described, strict=True):
                for kind, shape in tensor.items():
                    self.shapes[name], self.types[name] = tuple(shape), kind

    def _places(self, names: Sequence[str]) -> Shapes:
        return tuple(self.shapes.get(name, UNKNOWN) if name else None for name in names)
