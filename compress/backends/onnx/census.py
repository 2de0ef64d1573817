"""Census: what an ONNX file is made of, and what onnxruntime will run of it in int8.

Works on any ONNX file and needs no torch. Counts come from the file; which products run on int8
kernels, and which float operators stand between them, come from the graph that onnxruntime makes
of it, since a QuantizeLinear in a file guarantees nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx

from compress.artifact import Census
from compress.backends.onnx.census_graph import every_node
from compress.backends.onnx.census_macs import batch_of, count_macs
from compress.backends.onnx.census_run import TracedRun, observe
from compress.backends.onnx.census_weights import Weights, count_weights, read_file
from compress.backends.onnx.operators import MOVES, PRODUCTS, is_int8
from compress.errors import LoweringError
from compress.io.scratch import scratch

__all__ = ["census_notes", "take_census", "uncounted_note"]

_LEAST = 0.1  # of the products or weights, to be worth saying: the share is in every table
_LEAST_NAMED = 0.05  # of that part, to be named
_NAMED = 4  # operators in a sentence
_WORDS = 300  # characters of onnxruntime's

# Operators that are in no layer which can have a number format.
_NO_LAYER = {"Attention", "DeformConv", "Einsum", "MultiHeadAttention"}

# Types that weights have for being quantized alone: of eight bits or fewer.
_NARROW = re.compile(r"(u?int|float)[1-8](?!\d)")


def take_census(path: Path, *, batch: int | None = None) -> Census:
    """Count what is in the file at ``path``, external data included.

    It is loaded and run once on inputs of zeros, with free dimensions set to one. If it does not
    run on them, shapes are inferred. ``notes`` of the census say what is a guess or not counted.

    Args:
        path: of the model.
        batch: how many samples a run takes; by default, what the shapes suggest.

    Raises:
        LoweringError: not an ONNX file, or one that onnxruntime cannot load.
    """
    operators, size, weights = _contents(path)
    try:
        with scratch() as folder:
            after = observe(path, Path(folder), optimized=True)
            before = observe(path, Path(folder), optimized=False)
    except UnicodeDecodeError as error:
        raise LoweringError(
            f"{path}: a name in the model is not text ({error}); the file is damaged."
        ) from error
    written, running = count_macs(before), count_macs(after)
    batch = batch or batch_of(before)
    return Census(
        operators=operators,
        weight_bytes=weights.bytes,
        graph_bytes=max(0, size - sum(weights.bytes.values())),
        # Less is written than runs only where shapes of what is written are not known.
        macs=max(written.total(batch), running.total(batch)),
        int8_macs=running.total(batch, int8=True),
        nonzero_weights=weights.nonzero,
        float_islands=_islands(after),
        macs_by_operator=written.by_operator(batch),
        float_macs=running.by_operator(batch, int8=False),
        weights=weights.total,
        float_weights=weights.floats,
        notes=tuple(dict.fromkeys([*_run_notes(before), *written.notes, *running.notes])),
    )


def census_notes(
    census: Census, *, int8: bool = False, narrow_weights: bool = False
) -> tuple[str, ...]:
    """What the reader of a record should know about a census, as sentences.

    Args:
        census: of the file.
        int8: whether int8 arithmetic was asked for, so that none is worth saying too.
        narrow_weights: whether weights of eight bits or fewer were.
    """
    float_part = uncounted_note(census, int8=int8, narrow_weights=narrow_weights)
    notes = [f"the census is not exact: {note}" for note in census.notes]
    return (*notes, float_part) if float_part else tuple(notes)


def uncounted_note(
    census: Census, *, int8: bool = False, narrow_weights: bool = False
) -> str | None:
    """What share of the products and the weights stays in float beside others that do not.

    ``None`` where nothing is in integers or was asked to be, or next to nothing is not. The
    arguments are those of :func:`census_notes`.
    """
    products, kept = sum(census.float_macs.values()), sum(census.float_weights.values())
    shares = []
    if products and (census.int8_macs or int8):
        computed = products / (products + census.int8_macs)
        shares.append((computed, "products", census.float_macs))
    narrow = any(_NARROW.match(kind) for kind in census.weight_bytes)
    if kept and (narrow or narrow_weights):
        shares.append((kept / census.weights, "weights", census.float_weights))
    large = [(share, what, _largest(parts)) for share, what, parts in shares if share >= _LEAST]
    if not large:
        return None
    words = [
        f"{_percent(share)} of the {what} ({', '.join(names)})" for share, what, names in large
    ]
    outside = _NO_LAYER.issuperset(name for _, _, names in large for name in names)
    reason = ": no layer with a format has them" if outside else ""
    return f"{' and '.join(words)} stay in float{reason}."


def _largest(parts: Mapping[str, int]) -> list[str]:
    """The operators that make up nearly all of it."""
    ranked = sorted(parts, key=lambda name: -parts[name])
    worth = [name for name in ranked if parts[name] >= _LEAST_NAMED * sum(parts.values())]
    return worth[:_NAMED]


def _percent(share: float) -> str:
    # Never 100 % of what is not all.
    return f"{100 * share:.1f} %" if share < 0.9995 or share == 1 else "over 99.9 %"


def _run_notes(ran: TracedRun) -> Iterator[str]:
    products = (node.op_type in PRODUCTS for node in every_node(ran.model.graph.node))
    if ran.failure and any(products):
        words = ran.failure[:_WORDS].rstrip(".")
        yield f"it does not run on zeros, so that its shapes are inferred: {words}."
    if ran.size > 1:
        yield f"free axes, but for each input's first one, are counted as {ran.size}."


def _contents(path: Path) -> tuple[dict[str, int], int, Weights]:
    """Operators, those of bodies and local functions once each; bytes; and what is stored.

    The model is let go of, so that none stands in memory twice while it runs.
    """
    file = read_file(path)
    operators = Counter(node.op_type for scope in file.scopes for node in scope.nodes)
    try:
        return dict(sorted(operators.items())), file.size, count_weights(file)
    except LoweringError as error:
        raise LoweringError(f"{path}: {error}") from error


def _islands(ran: TracedRun) -> tuple[str, ...]:
    nodes = list(ran.model.graph.node)
    after, before = _flags(nodes, ran), [*reversed(_flags(nodes[::-1], ran, backward=True))]
    names = [
        node.op_type
        for node, has_before, has_after in zip(nodes, after, before, strict=True)
        if has_before and has_after and _is_float(node, ran)
    ]
    return tuple(dict.fromkeys(names))


def _flags(
    nodes: Sequence[onnx.NodeProto], ran: TracedRun, *, backward: bool = False
) -> list[bool]:
    """For each node, whether an int8 one comes before it in this (topological) order."""
    reached: set[str] = set()
    flags = []
    for node in nodes:
        reads, makes = (node.output, node.input) if backward else (node.input, node.output)
        flags.append(any(name in reached for name in reads))
        if flags[-1] or _is_int8(node, ran):
            reached.update(name for name in makes if name)
    return flags


def _is_int8(node: onnx.NodeProto, ran: TracedRun) -> bool:
    return is_int8(node.op_type, {ran.types.get(name, "") for name in node.output})


def _is_float(node: onnx.NodeProto, ran: TracedRun) -> bool:
    floats = any(ran.types.get(name, "").startswith("float") for name in node.output)
    dynamic = node.op_type == "DynamicQuantizeLinear"
    return floats and not dynamic and node.op_type not in MOVES and not _is_int8(node, ran)
