"""Run a module once and write down every operator that it calls, and on what.

What is recorded is what PyTorch dispatches below autograd and functionalization: no in-place
writes to views, no composite operators, no control flow. Any Python code can be recorded, since it
is run and not compiled.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from compress.modules.inputs import Inputs
from compress.modules.outputs import as_outputs, by_name

__all__ = ["Compute", "Node", "Observe", "Ref", "Trace", "TraceFailed", "Value", "in_float64"]
__all__ += ["record"]

#: Takes the place of an operator while it is recorded: ``(node number, operator, args, kwargs)``.
Compute = Callable[[int, Any, tuple[Any, ...], dict[str, Any]], Any]
#: Called with every node once it is recorded, its number and its results.
Observe = Callable[[int, "Node", "Trace", list[Any]], None]


# A module may ask for these by name; all of it is to be as exact as its weights.
_NARROW = {torch.float32, torch.float16, torch.bfloat16}
_COPIES = {"aten::clone", "aten::contiguous", "aten::alias", "aten::detach", "aten::lift_fresh"}
_SYNONYMS = {"_unsafe_view": "view", "_reshape_alias": "view", "reshape": "view"}
_SYNONYMS |= {"view_copy": "view", "unsafe_split": "split", "unsafe_chunk": "chunk"}


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor in the arguments of a recorded operator."""

    value: int


@dataclass(frozen=True)
class Value:
    """A tensor that was seen.

    Args:
        shape: of the tensor.
        name: of the parameter or buffer that it is; empty for all others.
        is_uniform: whether it is a constant with one value everywhere, such as zeros.
        is_float: whether it has numbers that are no integers.
        tensor: itself, where it is one number, or integers: what moves other data.
    """

    shape: tuple[int, ...]
    name: str
    is_uniform: bool
    is_float: bool
    tensor: Tensor | None


@dataclass(frozen=True)
class Node:
    """One call of an operator.

    ``args`` and ``kwargs`` are those of the call with a :class:`Ref` for every tensor; ``outputs``
    are the numbers of the values that it gave, ``None`` for what is no tensor. ``module`` is the
    path of the module whose ``forward`` made the call.
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int | None, ...]
    module: str

    @property
    def kind(self) -> str:
        """The operator's name without namespace, overload and the mark of an in-place form."""
        name: str = self.op._schema.name.rpartition("::")[2]
        if self.op._schema.is_mutable and name.endswith("_"):
            name = name[:-1]
        return _SYNONYMS.get(name, name)

    @property
    def refs(self) -> list[int]:
        """Numbers of all tensors among the arguments, in order."""
        leaves = tree_flatten((self.args, self.kwargs))[0]
        return [leaf.value for leaf in leaves if isinstance(leaf, Ref)]


@dataclass
class Trace:
    """What a module did with one batch: ``outputs`` are the numbers of what it returned."""

    values: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    outputs: tuple[int, ...] = ()

    def named(self) -> dict[str, int]:
        """The value of every parameter and buffer that was used."""
        return {value.name: number for number, value in enumerate(self.values) if value.name}


class TraceFailed(Exception):
    """The module raised; ``trace`` is what it did before, ``module`` where it was."""

    def __init__(self, cause: Exception, trace: Trace, module: str) -> None:
        super().__init__(f"{type(cause).__name__}: {_first_line(cause)}")
        self.cause = cause
        self.trace = trace
        self.module = module


def record(
    module: nn.Module,
    inputs: Inputs,
    compute: Compute | None = None,
    observe: Observe | None = None,
) -> Trace:
    """What ``module`` does with ``inputs``, without gradients.

    Args:
        module: left as it was.
        inputs: one batch, of the type of the module's weights.
        compute: computes each operator in place of PyTorch.
        observe: called with every node once it is recorded.

    Raises:
        TraceFailed: the module raised something.
    """
    trace = Trace()
    path: list[str] = [""]
    recorder = _OperatorRecorder(trace, _names_of(module), path, compute, observe)
    for leaf in tree_flatten(inputs)[0]:
        recorder.add_input(leaf)

    def run(batch: Inputs) -> tuple[Tensor, ...]:
        given = module(**batch) if isinstance(batch, dict) else module(batch)
        # Of whatever holds them: what torch was not told of would keep tensors of its own.
        return tuple(by_name(as_outputs(given)).values())

    with _followed(module, path), _plain_operators():
        try:
            with recorder:
                outputs = torch.func.functionalize(run)(inputs)
        except Exception as error:
            raise TraceFailed(error, trace, path[-1]) from error
    trace.outputs = tuple(recorder.number_of(output) for output in outputs)
    return trace


def in_float64(module: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """A copy of a module in double precision, and its inputs."""

    def double(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    if isinstance(inputs, dict):
        return copy.deepcopy(module).double(), {k: double(v) for k, v in inputs.items()}
    return copy.deepcopy(module).double(), double(inputs)


class _OperatorRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(
        self,
        trace: Trace,
        names: Mapping[int, str],
        path: list[str],
        compute: Compute | None,
        observe: Observe | None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace = trace
        self._names = names
        self._path = path
        self._compute = compute
        self._observe = observe
        self._numbers: dict[int, int] = {}
        # Tensors are identified by their addresses, which are used again once one is gone.
        self._alive: dict[int, weakref.ref[Tensor]] = {}

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("dtype") in _NARROW:
            kwargs = {**kwargs, "dtype": torch.float64}
        number = len(self._trace.nodes)
        given = tree_map(self._ref, (args, kwargs))
        if self._compute is None:
            result = op(*args, **kwargs)
        else:
            result = self._compute(number, op, args, kwargs)
        if op._schema.name in _COPIES and isinstance(result, Tensor):
            # Whether a copy is made depends on strides, which are nobody's business here.
            self._alias(result, args[0])
            return result
        leaves = list(result) if isinstance(result, (tuple, list)) else [result]
        is_constant = not any(isinstance(leaf, Ref) for leaf in tree_flatten(given)[0])
        outputs = tuple(
            self._add(leaf, "", is_constant) if isinstance(leaf, Tensor) else None
            for leaf in leaves
        )
        node = Node(op, given[0], given[1], outputs, self._path[-1])
        self._trace.nodes.append(node)
        if self._observe is not None:
            self._observe(number, node, self._trace, leaves)
        return result

    def add_input(self, tensor: Tensor) -> None:
        """Take a tensor of the batch for what it is: no constant, whatever its values."""
        self._add(tensor, "", is_constant=False)

    def number_of(self, tensor: Tensor) -> int:
        """The number of a tensor; one that is met for the first time is a constant."""
        known = self._numbers.get(id(tensor))
        if known is not None:
            return known
        return self._add(tensor, self._names.get(id(tensor), ""), is_constant=True)

    def _alias(self, tensor: Tensor, source: Tensor) -> None:
        self._remember(tensor, self.number_of(source))

    def _remember(self, tensor: Tensor, number: int) -> None:
        key = id(tensor)
        self._numbers[key] = number
        if key not in self._alive:
            self._alive[key] = weakref.ref(tensor, functools.partial(self._forget, key))

    def _forget(self, key: int, reference: weakref.ref[Tensor]) -> None:
        if self._alive.get(key) is reference:
            del self._alive[key], self._numbers[key]

    def _ref(self, leaf: Any) -> Any:
        return Ref(self.number_of(leaf)) if isinstance(leaf, Tensor) else leaf

    def _add(self, tensor: Tensor, name: str, is_constant: bool) -> int:
        uniform = is_constant and not name and _is_uniform(tensor)
        number = len(self._trace.values)
        # An in-place operator returns the tensor that it was given: from here on it is another.
        is_float = tensor.is_floating_point() or tensor.is_complex()
        kept = None if is_float and tensor.numel() > 1 else tensor
        if kept is not None and is_float:
            kept = kept.clone()  # a number that may be overwritten
        self._trace.values.append(Value(tuple(tensor.shape), name, uniform, is_float, kept))
        self._remember(tensor, number)
        return number


def _names_of(module: nn.Module) -> dict[int, str]:
    # Of tied parameters the first name counts.
    named = [*module.named_parameters(), *module.named_buffers()]
    found: dict[int, str] = {}
    for name, tensor in named:
        found.setdefault(id(tensor), name)
    return found


def _is_uniform(tensor: Tensor) -> bool:
    if tensor.numel() <= 1:
        return True
    first = tensor.flatten()[:1]
    return bool(((tensor == first) | (tensor.isnan() & first.isnan())).all())


@contextlib.contextmanager
def _followed(module: nn.Module, path: list[str]) -> Iterator[None]:
    handles = []
    for name, layer in module.named_modules():

        def enter(*_: Any, name: str = name) -> None:
            path.append(name)

        def leave(*_: Any) -> None:
            path.pop()

        handles.append(layer.register_forward_pre_hook(enter))
        handles.append(layer.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _plain_operators() -> Iterator[None]:
    # The fused form of attention hides what happens to channels; recurrent layers have none in
    # double precision.
    fast = torch.backends.mha.get_fastpath_enabled()
    usual = torch.get_default_dtype()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(usual)
        torch.backends.mha.set_fastpath_enabled(fast)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
