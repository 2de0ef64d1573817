"""Candidate: what flows from stage to stage.

A plain float32 module, the formats it will be computed in, and the promises made about it. Nothing
in it is encoded: every stage finds a module that it can trace, prune and train.

It is saved as safetensors plus JSON, without pickle. The JSON names the architecture and lists the
integer attributes of every submodule (channels, groups, heads, ...), from which a pruned structure
is rebuilt around a freshly built module of that architecture. Which names are one tensor (ties) is
structure too: what is tied is stored once, and is one tensor again once loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from compress.errors import CheckpointError, ContractViolation, StorageError
from compress.inputs import Inputs, forward
from compress.invariants import Invariant, KeepZeros
from compress.numerics import Numerics, QuantRule
from compress.plain import duplicate, masked_tensors, plain
from compress.record import write_atomically
from compress.ties import (
    Ties,
    buffers_of,
    check_ties,
    parameters_of,
    temporary_buffers,
    ties_among,
    ties_of,
    ties_of_equals,
    under_first_names,
)

__all__ = ["FILES", "Architecture", "Candidate", "Inputs", "count_parameters", "load_weights"]

_WEIGHTS = "weights.safetensors"
_STRUCTURE = "candidate.json"
#: What a saved candidate consists of.
FILES = (_WEIGHTS, _STRUCTURE)

_Lists = dict[str, dict[str, list[int]]]


class Architecture(BaseModel):
    """How to build the module from nothing: a built-in name or ``module:name``, and its options.

    ``blocks``: which of its repeated blocks are kept
    (:func:`compress.algorithms.depth.keep_blocks`); ``None`` for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str
    options: dict[str, Any] = {}
    blocks: tuple[int, ...] | None = None

    def keeping(self, blocks: Sequence[int]) -> Architecture:
        """This with only some of the blocks that it still has, counted from 0."""
        kept = tuple(blocks if self.blocks is None else (self.blocks[place] for place in blocks))
        return self.model_copy(update={"blocks": kept})


@dataclass(frozen=True, eq=False)
class Candidate:
    """What flows from stage to stage.

    Args:
        module: float32, plain (no hooks, no parametrisations), in eval mode; owned by this object.
        example: one real batch of at least two samples, for tracing and shape checks.
        architecture: how to rebuild the module; ``None`` for one passed in as an object.
        numerics: the formats it will be computed in.
        invariants: promises that later stages keep.
        lineage: fingerprints of its ancestors, oldest first.
        notes: sentences that the record should show beside the row.
    """

    module: nn.Module
    example: Inputs
    architecture: Architecture | None = None
    numerics: Numerics = field(default_factory=Numerics)
    invariants: tuple[Invariant, ...] = ()
    lineage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, module: nn.Module, example: Inputs) -> Candidate:
        """A candidate around a copy of ``module``, made float32, trainable and eval."""
        own = duplicate(module).float().eval()
        masked, notes = masked_tensors(own), plain(own)
        promises = (KeepZeros(tensors=masked),) if masked else ()
        own.requires_grad_(True)
        return cls(own, example, invariants=promises, notes=tuple(notes))

    def fork(self) -> Candidate:
        """A copy whose module may be edited."""
        return replace(self, module=duplicate(self.module), notes=())

    @property
    def fingerprint(self) -> str:
        """BLAKE2 over sorted tensors, structure, ties, numerics and invariants; 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        # Ties of buffers do not count: moving a module to another device unties them.
        ties = sorted(sorted(names) for names in ties_among(parameters_of(self.module)))
        facts = self._describe() | ({"ties": ties} if ties else {})
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return digest.hexdigest()

    def validate(self) -> None:
        """Check that the candidate is what every stage may count on.

        Raises:
            ContractViolation: the module is not plain, not float32, frozen, in training mode, or
                gives outputs that are not finite.
        """
        for name, layer in self.module.named_modules():
            if problem := _not_plain(layer):
                raise ContractViolation(
                    f"the module {name or 'itself'!r} {problem}; a candidate's module is plain."
                )
        for name, parameter in self.module.named_parameters():
            if parameter.dtype != torch.float32 or not parameter.requires_grad:
                state = "frozen" if parameter.dtype == torch.float32 else str(parameter.dtype)
                raise ContractViolation(
                    f"the parameter {name!r} is {state}; a candidate's parameters are float32 "
                    "and trainable."
                )
        with torch.no_grad():
            outputs = forward(self.module, self.example)
        if not bool(torch.isfinite(outputs).all()):
            raise ContractViolation("the model's outputs on the example are not finite.")

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``candidate.json`` to ``folder``; the JSON last.

        Raises:
            StorageError: the disk refused.
        """
        from safetensors.torch import save

        ties, temporary = ties_of(self.module), temporary_buffers(self.module)
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in under_first_names(
                self.module.state_dict() | temporary, ties
            ).items()
        }
        path = folder / _WEIGHTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(save(tensors))
        except OSError as error:
            raise StorageError(
                f"{path}: could not be written ({error.strerror or error}); earlier stages are "
                "intact. Free space or choose another --out."
            ) from error
        facts = {"lists": _lists(self.module), "ties": ties, "temporary": list(temporary)}
        facts |= {"notes": self.notes, "lineage": self.lineage}
        write_atomically(folder / _STRUCTURE, json.dumps(self._describe() | facts))

    @classmethod
    def load(
        cls, folder: Path, example: Inputs, build: Callable[[Architecture | None], nn.Module]
    ) -> Candidate:
        """Read what :meth:`save` wrote; ``build`` makes the module that is then reshaped.

        Raises:
            CheckpointError: a missing, damaged or foreign file.
        """
        source = folder / _STRUCTURE
        try:
            stored = json.loads(source.read_text(encoding="utf-8"))
            spec = stored["architecture"]
            architecture = Architecture.model_validate(spec) if spec else None
            rules = TypeAdapter(tuple[QuantRule, ...]).validate_python(stored["numerics"])
            promises = TypeAdapter(tuple[Invariant, ...]).validate_python(stored["invariants"])
            structure, lineage = stored["structure"], tuple(stored["lineage"])
            notes = tuple(stored["notes"])
            # Older files say nothing of these.
            lists = TypeAdapter(_Lists).validate_python(stored.get("lists", {}))
            ties = TypeAdapter(Ties | None).validate_python(stored.get("ties"))
            temporary = TypeAdapter(set[str]).validate_python(stored.get("temporary", []))
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CheckpointError(f"{source}: not a saved candidate ({error}).") from error
        module = build(architecture)
        plain(module)
        _restore_structure(module, structure, source)
        _restore_lists(module, lists)
        # Buffers that a module makes while it runs are not there yet, and it makes them again.
        absent = temporary - buffers_of(module).keys()
        tensors = {k: v for k, v in _read_tensors(folder / _WEIGHTS).items() if k not in absent}
        if ties is None:
            ties = ties_of_equals(module, tensors)
        else:
            ties = tuple(names for names in ties if names and not absent & {*names})
            check_ties(module, ties, source)
        _restore_tensors(module, under_first_names(tensors, ties), ties, folder / _WEIGHTS)
        module.eval().requires_grad_(True)
        return cls(module, example, architecture, Numerics(rules), promises, lineage, notes)

    def _describe(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "architecture": self.architecture.model_dump() if self.architecture else None,
            "structure": _structure(self.module),
            "numerics": [rule.model_dump(mode="json") for rule in self.numerics.rules],
            "invariants": [promise.model_dump(mode="json") for promise in self.invariants],
        }


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Number of parameters, tied ones counted once, and how many of them are not zero."""
    tensors = [p.detach() for p in module.parameters()]
    return sum(t.numel() for t in tensors), sum(int(torch.count_nonzero(t)) for t in tensors)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into ``module``, strictly; one name of a tied tensor is enough.

    Raises:
        CheckpointError: no such file, not safetensors, names or shapes that do not fit, or two
            tensors where the module has one.
    """
    own, temporary = module.state_dict(), temporary_buffers(module)
    # A saved candidate also has buffers that are not persistent; the module keeps its own.
    tensors = {name: t for name, t in _read_tensors(path).items() if name not in temporary}
    for names in ties_of(module):
        there = [name for name in names if name in tensors]
        if others := [n for n in there if not torch.equal(tensors[n], tensors[there[0]])]:
            raise CheckpointError(
                f"{path}: {there[0]!r} and {others[0]!r} differ, and are one tensor in the model; "
                "leave the wrong one out, or build the model untied."
            )
        tensors |= {name: tensors[there[0]] for name in names if there and name in own}
    if problem := _misfit({k: tuple(v.shape) for k, v in own.items()}, tensors):
        raise CheckpointError(f"{path}: the weights do not fit the model: {problem}.")
    module.load_state_dict(tensors)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file.") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); pickled checkpoints are not "
            "loaded, since they can run code: save with safetensors.torch.save_file."
        ) from error


def _misfit(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> str:
    missing = [name for name in shapes if name not in tensors]
    unexpected = [name for name in tensors if name not in shapes]
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, the model has {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    parts = [
        f"{what} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("shape", wrong))
        if names
    ]
    return "; ".join(parts)


def _not_plain(layer: nn.Module) -> str:
    if torch.nn.utils.parametrize.is_parametrized(layer):
        return "has parametrisations"
    if any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)):
        return "has hooks"
    if layer.training:
        return "is in training mode"
    return ""


def _attributes(module: nn.Module, wanted: Callable[[Any], bool]) -> dict[str, dict[str, Any]]:
    found = {
        name: {k: v for k, v in vars(layer).items() if not k.startswith("_") and wanted(v)}
        for name, layer in module.named_modules()
    }
    return {name: attributes for name, attributes in found.items() if attributes}


def _structure(module: nn.Module) -> dict[str, dict[str, int | tuple[int, ...]]]:
    def wanted(value: Any) -> bool:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer or (isinstance(value, tuple) and value != () and _are_integers(value))

    return _attributes(module, wanted)


def _lists(module: nn.Module) -> _Lists:
    return _attributes(module, lambda value: type(value) is list and _are_integers(value))


def _are_integers(values: Sequence[Any]) -> bool:
    return all(type(value) is int for value in values)


def _restore_structure(module: nn.Module, structure: Any, source: Path) -> None:
    # Only integers that the built module already has are set: a stranger's file cannot add state.
    current = _structure(module)
    if not isinstance(structure, dict) or structure.keys() != current.keys():
        raise CheckpointError(f"{source}: the saved structure is of another architecture.")
    for name, attributes in structure.items():
        for key, value in attributes.items():
            new = tuple(value) if isinstance(value, list) and _are_integers(value) else value
            own = current[name].get(key)
            if own is None or type(new) is not (tuple if isinstance(own, tuple) else type(own)):
                raise CheckpointError(f"{source}: {name}.{key} is not part of this architecture.")
            setattr(module.get_submodule(name), key, new)


def _restore_lists(module: nn.Module, lists: _Lists) -> None:
    # What the built module lacks is not set: it makes it while it runs, or a stranger added it.
    for name, attributes in _lists(module).items():
        for key in attributes.keys() & lists.get(name, {}).keys():
            setattr(module.get_submodule(name), key, lists[name][key])


def _restore_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], ties: Ties, source: Path
) -> None:
    lasting = module.state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, own in under_first_names(lasting | buffers_of(module), ties).items():
        if name in tensors or name in lasting:
            stored = tensors.get(name, own)
            shapes[name] = tuple((stored if stored.dim() == own.dim() else own).shape)
    if problem := _misfit(shapes, tensors):
        raise CheckpointError(f"{source}: the weights do not fit the saved structure: {problem}.")
    names_of, parameters = {names[0]: names for names in ties}, parameters_of(module)
    for name, tensor in tensors.items():
        held = nn.Parameter(tensor.clone()) if name in parameters else tensor.clone()
        for path, _, leaf in (each.rpartition(".") for each in names_of.get(name, (name,))):
            owner = module.get_submodule(path)
            places: dict[str, Any] = owner._parameters if name in parameters else owner._buffers
            places[leaf] = held
