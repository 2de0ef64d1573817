"""Prove a cut: the cut net computes what the original does with the removed parts left out.

Both nets run in double precision on random inputs and random weights, of one draw. In the original
every removed slice of every parameter is zero, on the side that reads a channel as well as on the
side that makes it. After every operator, what the cut net has must be what the original has at
the places that stay. What is computed *across* a cut axis changes by its nature: sums, means and
products are taken over the places that stay in both nets, and norms and softmaxes give way to
something that works place by place, and so do functions that are flat where channels would be lost
from sight. The ids decide what is compared, and numbers decide whether it
agrees: an operator that the ids got wrong, a swapped map or a norm that was forgotten differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.modules.inputs import Inputs
from compress.pruning.flow import Flow
from compress.pruning.surgery import Cut, zero_slices
from compress.pruning.trace import Node, Ref, Trace, TraceFailed, record
from compress.pruning.walk import arguments

__all__ = ["Mismatch", "ScaleChange", "prove"]

_TOLERANCE = 1e-7
# Of each tensor; a channel at a wrong place shows in all of its elements.
_MOST_COMPARED = 1 << 16
_STAND_INS = ("layer norm", "group norm", "softmax")
# Functions that are flat over a range would hide a channel that is there; these are flat nowhere.
_ALIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: functional.leaky_relu(x, 0.3),
    "threshold": lambda x: functional.leaky_relu(x, 0.3),
    "hardtanh": functional.softsign,
    "relu6": functional.softsign,
    "clamp": functional.softsign,
    "clamp_min": lambda x: functional.leaky_relu(x, 0.3),
    "clamp_max": lambda x: -functional.leaky_relu(-x, 0.3),
    "hardsigmoid": torch.sigmoid,
    "hardswish": functional.silu,
}


class Mismatch(Exception):
    """The two nets part at an operator: ``number`` in the trace, and in which ``module``."""

    def __init__(
        self,
        number: int,
        module: str,
        what: str,
        *,
        is_shape: bool,
        is_scale: bool = False,
        is_another_way: bool = False,
    ) -> None:
        super().__init__(what)
        self.is_scale = is_scale
        self.is_another_way = is_another_way
        self.number = number
        self.module = module
        self.what = what
        self.is_shape = is_shape


@dataclass(frozen=True)
class ScaleChange:
    """The cut net multiplies by another number at an operator: ``factor`` times too little."""

    number: int
    factor: float


@dataclass
class _Run:
    """One of the two nets while it runs: its results, and the classes that it leaves out."""

    trace: Trace
    flow: Flow
    removed: set[int]
    is_cut: bool
    results: list[list[tuple[tuple[int, ...], Tensor] | None]] = field(default_factory=list)
    changes: list[ScaleChange] = field(default_factory=list)


def prove(
    original: Callable[[], nn.Module],
    cut_net: nn.Module,
    cut: Cut,
    inputs: Inputs,
    trace: Trace,
    flow: Flow,
    removed: set[int],
    *,
    unscaled: bool = True,
    skipped: frozenset[int] = frozenset(),
) -> list[ScaleChange]:
    """Compare the cut net with the original, operator by operator.

    Args:
        original: makes the uncut net, with random weights, in double precision; called once all
            shapes are right.
        cut_net: the same with those slices taken out.
        cut: what stays.
        inputs: a random batch.
        trace: of the original, with the ids of ``flow``.
        flow: which ids arrive where.
        removed: the classes that the cut removes.
        unscaled: make the cut net multiply by the original's numbers where its own differ because
            they follow from a width; what they were is returned.
        skipped: numbers of operators whose values are not compared.

    Raises:
        Mismatch: the two differ.
    """
    small = _Run(trace, flow, removed, is_cut=True)
    _run(small, cut_net, inputs, _check_shape(small), unscaled=unscaled)
    zeroed = original()
    zero_slices(zeroed, cut)
    big = _Run(trace, flow, removed, is_cut=False)
    _run(big, zeroed, inputs, _compare(big, small, skipped), unscaled=unscaled)
    return small.changes


def _run(
    run: _Run,
    module: nn.Module,
    inputs: Inputs,
    observe: Callable[[int, Node, Trace, list[Any]], None],
    *,
    unscaled: bool,
) -> None:
    def compute(number: int, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _compute(run, number, op, args, kwargs, unscaled)

    try:
        record(module, inputs, compute, observe)
    except TraceFailed as error:
        failure = error.cause
        if not isinstance(failure, Mismatch):
            failure = Mismatch(len(error.trace.nodes), error.module, str(error), is_shape=True)
    else:
        return
    # A traceback would keep both nets and all that they gave for as long as the failure is kept.
    failure.__cause__ = failure.__context__ = None
    raise failure.with_traceback(None)


def _check_shape(run: _Run) -> Callable[[int, Node, Trace, list[Any]], None]:
    def observe(number: int, node: Node, _: Trace, results: list[Any]) -> None:
        expected = _same_node(run, number, node)
        for output, result in zip(_compared(run, number, expected), results, strict=False):
            if output is None or not isinstance(result, Tensor):
                continue
            if run.flow.layouts[output].is_uniform:
                continue  # a constant has as many places as its users want
            wanted = _shape_left(run, output, tuple(result.shape))
            if tuple(result.shape) != wanted:
                raise Mismatch(
                    number,
                    node.module,
                    f"{node.kind} gives {tuple(result.shape)} where {wanted} is left",
                    is_shape=True,
                )
        run.results.append([_sample(r, number) if isinstance(r, Tensor) else None for r in results])

    return observe


def _compare(
    big: _Run, small: _Run, skipped: frozenset[int]
) -> Callable[[int, Node, Trace, list[Any]], None]:
    def observe(number: int, node: Node, _: Trace, results: list[Any]) -> None:
        expected = _same_node(big, number, node)
        others = small.results[number]
        small.results[number] = []
        if number in skipped:
            return
        outputs = _compared(big, number, expected)
        for output, expected, cut in zip(outputs, results, others, strict=False):
            if output is None or cut is None or not expected.numel():
                continue
            if big.flow.layouts[output].is_uniform:
                continue  # a number that may follow from a width: its uses are looked at
            for axis, kept in enumerate(_kept(big, output)):
                if kept is not None:
                    expected = expected.index_select(axis, torch.tensor(kept))
            shape, values = cut
            for axis in big.flow.layouts[output].free:
                expected = expected.narrow(axis, 0, shape[axis])
            if not _agree(_sample(expected, number)[1], values):
                raise Mismatch(
                    number, node.module, f"{node.kind} gives other numbers", is_shape=False
                )

    return observe


def _shape_left(run: _Run, value: int, actual: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a value has in the cut net."""
    shape, free = run.trace.values[value].shape, run.flow.layouts[value].free
    if len(shape) != len(actual):
        return shape
    return tuple(
        # What one value was spread out to has any number of places, up to what it was.
        min(size, actual[axis]) if axis in free else size if kept is None else len(kept)
        for axis, (size, kept) in enumerate(zip(shape, _kept(run, value), strict=True))
    )


def _compared(run: _Run, number: int, node: Node) -> tuple[int | None, ...]:
    # The statistics that norms give beside their result are used by gradients alone.
    is_norm = node.kind.endswith("_norm") or _across(run, number) in _STAND_INS
    return node.outputs[:1] if is_norm else node.outputs


def _sample(tensor: Tensor, number: int) -> tuple[tuple[int, ...], Tensor]:
    """The shape of a tensor and a copy, of a large one some elements that are always the same.

    A copy: what an operator gave may be written to later, and a view would keep all of its base.
    """
    shape = tuple(tensor.shape)
    if tensor.numel() <= _MOST_COMPARED:
        return shape, tensor.clone()
    generator = torch.Generator().manual_seed(number)
    places = torch.randint(tensor.numel(), (_MOST_COMPARED,), generator=generator)
    return shape, tensor.flatten()[places]


def _agree(expected: Tensor, cut: Tensor) -> bool:
    if not expected.is_floating_point():
        return torch.equal(expected, cut)
    scale = float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(expected, cut, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True)


def _same_node(run: _Run, number: int, node: Node) -> Node:
    if number >= len(run.trace.nodes):
        what = f"it calls {node.kind} where it had ended"
        raise Mismatch(number, node.module, what, is_shape=True, is_another_way=True)
    expected = run.trace.nodes[number]
    if expected.kind != node.kind or expected.module != node.module:
        what = f"it calls {node.kind} in place of {expected.kind}"
        raise Mismatch(number, expected.module, what, is_shape=True, is_another_way=True)
    return expected


def _kept(run: _Run, value: int) -> list[list[int] | None]:
    """For each axis of a value the places that stay, ``None`` for all."""
    kept: list[list[int] | None] = []
    for vector in run.flow.layouts[value].axes:
        if vector is None:
            kept.append(None)
            continue
        gone = [int(root) in run.removed for root in run.flow.ids.roots(vector)]
        kept.append([i for i, is_gone in enumerate(gone) if not is_gone] if any(gone) else None)
    return kept


def _across(run: _Run, number: int) -> str:
    across = run.flow.across.get(number)
    if across is None or all(_kept(run, across.value)[axis] is None for axis in across.axes):
        return ""
    return across.kind


def _compute(
    run: _Run, number: int, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], unscaled: bool
) -> Any:
    kind = _across(run, number)
    if kind in _STAND_INS:
        return _stand_in(kind, op, args, kwargs)
    function = _ALIVE.get(op._schema.name.rpartition("::")[2].removesuffix("_"))
    if function is not None and args[0].is_floating_point():
        return _replaced(function, op, args)
    if kind and not run.is_cut:
        args, kwargs = _left_out(run, number, args, kwargs)
    if run.is_cut and unscaled and number < len(run.trace.nodes):
        args, kwargs = _as_before(run, number, args, kwargs)
    return op(*args, **kwargs)


def _replaced(function: Callable[[Tensor], Tensor], op: Any, args: tuple[Any, ...]) -> Any:
    result = function(args[0])
    return args[0].copy_(result) if op._schema.is_mutable else result


def _stand_in(kind: str, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = dict(zip([a.name for a in op._schema.arguments], args, strict=False)) | kwargs
    x: Tensor = given["input"] if "input" in given else given["self"]
    if kind == "softmax":
        return torch.sigmoid(x).contiguous()
    weight, bias, result = given.get("weight"), given.get("bias"), x.contiguous()
    shape = (
        [1, -1, *[1] * (x.dim() - 2)] if kind == "group norm" else list(given["normalized_shape"])
    )
    if weight is not None:
        result = result * weight.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    others = len(op._schema.returns) - 1
    return (result, *(x.new_zeros(()) for _ in range(others))) if others else result


def _left_out(
    run: _Run, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an operator across a cut axis, with what is removed left out."""
    across, node = run.flow.across[number], run.trace.nodes[number]
    kept = _kept(run, across.value)
    place = next(p for p, a in enumerate(node.args) if a == Ref(across.value))
    tensor: Tensor = args[place]
    for axis in across.axes:
        places = kept[axis]
        if places is None:
            continue
        if across.kind == "products":
            mask = torch.zeros(tensor.shape[axis], dtype=tensor.dtype)
            mask[places] = 1
            tensor = tensor * mask.view([-1 if a == axis else 1 for a in range(tensor.dim())])
        else:
            tensor = tensor.index_select(axis, torch.tensor(places))
    return (*args[:place], tensor, *args[place + 1 :]), kwargs


def _as_before(
    run: _Run, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the numbers of the original, where they differ; the change is noted."""
    node = run.trace.nodes[number]
    is_attention = "scaled_dot_product" in node.kind
    if is_attention:
        return _attention_as_before(run, number, args, kwargs)
    if torch.Tag.pointwise not in node.op.tags or len(args) != len(node.args):
        return args, kwargs
    if run.flow.layouts[node.outputs[0] or 0].is_uniform:
        return args, kwargs
    changed = list(args)
    for place, given in enumerate(args):
        own, old = _number(given), _number_before(run, node.args[place])
        if own is not None and old is not None and own != old and own != 0:
            changed[place] = torch.full_like(given, old) if isinstance(given, Tensor) else old
            factor = {"mul": old / own, "div": own / old}.get(node.kind, math.nan)
            run.changes.append(ScaleChange(number, factor))
    return tuple(changed), kwargs


def _number(leaf: Any) -> float | None:
    if isinstance(leaf, Tensor):
        return float(leaf) if leaf.dim() == 0 and leaf.is_floating_point() else None
    return None if isinstance(leaf, bool) or not isinstance(leaf, int | float) else leaf


def _number_before(run: _Run, leaf: Any) -> float | None:
    if not isinstance(leaf, Ref):
        return _number(leaf)
    tensor = run.trace.values[leaf.value].tensor
    is_number = tensor is not None and run.flow.layouts[leaf.value].is_uniform
    return _number(tensor) if is_number else None


def _attention_as_before(
    run: _Run, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    node = run.trace.nodes[number]
    old = arguments(node).get("scale")
    before = old if old is not None else run.trace.values[node.refs[0]].shape[-1] ** -0.5
    own = kwargs.get("scale")
    now = own if own is not None else args[0].shape[-1] ** -0.5
    if before == now:
        return args, kwargs
    run.changes.append(ScaleChange(number, before / now))
    return args, {**kwargs, "scale": before}
