"""Islands: operators that run in float in a graph that is int8 elsewhere, with cause and cure.

What has no int8 kernel was found out by looking at the graphs that onnxruntime 1.32 makes for its
CPU provider; an operator that is not in the table is still named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from compress.backends.onnx.operators import CONVERSIONS, FLOAT_PRODUCTS
from compress.measure.profile.facts import Kind, Remedy
from compress.measure.profile.graph import Graph

__all__ = ["AnnotatedGraph", "FloatRegion", "find_islands"]

# Operators with int8 kernels, which run where both sides are int8.
_HAVE_KERNELS = {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul"}
_HAVE_KERNELS |= {"Relu", "Sigmoid"}
_HELPERS = {"Clip"}  # which lowering puts before float products, so that they stay as declared


@dataclass(frozen=True)
class AnnotatedGraph:
    """The graph that runs, with what is known of each of its nodes, in its order.

    ``is_float`` is about what a node makes. ``source_operators`` are those of the file.
    """

    graph: Graph
    kinds: Sequence[Kind]
    is_float: Sequence[bool]
    modules: Sequence[str | None]
    source_operators: Collection[str]


@dataclass(frozen=True)
class FloatRegion:
    """An island before it is timed; ``nodes`` are its own and the conversions around it."""

    nodes: frozenset[int]
    operators: tuple[str, ...]
    modules: tuple[str, ...]
    place: Literal["between", "start", "end"]
    remedies: tuple[Remedy, ...]


def find_islands(annotated: AnnotatedGraph) -> list[FloatRegion]:
    """Every group of float operators that touch each other, and of inserted transpositions."""
    nodes = annotated.graph.nodes
    if "int8" not in annotated.kinds and not any(n.operator == "DequantizeLinear" for n in nodes):
        return []
    members = {
        i
        for i, kind in enumerate(annotated.kinds)
        if kind == "float" or (kind in ("move", "layout") and annotated.is_float[i])
    }
    after, before = _reached(annotated, forward=True), _reached(annotated, forward=False)
    claimed: set[int] = set()
    found = []
    for group in _connected(annotated.graph, members):
        if any(annotated.kinds[i] == "float" for i in group):
            region = _float_region(annotated, group, claimed, after & group, before & group)
            claimed |= region.nodes
            found.append(region)
    return [*found, *_flips(annotated, claimed)]


def _reached(annotated: AnnotatedGraph, *, forward: bool) -> set[int]:
    """Nodes that an int8 node, or what stands for one, comes before (or after)."""
    order = list(enumerate(annotated.graph.nodes))
    tensors: set[str] = set()
    found = set()
    for i, node in order if forward else reversed(order):
        reads, makes = (node.inputs, node.outputs) if forward else (node.outputs, node.inputs)
        if not tensors.isdisjoint(reads):
            found.add(i)
        if i in found or annotated.kinds[i] == "int8":
            tensors.update(name for name in makes if name)
    return found


def _connected(graph: Graph, members: Collection[int]) -> list[set[int]]:
    made_by = graph.makers()
    group_of = {i: {i} for i in members}
    for i in members:
        for name in graph.nodes[i].inputs:
            j = made_by.get(name)
            if j in group_of and group_of[j] is not group_of[i]:
                joined = group_of[j] | group_of[i]
                group_of.update(dict.fromkeys(joined, joined))
    return [group for i, group in sorted(group_of.items()) if i == min(group)]


def _float_region(
    annotated: AnnotatedGraph,
    group: set[int],
    claimed: Collection[int],
    after: set[int],
    before: set[int],
) -> FloatRegion:
    inlets, outlets = _conversions(annotated.graph, group)
    names = [_shown(annotated, i) for i in sorted(group) if annotated.kinds[i] == "float"]
    telling = [name for name in names if name not in _HELPERS] or names
    tellers = [
        i
        for i in sorted(group)
        if _shown(annotated, i) in telling and annotated.kinds[i] == "float"
    ]
    modules = [annotated.modules[i] for i in tellers]
    return FloatRegion(
        nodes=frozenset(group | ((inlets | outlets) - {*claimed})),
        operators=tuple(dict.fromkeys(telling)),
        modules=tuple(dict.fromkeys(module for module in modules if module is not None)),
        place="between" if after and before else "end" if after else "start",
        remedies=tuple(_remedies(annotated, group, inlets)),
    )


def _conversions(graph: Graph, group: Collection[int]) -> tuple[set[int], set[int]]:
    """Nodes that dequantize what the group reads, and that quantize what it makes."""
    made_by, read_by = graph.makers(), graph.readers()
    reads = [made_by[name] for i in group for name in graph.nodes[i].inputs if name in made_by]
    makes = [j for i in group for name in graph.nodes[i].outputs for j in read_by.get(name, ())]
    return (
        {i for i in reads if graph.nodes[i].operator == "DequantizeLinear"},
        {i for i in makes if graph.nodes[i].operator == "QuantizeLinear"},
    )


def _shown(annotated: AnnotatedGraph, place: int) -> str:
    operator = annotated.graph.nodes[place].operator
    # onnxruntime writes this one out as HardSigmoid and Mul.
    if operator == "HardSigmoid" and operator not in annotated.source_operators:
        return "HardSwish" if "HardSwish" in annotated.source_operators else operator
    return operator


# -- causes and cures -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """What is known of some operators; ``{op}``, ``{at}`` and ``{before}`` are filled in."""

    operators: frozenset[str]
    cause: str
    cure: str


_SEEN_THROUGH = {*CONVERSIONS, *_HELPERS, "Transpose"}

_EXCLUDE = "keep the layers before it in float too (`exclude: {before}` in the quantize stage)"

_KNOWN = (
    _Known(
        frozenset({"ConvTranspose"}),
        "there is no int8 kernel for ConvTranspose on this CPU",
        f"build {{at}} from nn.Upsample and nn.Conv2d and train again, or {_EXCLUDE}",
    ),
    _Known(
        frozenset({"HardSwish", "HardSigmoid"}),
        "there is no int8 kernel for {op}",
        f"replace it by nn.ReLU or nn.SiLU, which have one, and train again, or {_EXCLUDE}",
    ),
    _Known(
        frozenset({"Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Erf"}),
        "there is no int8 kernel for {op}",
        f"replace it by nn.ReLU or nn.SiLU, which have one, and train again, or {_EXCLUDE}",
    ),
    _Known(
        frozenset(
            {
                *("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"),
                *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
                *("InstanceNormalization", "GroupNormalization", "GroupNorm", "SkipGroupNorm"),
                *("LpNormalization", "MeanVarianceNormalization"),
            }
        ),
        "{op} computes its statistics in float at run time and has no int8 kernel",
        "use a batch norm in its place, which is folded into the convolution before it, or "
        + _EXCLUDE,
    ),
    _Known(
        frozenset({"BatchNormalization"}),
        "a batch norm that does not follow a convolution or linear layer cannot be folded into one",
        f"put it right behind one, or {_EXCLUDE}",
    ),
    _Known(
        frozenset({"LSTM", "GRU", "RNN"}),
        "there is no static int8 kernel for {op}",
        f"use convolutions or attention in its place, or {_EXCLUDE}",
    ),
    _Known(
        frozenset({"Resize", "Upsample"}),
        "Resize has an int8 kernel only where it takes the nearest value",
        f"set mode='nearest' at {{at}}, or {_EXCLUDE}",
    ),
    _Known(
        frozenset({"Softmax", "LogSoftmax"}),
        "Softmax is left in float, since eight bits are too few for its small outputs",
        "leave it; it need not be a part of the model if only the largest class matters",
    ),
)


def _remedies(annotated: AnnotatedGraph, group: set[int], inlets: set[int]) -> Iterable[Remedy]:
    """One remedy for each thing that is known of the group, or one for what is not."""
    types = _stored_types(annotated.graph, inlets)
    telling = [i for i in group if annotated.graph.nodes[i].operator not in _HELPERS]
    at, before = (
        _listed(annotated, telling or group),
        _listed(annotated, _int8_before(annotated, group)),
    )
    if types & {"uint16", "int16"}:
        yield Remedy(
            "activations of 16 bits have no integer kernels on this CPU: values are converted, and "
            "then computed in float",
            "quantize with 8-bit activations (`activations: int8`)",
        )
        return
    if types & {"int4", "uint4", "int2", "uint2"}:
        yield Remedy(
            "weights of less than 8 bits have no integer kernels for this operator: they make the "
            "file smaller, not faster",
            "quantize with `weights: int8` where speed matters",
        )
        return
    names = [_shown(annotated, i) for i in sorted(group) if annotated.kinds[i] == "float"]
    known = False
    for entry in _KNOWN:
        if hit := next((name for name in names if name in entry.operators), None):
            known = True
            yield Remedy(
                entry.cause.format(op=hit), entry.cure.format(op=hit, at=at, before=before)
            )
    products = [i for i in group if annotated.graph.nodes[i].operator in {*FLOAT_PRODUCTS}]
    plain = [i for i in products if annotated.graph.nodes[i].operator != "ConvTranspose"]
    if plain:
        known = True
        yield _about_product(annotated, plain, inlets)
    if not known:
        first = next((name for name in names if name not in _HELPERS), names[0])
        yield _about_unknown(first, before)


def _about_product(annotated: AnnotatedGraph, products: Sequence[int], inlets: set[int]) -> Remedy:
    node = annotated.graph.nodes[min(products)]
    made_by = annotated.graph.makers()
    weight = made_by.get(node.inputs[1]) if len(node.inputs) > 1 else None
    at = _listed(annotated, products)
    if (
        weight is not None
        and weight in inlets
        and annotated.graph.nodes[weight].inputs[0] in annotated.graph.constants
    ):
        return Remedy(
            f"{node.operator} has int8 weights, but its input or output is not int8, so that they "
            "are dequantized in every run",
            f"quantize both sides of {at} to int8, or store its weights alone "
            "(`activations: float32`), which unpacks them once",
        )
    if weight is not None:
        return Remedy(
            "a product of two activations is left in float: int8 gains under 5 % there and costs "
            "accuracy",
            "leave it",
        )
    return Remedy(
        f"{node.operator} is declared float: no rule selects it, or one leaves it out",
        f"select {at} in a quantize stage, unless its accuracy was the reason",
    )


def _about_unknown(operator: str, before: str) -> Remedy:
    if operator in _HAVE_KERNELS:
        return Remedy(
            f"{operator} has an int8 kernel, but what follows it here is not int8",
            "leave it, or quantize what follows it too",
        )
    return Remedy(
        f"there is no int8 kernel for {operator} on this provider, or it was left in float",
        f"replace it by an operator that has one, or {_EXCLUDE.format(before=before)}",
    )


def _stored_types(graph: Graph, inlets: Iterable[int]) -> set[str]:
    """Integer types that the group's inputs are dequantized from: those of their zero points."""
    names = [
        name for i in inlets for name in (graph.nodes[i].inputs[0], *graph.nodes[i].inputs[2:])
    ]
    return {graph.constants[name].type for name in names if name in graph.constants}


def _int8_before(annotated: AnnotatedGraph, group: Collection[int]) -> set[int]:
    """The int8 nodes nearest before the group, seen through what only converts or moves."""
    made_by = annotated.graph.makers()
    found: set[int] = set()
    seen, left = {*group}, [*group]
    while left:
        for name in annotated.graph.nodes[left.pop()].inputs:
            i = made_by.get(name)
            if i is None or i in seen:
                continue
            seen.add(i)
            if annotated.kinds[i] == "int8":
                found.add(i)
            elif annotated.kinds[i] != "float":
                left.append(i)
    return found


def _listed(annotated: AnnotatedGraph, places: Iterable[int]) -> str:
    modules = dict.fromkeys(annotated.modules[i] for i in sorted(places))
    named = [module for module in modules if module]
    return f"[{', '.join(named[:4])}{', …' if len(named) > 4 else ''}]" if named else "[…]"


# -- layouts ----------------------------------------------------------------------------------


def _flips(annotated: AnnotatedGraph, claimed: Collection[int]) -> list[FloatRegion]:
    """Transpositions that are not in the file: int8 convolutions are channels-last here."""
    nodes = annotated.graph.nodes
    if "Transpose" in annotated.source_operators:
        return []  # which of them are the file's own is not known
    places = [i for i, n in enumerate(nodes) if n.operator == "Transpose" and i not in claimed]
    if not places:
        return []
    others = dict.fromkeys(
        _shown(annotated, j) for i in places for j in _beyond(annotated.graph, i)
    )
    who = ", ".join([*others][:3]) or "the model's inputs or outputs"
    remedy = Remedy(
        f"int8 convolutions run channels-last here, and {who} do not: tensors are turned at each "
        "border",
        "keep fewer such borders: replace those operators, or leave whole blocks in float with "
        "`exclude`",
    )
    modules = dict.fromkeys(m for i in places if (m := annotated.modules[i]) is not None)
    return [FloatRegion(frozenset(places), ("Transpose",), tuple(modules), "between", (remedy,))]


def _beyond(graph: Graph, place: int) -> list[int]:
    """What is on both sides of a node, seen through conversions, but for int8 convolutions."""
    made_by, read_by = graph.makers(), graph.readers()
    seen, left = {place}, [place]
    found: list[int] = []
    while left:
        node = graph.nodes[left.pop()]
        near = [made_by[name] for name in node.inputs if name in made_by]
        near += [j for name in node.outputs for j in read_by.get(name, ())]
        for i in near:
            operator = graph.nodes[i].operator
            if i in seen or operator == "QLinearConv":
                continue
            seen.add(i)
            (left if operator in _SEEN_THROUGH else found).append(i)
    return sorted(found)
