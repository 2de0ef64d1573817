"""A candidate some of whose modules now stand in for others, with what is declared of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from compress.candidate import Candidate, count_parameters
from compress.config.selectors import named
from compress.errors import StageError
from compress.modules.edits import Edit, with_edit
from compress.modules.tied import parameters_of, ties_of
from compress.pruning.blocks import output_shapes
from compress.pruning.invariants import carried_to
from compress.quantization.fakequant import layers_with_formats

__all__ = ["edited"]


def edited(before: Candidate, module: nn.Module, edits: Iterable[Edit]) -> Candidate:
    """The candidate of an edited module, checked, with formats and zeros of what is still there.

    A note says which of them end.

    Args:
        before: is left as it was.
        module: a copy of its module, to which ``edits`` were made.
        edits: the new ones.

    Raises:
        StageError: the outputs have other shapes, or there are not fewer parameters.
    """
    new = tuple(edits)
    _check(before, module)
    notes: list[str] = []
    layers = layers_with_formats(module)
    # Of what is gone, and of what has other rows and columns now.
    clipped = {rule.select[0] for rule in before.numerics.clip_rules}
    unclipped = before.numerics.without_clips(_gone(before.module, module))
    if lost := clipped - {rule.select[0] for rule in unclipped.clip_rules}:
        notes.append(f"learned clips of {named(sorted(lost))} end here: their weights are gone")
    numerics, dropped = unclipped.matching(layers)
    notes += [f"formats for {pattern!r} end here: no such layer" for pattern in dropped]
    known = parameters_of(module)
    invariants = carried_to(before.invariants, known, _other_names(before.module, known))
    zeros = [n for one in before.invariants for n in one.tensors if n not in known]
    if zeros:
        notes.append(f"kept zeros of {named(zeros)} end here: they are gone")
    carried = before.edits
    for edit in new:
        carried = with_edit(carried, edit)
    return replace(
        before,
        module=module,
        numerics=numerics,
        invariants=invariants,
        edits=carried,
        notes=tuple(notes),
    )


def _check(before: Candidate, module: nn.Module) -> None:
    old, new = (output_shapes(one, before.example) for one in (before.module, module))
    if old != new:
        raise StageError(
            f"prune: the outputs were {_shown(old)} and are {_shown(new)} now; name what is not to "
            "be removed with ignore."
        )
    fewer = count_parameters(module)[0] < count_parameters(before.module)[0]
    if not fewer:
        raise StageError(
            "prune: as many parameters are left as there were, since what was removed shares them "
            "with others; name it with ignore."
        )


def _shown(shapes: Mapping[str, tuple[Any, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, (shape, _) in shapes.items())


def _gone(before: nn.Module, after: nn.Module) -> list[str]:
    left = layers_with_formats(after)
    return [name for name in layers_with_formats(before) if name not in left]


def _other_names(before: nn.Module, known: Mapping[str, Any]) -> dict[str, str]:
    """A name that is left for each that is gone, of tied parameters."""
    found: dict[str, str] = {}
    for names in ties_of(before):
        left = [name for name in names if name in known]
        found |= {name: left[0] for name in names if left and name not in known}
    return found
