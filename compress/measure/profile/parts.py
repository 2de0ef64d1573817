"""Parts: from what profiled processes answered to times of modules, operators and islands.

Pure. The unit of replication is a process; all intervals are over processes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.backends.onnx.operators import (
    CONVERSIONS,
    MOVES,
    UNKNOWN,
    Macs,
    OperatorCall,
    Shape,
    is_int8,
    product_macs,
)
from compress.measure.profile.facts import Island, Kind, ModuleChange, OperatorGroup, Time
from compress.measure.profile.graph import Graph, GraphNode, match, modules_of_running
from compress.measure.profile.islands import AnnotatedGraph, find_islands
from compress.measure.stats import Ratio, paired_ratio, student_quantile

__all__ = [
    "ROOT",
    "UNNAMED",
    "ProfiledModel",
    "Step",
    "changes",
    "int8_mac_fraction",
    "islands",
    "kernel_ratio",
    "kind_of",
    "mean_interval",
    "parts",
    "profiled_model",
    "time_of",
    "without_profiler",
]

Array = np.ndarray[Any, Any]

#: Stand for the model's own ``forward``, and for nodes that no module is known of.
ROOT, UNNAMED = "(model)", "(unnamed)"

_LAYOUT = {"ReorderInput", "ReorderOutput", "Transpose"}


@dataclass(frozen=True)
class Step:
    """One operator as it ran, with its seconds in each process.

    ``node`` is its place in the running graph, ``None`` inside the body of another operator.
    """

    operator: str
    kind: Kind
    module: str
    node: int | None
    macs: int
    seconds: Array
    int8_macs: int = 0


@dataclass(frozen=True)
class ProfiledModel:
    """One model: its steps, and the time of a whole run in each process."""

    steps: tuple[Step, ...]
    run_s: Array
    annotated: AnnotatedGraph

    def seconds(self, wanted: Callable[[Step], bool]) -> Array:
        """The sum over some steps, in each process."""
        chosen = [step.seconds for step in self.steps if wanted(step)]
        return np.sum(chosen, axis=0) if chosen else np.zeros_like(self.run_s)

    def seconds_in(self, nodes: Collection[int]) -> Array:
        """What some nodes of the running graph take, in each process."""
        return self.seconds(lambda step: step.node in nodes)

    def seconds_of_module(self, name: str) -> Array:
        """What one module takes, in each process."""
        return self.seconds(lambda step: step.module == name)

    def seconds_of(self, kind: Kind) -> Array:
        """What one kind of work takes in each process; ``outside`` is what operators do not."""
        if kind != "outside":
            return self.seconds(lambda step: step.kind == kind)
        left: Array = np.maximum(0, self.run_s - self.seconds(lambda _: True))
        return left


def kind_of(operator: str, output_types: Sequence[str]) -> Kind:
    """What an operator does, given the types of what it makes."""
    if operator in CONVERSIONS or operator == "DynamicQuantizeLinear":
        return "convert"
    if operator in _LAYOUT:
        return "layout"
    if is_int8(operator, output_types):
        return "int8"
    computes = operator not in MOVES and any(_is_float(name) for name in output_types)
    return "float" if computes else "move"


def _is_float(type_name: str) -> bool:
    return "float" in type_name or type_name == "double"


# -- one model --------------------------------------------------------------------------------


def profiled_model(
    results: Sequence[Mapping[str, Any]],
    running: Graph,
    source: Graph,
    modules: Sequence[str | None],
) -> ProfiledModel:
    """Steps of a model from the answers of its processes to the worker's ``profile`` job.

    ``modules`` are those of the nodes of ``source``, the file's graph.
    """
    operators = results[0]["operators"]
    keys = [(operator["name"], operator["operator"]) for operator in operators]
    places = match(keys, running)
    owners = modules_of_running(running, source, modules)
    times = [without_profiler(result) for result in results]
    steps = []
    for key, facts, place in zip(keys, operators, places, strict=True):
        types = [name for name, _ in facts["outputs"]]
        macs = _macs(facts, None if place is None else running.nodes[place], running, source)
        steps.append(
            Step(
                operator=facts["operator"],
                kind=kind_of(facts["operator"], types),
                module=_module_name(None if place is None else owners[place]),
                node=place,
                macs=macs.total,
                int8_macs=macs.int8,
                seconds=np.array([found.get(key, 0.0) for found in times]),
            )
        )
    run_s = np.array([result["run_ns"] for result in results]) / 1e9
    return ProfiledModel(tuple(steps), run_s, _annotate(running, source, owners, operators, places))


def _module_name(module: str | None) -> str:
    return UNNAMED if module is None else module or ROOT


def _annotate(
    running: Graph,
    source: Graph,
    owners: Sequence[str | None],
    operators: Sequence[Mapping[str, Any]],
    places: Sequence[int | None],
) -> AnnotatedGraph:
    kinds = [kind_of(node.operator, ()) for node in running.nodes]
    floats = [False] * len(kinds)
    for facts, place in zip(operators, places, strict=True):
        if place is not None:
            types = [name for name, _ in facts["outputs"]]
            kinds[place] = kind_of(facts["operator"], types)
            floats[place] = any(map(_is_float, types))
    return AnnotatedGraph(running, kinds, floats, owners, {node.operator for node in source.nodes})


def without_profiler(result: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Seconds of each operator, by name and type, less what the profiler took to describe it.

    onnxruntime writes down the type and shape of every tensor while an operator's clock runs.
    Where its operators add up to more than a run without the profiler, the excess is taken off
    them in proportion to what that was measured to cost: 2.7 us for an operator and 0.26 us for
    each of its tensors, or a multiple of both.
    """
    operators = result["operators"]
    raw = np.array([operator["ns"] for operator in operators])
    described = np.array(
        [o["calls"] * (1 + 0.1 * (len(o["inputs"]) + len(o["outputs"]))) for o in operators]
    )
    excess = raw.sum() - result["run_ns"]
    if excess > 0:
        raw = np.maximum(0, raw - excess * described / described.sum())
        raw *= result["run_ns"] / raw.sum()
    found: Counter[tuple[str, str]] = Counter()
    for operator, took_ns in zip(operators, raw, strict=True):
        found[operator["name"], operator["operator"]] += took_ns / 1e9
    return dict(found)


# -- multiply-accumulates ---------------------------------------------------------------------


def _macs(facts: Mapping[str, Any], node: GraphNode | None, running: Graph, source: Graph) -> Macs:
    """Of one run, in which a body's operator may be called often."""
    reads, makes = _shapes(facts, node, running)
    if node is not None and node.domain.endswith("nchwc") and len(reads) > 1 and makes:
        weight = _unpadded(reads[1] or UNKNOWN, source)
        result = makes[0] or UNKNOWN
        reads, makes = [reads[0], weight], [(result[0], weight[0], *result[2:])]
    attributes = node.attributes if node is not None else {}
    found = product_macs(OperatorCall(facts["operator"], reads, makes, attributes)) or Macs()
    times = max(1, round(facts["calls"]))
    return Macs(times * found.total, times * found.int8)


def _shapes(
    facts: Mapping[str, Any], node: GraphNode | None, running: Graph
) -> tuple[list[Shape | None], list[Shape | None]]:
    """What an operator read and made, by place. Only tensors that were there are described."""
    reads: list[Shape | None] = [shape for _, shape in facts["inputs"]]
    makes: list[Shape | None] = [shape for _, shape in facts["outputs"]]
    if node is None:
        return reads, makes
    present = [name for name in node.inputs if name]
    known: dict[str, Shape | None] = {}
    if len(present) == len(reads):
        known = dict(zip(present, reads, strict=True))
    elif reads:  # a weight that was packed is gone by then, what it is multiplied with is not
        known = {present[0]: reads[0]}
    known |= {name: running.constants[name].shape for name in present if name in running.constants}
    given = [known.get(name, UNKNOWN) if name else None for name in node.inputs]
    if len(makes) == sum(map(bool, node.outputs)):
        left = iter(makes)
        makes = [next(left) if name else None for name in node.outputs]
    return given, makes


def _unpadded(shape: Sequence[int], source: Graph) -> Sequence[int]:
    """The weight of the file that a weight in blocks of 8 or 16 channels was made from."""

    def fits(stored: Sequence[int]) -> bool:
        pads = [have - own for have, own in zip(shape[:2], stored[:2], strict=True)]
        return list(stored[2:]) == list(shape[2:]) and all(0 <= pad < 16 for pad in pads)

    kernels = [c.shape for c in source.constants.values() if len(c.shape) == len(shape)]
    return max(filter(fits, kernels), key=math.prod, default=shape)


def int8_mac_fraction(model: ProfiledModel) -> float | None:
    """Share of multiply-accumulates that ran on int8 kernels; ``None`` without any."""
    total = sum(step.macs for step in model.steps)
    return sum(step.int8_macs for step in model.steps) / total if total else None


# -- times ------------------------------------------------------------------------------------


def mean_interval(values: Array) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's) over processes, of which there are two or more."""
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = student_quantile(0.975, len(values) - 1) * error
    return mean, mean - half, mean + half


def time_of(seconds: Array, run_s: Array) -> Time:
    """The facts of a part from its seconds in each process."""
    share, lo, hi = mean_interval(seconds / run_s)
    return Time(float(seconds.mean()), share, (max(0.0, lo), min(1.0, hi)))


def parts(model: ProfiledModel, name_of: Callable[[Step], str]) -> tuple[OperatorGroup, ...]:
    """Steps grouped by a name, those that take longest first."""
    names = dict.fromkeys(name_of(step) for step in model.steps)
    found = []
    for name in names:
        inside = [step for step in model.steps if name_of(step) == name]
        seconds = np.sum([step.seconds for step in inside], axis=0)
        counts = Counter(step.operator for step in inside)
        found.append(OperatorGroup(name, dict(counts), time_of(seconds, model.run_s)))
    return tuple(sorted(found, key=lambda part: -part.time.seconds))


def islands(model: ProfiledModel) -> tuple[Island, ...]:
    """Float islands with their times, those that take longest first."""
    found = []
    for region in find_islands(model.annotated):
        seconds = model.seconds_in(region.nodes)
        found.append(
            Island(
                operators=region.operators,
                modules=tuple(_module_name(module) for module in region.modules),
                place=region.place,
                remedies=region.remedies,
                time=time_of(seconds, model.run_s),
            )
        )
    return tuple(sorted(found, key=lambda island: -island.time.seconds))


def changes(model: ProfiledModel, reference: ProfiledModel) -> tuple[ModuleChange, ...]:
    """What each module takes more than in the reference, slowest first."""
    names = dict.fromkeys(step.module for step in (*model.steps, *reference.steps))
    found = []
    for name in names:
        own, other = (each.seconds_of_module(name) for each in (model, reference))
        mean, lo, hi = mean_interval(own - other)
        found.append(ModuleChange(name, mean, (lo, hi)))
    return tuple(sorted(found, key=lambda change: -change.seconds))


def kernel_ratio(model: ProfiledModel, reference: ProfiledModel) -> Ratio | None:
    """Time of the modules whose products run in int8, over that of the same ones in the reference.

    Operators that compute, alone: no conversions, no moves. ``None`` where nothing is comparable.
    """
    modules = {step.module for step in model.steps if step.kind == "int8" and step.macs}
    modules &= {step.module for step in reference.steps if step.kind == "float" and step.macs}
    modules.discard(UNNAMED)

    def computes(step: Step) -> bool:
        return step.module in modules and step.kind in ("int8", "float")

    own, other = model.seconds(computes), reference.seconds(computes)
    return paired_ratio(own, other) if own.all() and other.all() else None
