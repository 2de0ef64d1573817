"""Whole blocks: which of a net's may be skipped, and which of them its outputs miss least.

Knows nothing of architectures: a block is a module that stands in a row with others
(``ModuleList``, ``Sequential``), has parameters and modules of its own, and gives a tensor like the
one that it takes. Blocks are ranked by what skipping each does to the outputs, as in Sajjad et al.
2023, "On the effect of dropping layers of pre-trained transformer models", Men et al. 2024,
"ShortGPT", and Gromov et al. 2024, "The unreasonable ineffectiveness of the deeper layers"; not by
what goes in and out of a block alone, but at the end of the net, and anew once one is gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.config.selectors import named
from compress.modules.edits import Skip, SkippedBlock, first_argument, modules_of, put, put_for_now
from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import by_name
from compress.modules.tied import parameters_of
from compress.quantization.sensitivity import relative_error

__all__ = ["BlockOrder", "Blocks", "Simulation", "find_blocks", "output_shapes"]

#: Makes a net ready to be compared: what it gives is the outputs of the net as it is when called.
Simulation = Callable[[nn.Module], Callable[[], Mapping[str, Tensor]]]

_ROWS = (nn.ModuleList, nn.Sequential)
_LONGEST_REASON = 100


@dataclass(frozen=True)
class Blocks:
    """The blocks of a net.

    Args:
        able: those that may go, in the order of the net.
        unable: those that may not, by the reason.
        spare: how many of each row may go, by the path of the row.
    """

    able: tuple[Skip, ...]
    unable: Mapping[str, Sequence[str]]
    spare: Mapping[str, int]

    @property
    def most(self) -> int:
        """How many may go at most."""
        rows = [row_of(skip.path) for skip in self.able]
        return sum(min(rows.count(row), self.spare[row]) for row in set(rows))

    def number(self, ratio: float) -> int:
        """How many are the share ``ratio`` of those that may go; of two as near, the smaller."""
        return min(self.most, math.ceil(ratio * len(self.able) - 0.5))

    @property
    def why_not(self) -> str:
        """Which blocks may not go, and why; empty where all may."""
        return "; ".join(f"{named(paths)} ({reason})" for reason, paths in self.unable.items())


def row_of(path: str) -> str:
    """The path of the row in which the block at ``path`` stands."""
    return path.rpartition(".")[0]


@torch.no_grad()
def find_blocks(module: nn.Module, example: Inputs, ignored: Collection[str] = ()) -> Blocks:
    """The blocks of a net, found by running it: whole, and without each of them.

    Args:
        module: in eval mode; is left as it was, but for what its own forward keeps.
        example: one batch.
        ignored: paths of modules and parameters that stay; a block that has one of them stays.
    """
    return _Finder(module, example, frozenset(ignored)).found()


def output_shapes(module: nn.Module, example: Inputs) -> dict[str, tuple[Any, ...]]:
    """Shape and type of every output, by name."""
    outputs = by_name(forward(module, example))
    return {name: (tuple(one.shape), one.dtype) for name, one in outputs.items()}


@dataclass(frozen=True)
class _Finder:
    module: nn.Module
    example: Inputs
    ignored: frozenset[str]
    unable: dict[str, list[str]] = field(default_factory=dict)
    # Of each block, what there was to say of each call, and whether it gave a tuple.
    _calls: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)

    def found(self) -> Blocks:
        rows = {name: row for name, row in modules_of(self.module).items() if _is_row(row)}
        rows |= {"": self.module} if _is_row(self.module) else {}
        blocks = {row: _blocks_in(row, layer) for row, layer in rows.items()}
        self._calls.update({path: [] for row in blocks.values() for path in row})
        whole = self._watched_run()
        able = self._below("", self.module, {row: len(inside) for row, inside in blocks.items()})
        able = [skip for skip in able if self._runs_without(skip, whole)]
        # What does not go stays beside what does: one block of a row at least does the work.
        spare = {row: len(inside) - 1 for row, inside in blocks.items()}
        return Blocks(tuple(able), self.unable, spare)

    def _watched_run(self) -> dict[str, tuple[Any, ...]]:
        layers = modules_of(self.module)
        handles = [
            layers[path].register_forward_hook(_listener(calls), with_kwargs=True)
            for path, calls in self._calls.items()
        ]
        try:
            return output_shapes(self.module, self.example)
        finally:
            for handle in handles:
                handle.remove()

    def _below(self, path: str, layer: nn.Module, lengths: Mapping[str, int]) -> list[Skip]:
        """The outermost blocks below ``path`` that take and give the same; notes the others."""
        found: list[Skip] = []
        for name, child in layer.named_children():
            where = f"{path}.{name}" if path else name
            if where not in self._calls:
                found += self._below(where, child, lengths)
                continue
            reason = self._reason(where)
            if not reason and lengths[path] > 1:
                found.append(Skip(path=where, as_tuple=self._calls[where][0][1]))
                continue
            # A block that stands alone does all the work of its row: look for smaller ones in it.
            stays = reason == _IGNORED
            inside = [] if stays else self._below(where, child, lengths)
            found += inside
            if not inside:
                self._note(reason or "it is the only block of its row", where)
        return found

    def _reason(self, path: str) -> str:
        """Why a block may not go, as far as it can be told without trying."""
        if any(one == path or one.startswith(f"{path}.") for one in self.ignored):
            return _IGNORED
        calls = self._calls[path]
        if not calls:
            return "inference does not call it"
        if problem := next((problem for problem, _ in calls if problem), ""):
            return problem
        if len({as_tuple for _, as_tuple in calls}) > 1:
            return "it gives a tensor at one time, and a tuple at another"
        names: dict[int, list[str]] = {}
        for name, tensor in parameters_of(self.module).items():
            names.setdefault(id(tensor), []).append(name)
        own = [
            all(name.startswith(f"{path}.") for name in names[id(tensor)])
            for tensor in self.module.get_submodule(path).parameters()
        ]
        return "" if any(own) else "all of its weights are those of others, too"

    def _runs_without(self, skip: Skip, whole: Mapping[str, tuple[Any, ...]]) -> bool:
        calls: list[tuple[str, bool]] = []
        with put_for_now(self.module, skip.path, SkippedBlock(skip.as_tuple)) as block:
            handle = block.register_forward_hook(_listener(calls), with_kwargs=True)
            try:
                shapes = output_shapes(self.module, self.example)
            except Exception as error:  # every net has its own way to say so
                self._note(f"the model fails without it: {_first_line(error)}", skip.path)
                return False
            finally:
                handle.remove()
        if calls:
            self._note("the model calls it from somewhere else, too", skip.path)
        elif shapes != whole:
            self._note("without it the outputs have another shape", skip.path)
        return not calls and shapes == whole

    def _note(self, reason: str, path: str) -> None:
        self.unable.setdefault(reason, []).append(path)


_IGNORED = "to be ignored"


@dataclass
class BlockOrder:
    """The order in which blocks go: each time the one whose removal moves the outputs least.

    Args:
        net: is edited: those that have gone are skipped in it.
        blocks: of the net.
        simulation: of the net, as it computes.
    """

    net: nn.Module
    blocks: Blocks
    simulation: Simulation
    gone: list[tuple[Skip, float]] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)
    _expected: Mapping[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def first(self, number: int) -> list[tuple[Skip, float]]:
        """The first ones to go, each with the disturbance once it and those before are gone.

        It is the mean squared error of the outputs over their variance, against those of the whole
        net. There may be fewer than ``number``, where the model fails without more.
        """
        while len(self.gone) < number and self._take_next():
            pass
        return self.gone[:number]

    def _take_next(self) -> bool:
        outputs = self.simulation(self.net)
        self._expected = self._expected or outputs()
        errors = [(self._error(skip, outputs), skip) for skip in self._left()]
        able = [(error, skip) for error, skip in errors if error is not None]
        if not able:
            return False
        error, best = min(able, key=lambda one: one[0])  # of equal ones the first of the net
        put(self.net, best.path, SkippedBlock(best.as_tuple))
        self.gone.append((best, error))
        return True

    def _left(self) -> Iterator[Skip]:
        done = [skip.path for skip, _ in self.gone]
        for skip in self.blocks.able:
            row = row_of(skip.path)
            spare = self.blocks.spare[row] > sum(row_of(path) == row for path in done)
            if spare and skip.path not in (*done, *self.failing):
                yield skip

    def _error(self, skip: Skip, outputs: Callable[[], Mapping[str, Tensor]]) -> float | None:
        with put_for_now(self.net, skip.path, SkippedBlock(skip.as_tuple)):
            try:
                error = relative_error(self._expected, outputs())
            except Exception:  # together with those that are gone, or on other data
                self.failing.append(skip.path)
                return None
        return error if math.isfinite(error) else math.inf


def _is_row(layer: nn.Module) -> bool:
    return isinstance(layer, _ROWS)


def _blocks_in(path: str, row: nn.Module) -> list[str]:
    return [
        f"{path}.{name}" if path else name
        for name, child in row.named_children()
        if any(child.children()) and any(True for _ in child.parameters())
    ]


def _listener(calls: list[tuple[str, bool]]) -> Callable[..., None]:
    """A hook that notes of each call why the module may not go, and whether it gave a tuple."""

    def hook(_: nn.Module, given: tuple[Any, ...], named_: dict[str, Any], gave: Any) -> None:
        as_tuple = type(gave) is tuple and len(gave) == 1
        after, before = gave[0] if as_tuple else gave, first_argument(given, named_)
        if not isinstance(after, Tensor):
            problem = "it gives more than a tensor"
        elif before is None or (before.shape, before.dtype) != (after.shape, after.dtype):
            problem = "it gives a tensor of another shape than it takes"
        else:
            problem = ""
        calls.append((problem, as_tuple))

    return hook


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {line}"[:_LONGEST_REASON]
