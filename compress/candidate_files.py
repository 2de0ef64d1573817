"""Saved: what is written of a candidate beside its weights, and how a module becomes that again.

The JSON names the architecture and lists the integer attributes of every submodule (channels,
groups, heads, ...). A freshly built module of that architecture is edited and reshaped by it. A
file may be a stranger's: only what the module already has is set, and every tensor has the dtype of
its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError
from torch import Tensor, nn

from compress.config.settings import Settings
from compress.errors import CheckpointError, CompressError
from compress.io.files import named, read_json
from compress.modules.edits import Edit
from compress.modules.parametrizations import fold_parametrizations
from compress.modules.tied import Ties, buffers_of, parameters_of, under_first_names
from compress.pruning.invariants import Invariant
from compress.quantization.numerics import QuantRule

__all__ = [
    "Architecture",
    "Lists",
    "SavedCandidate",
    "build_plain",
    "check_invariants",
    "lists_of",
    "misfit",
]
__all__ += ["read_saved", "restore_lists", "restore_structure", "restore_tensors", "structure_of"]

_MOST_BYTES = 64 << 20
_MOST_INTEGER = 2**53
_MOST_EDITS = 10_000

#: Lists of integers, by submodule and attribute.
Lists = dict[str, dict[str, list[StrictInt]]]


class Architecture(Settings):
    """How to build the module from nothing: a built-in name or ``module:name``, and its options.

    ``blocks``: which of its repeated blocks are kept
    (:func:`compress.pruning.depth.keep_blocks`); ``None`` for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str
    options: dict[str, Any] = Field(default={})
    blocks: tuple[int, ...] | None = None

    def keeping(self, blocks: Sequence[int]) -> Architecture:
        """This with only some of the blocks that it still has, counted from 0."""
        kept = tuple(blocks if self.blocks is None else (self.blocks[place] for place in blocks))
        return self.model_copy(update={"blocks": kept})


class SavedCandidate(BaseModel):
    """What ``candidate.json`` says; older files lack what has a default."""

    model_config = ConfigDict(frozen=True)

    architecture: Architecture | None
    numerics: tuple[QuantRule, ...]
    invariants: tuple[Invariant, ...]
    structure: dict[str, dict[str, StrictInt | list[StrictInt]]]
    lineage: tuple[str, ...]
    notes: tuple[str, ...]
    lists: Lists = {}
    ties: Ties | None = None
    temporary: frozenset[str] = frozenset()
    outputs: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = Field(default=(), max_length=_MOST_EDITS)


def read_saved(source: Path) -> SavedCandidate:
    """What a ``candidate.json`` says.

    Raises:
        CheckpointError: no such file, or a damaged or a foreign one.
    """
    stored = read_json(source, _MOST_BYTES, CheckpointError, finite=False)
    try:
        return SavedCandidate.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(
            f"{named(source)}: not a saved candidate ({named(where)}: {named(first['msg'])})."
        ) from error


def build_plain(
    build: Callable[[Architecture | None], nn.Module],
    architecture: Architecture | None,
    source: Path,
) -> nn.Module:
    """The module that ``build`` makes of a stored architecture, made plain.

    Raises:
        CheckpointError: it cannot be built with the options that ``source`` says.
    """
    try:
        module = build(architecture)
        fold_parametrizations(module)
    except CompressError:
        raise
    except Exception as error:  # whatever a class thinks of options that it never gave
        raise CheckpointError(
            f"{named(source)}: its architecture cannot be built ({named(error)})."
        ) from error
    return module


def check_invariants(invariants: Sequence[Invariant], module: nn.Module, source: Path) -> None:
    """Hold the invariants of a file to what the module has.

    Raises:
        CheckpointError: they name no parameter of it, or a pattern that is none.
    """
    known = parameters_of(module)
    for invariant in invariants:
        unknown = [name for name in invariant.tensors if name not in known]
        if unknown or not invariant.is_known:
            what = f"of {named(unknown[0])!r}" if unknown else f"{named(invariant.pattern)!r}"
            raise CheckpointError(
                f"{named(source)}: it declares zeros {what}, which this architecture cannot have."
            )


def misfit(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> str:
    """How the tensors differ from what there should be, in words; empty if they do not."""
    missing = [name for name in shapes if name not in tensors]
    unexpected = [name for name in tensors if name not in shapes]
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, the model has {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    parts = [
        f"{what} {', '.join(map(named, names[:3]))}{' and more' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("shape", wrong))
        if names
    ]
    return "; ".join(parts)


def _attributes(module: nn.Module, wanted: Callable[[Any], bool]) -> dict[str, dict[str, Any]]:
    found = {
        name: {k: v for k, v in vars(layer).items() if not k.startswith("_") and wanted(v)}
        for name, layer in module.named_modules()
    }
    return {name: attributes for name, attributes in found.items() if attributes}


def structure_of(module: nn.Module) -> dict[str, dict[str, int | tuple[int, ...]]]:
    """The integers that every submodule has as attributes, and tuples of them."""

    def wanted(value: Any) -> bool:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer or (isinstance(value, tuple) and value != () and _are_integers(value))

    return _attributes(module, wanted)


def lists_of(module: nn.Module) -> Lists:
    """The lists of integers that every submodule has as attributes."""
    return _attributes(module, lambda value: type(value) is list and _are_integers(value))


def _are_integers(values: Sequence[Any]) -> bool:
    return all(type(value) is int for value in values)


def restore_structure(
    module: nn.Module, structure: Mapping[str, Mapping[str, int | list[int]]], source: Path
) -> None:
    """Set the integers of the submodules.

    Raises:
        CheckpointError: they are of another architecture.
    """
    # Only integers that the built module already has are set: a stranger's file cannot add state.
    current = structure_of(module)
    if structure.keys() != current.keys():
        raise CheckpointError(f"{named(source)}: the saved structure is of another architecture.")
    for name, attributes in structure.items():
        for key, value in attributes.items():
            new = tuple(value) if isinstance(value, list) else value
            own = current[name].get(key)
            parts = new if isinstance(new, tuple) else (new,)
            kind = tuple if isinstance(own, tuple) else type(own)
            if (
                own is None
                or type(new) is not kind
                or max(map(abs, parts), default=0) > _MOST_INTEGER
            ):
                raise CheckpointError(
                    f"{named(source)}: {named(name)}.{named(key)} is not part of this architecture."
                )
            setattr(module.get_submodule(name), key, new)


def restore_lists(module: nn.Module, lists: Lists) -> None:
    """Set those lists of the submodules that they have."""
    # What the built module lacks is not set: it makes it while it runs, or a stranger added it.
    for name, attributes in lists_of(module).items():
        for key in attributes.keys() & lists.get(name, {}).keys():
            setattr(module.get_submodule(name), key, lists[name][key])


def restore_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], ties: Ties, source: Path
) -> None:
    """Set the parameters and buffers, each tie once, in the shapes that the file has.

    Raises:
        CheckpointError: other names, numbers of axes or dtypes than the module's.
    """
    lasting = module.state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, own in under_first_names(lasting | buffers_of(module), ties).items():
        if name in tensors or name in lasting:
            stored = tensors.get(name, own)
            shapes[name] = tuple((stored if stored.dim() == own.dim() else own).shape)
    if problem := misfit(shapes, tensors):
        raise CheckpointError(
            f"{named(source)}: the weights do not fit the saved structure: {problem}."
        )
    names_of, parameters = {names[0]: names for names in ties}, parameters_of(module)
    _check_dtypes(tensors, parameters, buffers_of(module), source)
    for name, tensor in tensors.items():
        held = nn.Parameter(tensor.clone()) if name in parameters else tensor.clone()
        for path, _, leaf in (each.rpartition(".") for each in names_of.get(name, (name,))):
            owner = module.get_submodule(path)
            places: dict[str, Any] = owner._parameters if name in parameters else owner._buffers
            places[leaf] = held


def _check_dtypes(
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    source: Path,
) -> None:
    # A stage may have made a buffer of other floats.
    for name, tensor in tensors.items():
        wanted = torch.float32 if name in parameters else buffers[name].dtype
        both_float = tensor.is_floating_point() and wanted.is_floating_point
        if tensor.dtype != wanted and (name in parameters or not both_float):
            raise CheckpointError(
                f"{named(source)}: {named(name)!r} is {str(tensor.dtype).removeprefix('torch.')} "
                f"and the model has {str(wanted).removeprefix('torch.')}; copy the file again."
            )
