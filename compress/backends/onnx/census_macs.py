"""Counting the multiply-accumulates of a run, those of bodies included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import numpy_helper

from compress.backends.onnx.census_graph import (
    Names,
    attributes_of,
    bodies,
    every_graph,
    every_node,
    live_nodes,
)
from compress.backends.onnx.census_run import Shapes, TracedRun
from compress.backends.onnx.census_shapes import in_bodies
from compress.backends.onnx.operators import (
    PRODUCTS,
    RECURRENT,
    UNCOUNTED,
    UNKNOWN,
    OperatorCall,
    Shape,
    plain_name,
    product_macs,
)

__all__ = ["Counted", "batch_of", "count_macs"]

#: Multiply-accumulates by operator, and whether they run on int8 kernels.
Products = Counter[tuple[str, bool]]


@dataclass(frozen=True)
class Counted:
    """Products of one run, and sentences on what of them is a guess or is not counted."""

    products: Products
    notes: tuple[str, ...]

    def by_operator(self, batch: int, *, int8: bool | None = None) -> dict[str, int]:
        """Of one sample: all, those in int8, or those that are not."""
        found: Counter[str] = Counter()
        for (operator, in_int8), macs in self.products.items():
            if int8 in (None, in_int8):
                found[operator] += macs
        return {name: macs // batch for name, macs in found.most_common() if macs // batch}

    def total(self, batch: int, *, int8: bool | None = None) -> int:
        """Of one sample, as :meth:`by_operator`."""
        wanted = (m for (_, in_int8), m in self.products.items() if int8 in (None, in_int8))
        return sum(wanted) // batch


def count_macs(ran: TracedRun) -> Counted:
    """What ``ran`` multiplies, less what is the same in every run and worked out beforehand."""
    counting = _Counting(ran)
    products = counting.graph(ran.model.graph, Names())
    return Counted(products, tuple(counting.notes()))


def batch_of(ran: TracedRun) -> int:
    """How many samples a run takes.

    It is the axis of an input that a recurrent operator reads as its batch, if it reads one as it
    is. Otherwise it is the size that leads an input and stands on one of the first two axes of the
    most inputs and outputs: a state may have its layers before its batch. 1 if none is in both.
    """
    for node in ran.model.graph.node:
        if node.op_type in RECURRENT and node.input[0] in {t.name for t in ran.model.graph.input}:
            shape = ran.shapes.get(node.input[0], ())
            if len(shape) == 3:
                return max(1, shape[0 if attributes_of(node).get("layout") else 1])
    outputs = ran.outputs
    leading = dict.fromkeys(shape[0] for shape in ran.inputs if shape)
    fitting = [size for size in leading if any(size in shape[:2] for shape in outputs)]

    def occurrences(size: int) -> tuple[int, bool]:
        among = [size in shape[:2] for shape in (*ran.inputs, *outputs)]
        return sum(among), any(shape[:1] == (size,) for shape in outputs)

    return max(1, max(fitting, key=occurrences, default=1))


class _Counting:
    """One walk over a graph and its bodies."""

    def __init__(self, ran: TracedRun) -> None:
        self._ran = ran if _has_all_shapes(ran) else replace(ran, shapes=_completed(ran))
        self._constants = {
            tensor.name: tensor
            for graph in every_graph(ran.model.graph)
            for tensor in graph.initializer
        }
        self._unknown: Counter[str] = Counter()
        self._uncounted: dict[str, None] = {}
        self._guesses: dict[str, None] = {}

    def notes(self) -> Iterator[str]:
        """Sentences on what is a guess, and on what is not counted."""
        yield from self._guesses
        if self._unknown:
            names = ", ".join(f"{number} {name}" for name, number in self._unknown.items())
            yield f"the products of {names} are not counted, since their shapes are not known."
        if self._uncounted:
            yield f"the products of {', '.join(self._uncounted)} are not counted."

    def graph(self, graph: onnx.GraphProto, outer: Names, given: Sequence[str] = ()) -> Products:
        """The products of ``graph``; ``given`` are inputs that no value decides."""
        names = outer.within(graph, given)
        total: Products = Counter()
        for node in live_nodes(graph):
            if node.op_type in UNCOUNTED:
                self._uncounted[node.op_type] = None
            elif node.op_type in PRODUCTS:
                if not names.constant.issuperset(name for name in node.input if name):
                    total += self._product(node)
            elif node.op_type == "If":
                total += self._branches(node, names)
            elif node.op_type in ("Loop", "Scan"):
                total += self._passes(node, names)
            else:
                for body in bodies(node):
                    total += self.graph(body, names)
        return total

    def _product(self, node: onnx.NodeProto) -> Products:
        found: Products = Counter()
        here = self._places(node.input), self._places(node.output)
        calls = self._ran.calls.get(node.name) or Counter([here])
        attributes = attributes_of(node)
        for (reads, makes), times in calls.items():
            call = OperatorCall(node.op_type, self._shortened(node, reads), makes, attributes)
            macs = product_macs(call)
            if macs is None:
                self._unknown[node.op_type] += 1
                return found
            name = plain_name(node.op_type)
            found[name, True] += times * macs.int8
            found[name, False] += times * (macs.total - macs.int8)
        return found

    def _places(self, names: Sequence[str]) -> Shapes:
        return tuple(self._ran.shapes.get(name, UNKNOWN) if name else None for name in names)

    def _shortened(self, node: onnx.NodeProto, reads: Shapes) -> Shapes:
        """A recurrent operator takes as many steps as the longest of its sequences has."""
        lengths = self._values(node, 4) if node.op_type in RECURRENT else []
        shape = reads[0]
        if not lengths or shape is None or len(shape) != 3:
            return reads
        axis = 1 if attributes_of(node).get("layout") else 0
        steps = min(max(lengths), shape[axis])
        return ((*shape[:axis], steps, *shape[axis + 1 :]), *reads[1:])

    def _values(self, node: onnx.NodeProto, place: int) -> list[int]:
        """What an input holds, if that is constant."""
        tensor = self._constants.get(node.input[place]) if place < len(node.input) else None
        return [] if tensor is None else [int(v) for v in numpy_helper.to_array(tensor).ravel()]

    def _branches(self, node: onnx.NodeProto, names: Names) -> Products:
        branches = [*bodies(node)]
        counts = [self.graph(body, names) for body in branches]
        ran = [count for body, count in zip(branches, counts, strict=True) if self._entered(body)]
        if len(ran) == len(branches) or (ran and node.input[0] in names.fixed):
            return sum(ran, Counter())
        if node.input[0] not in names.fixed and len({count.total() for count in counts}) > 1:
            self._guess("the inputs decide between branches: the one with more products counts.")
        return max(counts, key=Counter.total)

    def _passes(self, node: onnx.NodeProto, names: Names) -> Products:
        (body,) = bodies(node)
        given = [tensor.name for tensor in body.input[:2]] if node.op_type == "Loop" else []
        once = self.graph(body, names, given)
        if self._entered(body):
            self._note_passes(node, body, names)
            return once
        passes = self._number_of_passes(node)
        if passes is None:
            passes = 1
            if once.total():
                self._guess("the inputs decide how often a loop runs: one pass is counted.")
        return Counter({key: passes * macs for key, macs in once.items()})

    def _note_passes(self, node: onnx.NodeProto, body: onnx.GraphProto, names: Names) -> None:
        if node.op_type == "Loop" and any(n.op_type in PRODUCTS for n in every_node(body.node)):
            limits = {name for name in node.input[:2] if name}
            inner = names.within(body, [tensor.name for tensor in body.input[:2]])
            if not (limits <= names.fixed and body.output[0].name in inner.fixed):
                self._guess("the inputs decide how often a loop runs: those on zeros are counted.")

    def _number_of_passes(self, node: onnx.NodeProto) -> int | None:
        if node.op_type == "Loop":
            limit = self._values(node, 0)
            return limit[0] if limit else None
        axes = attributes_of(node).get("scan_input_axes") or [0]
        scanned: Shape = self._ran.shapes.get(node.input[-1], ())
        size = scanned[axes[-1]] if len(scanned) > axes[-1] else -1
        return None if size < 0 else size

    def _guess(self, words: str) -> None:
        self._guesses[words] = None

    def _entered(self, body: onnx.GraphProto) -> bool:
        return any(node.name in self._ran.nodes for node in body.node)


def _has_all_shapes(ran: TracedRun) -> bool:
    """Whether the shapes of all products are known from the run."""
    products = (n for n in every_node(ran.model.graph.node) if n.op_type in PRODUCTS)
    return bool(ran.failure) or all(node.name in ran.calls for node in products)


def _completed(ran: TracedRun) -> dict[str, Shape]:
    return in_bodies(ran.model, ran.shapes, ran.types)
