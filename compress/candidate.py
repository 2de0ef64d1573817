"""Candidate: what flows from stage to stage.

A plain float32 module, the formats it will be computed in, and the invariants declared for it.
Nothing in it is encoded: every stage finds a module that it can trace, prune and train.

It is saved as safetensors plus JSON (:mod:`.saved`), without pickle. Which names are one tensor
(ties) is structure too: what is tied is stored once, and is one tensor again once loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.candidate_files import (
    Architecture,
    build_plain,
    check_invariants,
    lists_of,
    misfit,
    read_saved,
    restore_lists,
    restore_structure,
    restore_tensors,
    structure_of,
)
from compress.errors import CheckpointError, ContractViolation, RecipeError, StorageError
from compress.io.atomic import write_atomically
from compress.io.files import named
from compress.io.weights import (
    as_in_model,
    not_finite,
    read_safetensors,
    read_weights,
    without_prefix,
)
from compress.modules.edits import Edit, apply_edits
from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import Outputs, by_name, only
from compress.modules.parametrizations import duplicate, fold_parametrizations, masked_tensors
from compress.modules.tied import (
    buffers_of,
    check_ties,
    parameters_of,
    temporary_buffers,
    ties_among,
    ties_of,
    ties_of_equals,
    under_first_names,
)
from compress.pruning.invariants import Invariant, KeepZeros
from compress.quantization.numerics import Numerics
from compress.quoting import shown

__all__ = ["FILES", "Architecture", "Candidate", "Inputs", "count_parameters", "load_weights"]

_WEIGHTS = "weights.safetensors"
_STRUCTURE = "candidate.json"
#: What a saved candidate consists of.
FILES = (_WEIGHTS, _STRUCTURE)


@dataclass(frozen=True, eq=False)
class Candidate:
    """What flows from stage to stage.

    Args:
        module: float32, plain (no hooks, no parametrizations), in eval mode; owned by this object.
        example: one real batch of at least two samples, for tracing and shape checks.
        architecture: how to rebuild the module; ``None`` for one passed in as an object.
        numerics: the formats it will be computed in.
        invariants: what later stages keep, such as zeros.
        lineage: fingerprints of its ancestors, oldest first.
        notes: sentences that the record should show beside the row.
        outputs: names of the outputs that ship, of those that the module gives in eval mode; empty
            for all of them.
        edits: modules that stand in for others of the architecture (:mod:`compress.modules.edits`).
    """

    module: nn.Module
    example: Inputs
    architecture: Architecture | None = None
    numerics: Numerics = field(default_factory=Numerics)
    invariants: tuple[Invariant, ...] = ()
    lineage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    @classmethod
    def of(cls, module: nn.Module, example: Inputs) -> Candidate:
        """A candidate around a copy of ``module``, made float32, trainable and eval.

        Raises:
            RecipeError: that is no module, or no batch for one.
        """
        _check_given(module, example)
        own = duplicate(module).float().eval()
        masked, notes = masked_tensors(own), fold_parametrizations(own)
        invariants = (KeepZeros(tensors=masked),) if masked else ()
        own.requires_grad_(True)
        return cls(own, example, invariants=invariants, notes=tuple(notes))

    def fork(self) -> Candidate:
        """A copy whose module may be edited."""
        return replace(self, module=duplicate(self.module), notes=())

    def shipped(self, outputs: Outputs) -> Outputs:
        """Of what the module gave in eval mode, the outputs that ship, in the module's order.

        Raises:
            DataError: the module gave none of a name that is to ship.
        """
        return only(outputs, self.outputs)

    @property
    def fingerprint(self) -> str:
        """BLAKE2 over tensors, structure, ties, numerics, invariants, outputs; 32 hex digits."""
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
                ships outputs that are not finite.
            DataError: the module gives none of a name that is to ship.
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
            outputs = self.shipped(forward(self.module, self.example))
        if wrong := [name for name, one in by_name(outputs).items() if not _is_finite(one)]:
            which = f" {', '.join(map(repr, wrong))}" if isinstance(outputs, dict) else ""
            raise ContractViolation(f"the model's outputs{which} on the example are not finite.")

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
        facts = {"lists": lists_of(self.module), "ties": ties, "temporary": list(temporary)}
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
        saved = read_saved(source)
        module = build_plain(build, saved.architecture, source)
        apply_edits(module, saved.edits, source, CheckpointError)
        structure, lists, ties = saved.structure, saved.lists, saved.ties
        temporary = saved.temporary
        restore_structure(module, structure, source)
        restore_lists(module, lists)
        # Buffers that a module makes while it runs are not there yet, and it makes them again.
        absent = temporary - buffers_of(module).keys()
        stored = read_safetensors(folder / _WEIGHTS)
        tensors = {name: tensor for name, tensor in stored.items() if name not in absent}
        if ties is None:
            ties = ties_of_equals(module, tensors)
        else:
            ties = tuple(names for names in ties if names and not absent & {*names})
            check_ties(module, ties, source)
        restore_tensors(module, under_first_names(tensors, ties), ties, folder / _WEIGHTS)
        check_invariants(saved.invariants, module, source)
        module.eval().requires_grad_(True)
        numerics, invariants = Numerics(saved.numerics), saved.invariants
        described = (numerics, invariants, saved.lineage, saved.notes, saved.outputs, saved.edits)
        return cls(module, example, saved.architecture, *described)

    def _describe(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "architecture": self.architecture.model_dump() if self.architecture else None,
            "structure": structure_of(self.module),
            "numerics": [rule.model_dump(mode="json") for rule in self.numerics.rules],
            "invariants": [invariant.model_dump(mode="json") for invariant in self.invariants],
            # The order of outputs says nothing; fingerprints of before have neither key.
            **({"outputs": sorted(self.outputs)} if self.outputs else {}),
            **({"edits": [edit.model_dump() for edit in self.edits]} if self.edits else {}),
        }


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Number of parameters, tied ones counted once, and how many of them are not zero."""
    tensors = [p.detach() for p in module.parameters()]
    return sum(t.numel() for t in tensors), sum(int(torch.count_nonzero(t)) for t in tensors)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file of weights into ``module``, strictly; one name of a tied tensor is enough.

    The file is safetensors, or what ``torch.save`` wrote of a ``state_dict``. Floats of another
    precision become those of the module.

    Raises:
        CheckpointError: no such file, a damaged one or one that needs code, names, shapes or dtypes
            that do not fit, values that are not finite, or two tensors where the module has one.
    """
    own, temporary = module.state_dict(), temporary_buffers(module)
    given = without_prefix(read_weights(path), [*own, *temporary])
    # A saved candidate also has buffers that are not persistent; the module keeps its own.
    tensors = {name: tensor for name, tensor in given.items() if name not in temporary}
    ties = ties_of(module)
    for names in ties:
        tensors |= _once(names, tensors, own, path)
    if problem := misfit({k: tuple(v.shape) for k, v in own.items()}, tensors):
        raise CheckpointError(f"{named(path)}: the weights do not fit the model: {problem}.")
    tensors = as_in_model(path, tensors, own)
    if problem := not_finite(tensors, parameters_of(module)):
        raise CheckpointError(f"{named(path)}: {problem}; give weights that are all finite.")
    module.load_state_dict(tensors)


def _once(
    names: Sequence[str], tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """A tied tensor under all its names, from those that the file has."""
    there = [name for name in names if name in tensors]
    shapes = {own[name].shape for name in names if name in own}

    def is_first(name: str) -> bool:
        first, other = tensors[there[0]], tensors[name]
        # Of a shape that is not the model's it may be larger than memory, and is refused later.
        fits = other.shape in shapes
        return first.shape == other.shape and (not fits or torch.equal(first, other))

    if others := [name for name in there if not is_first(name)]:
        raise CheckpointError(
            f"{named(path)}: {there[0]!r} and {others[0]!r} differ, and are one tensor in the "
            "model; leave the wrong one out, or build the model untied."
        )
    return {name: tensors[there[0]] for name in names if there and name in own}


def _check_given(module: object, example: object) -> None:
    if not isinstance(module, nn.Module):
        raise RecipeError(f"a candidate is made of an nn.Module; got {shown(module)}.")
    parts = example.values() if isinstance(example, Mapping) else [example]
    if not parts or not all(isinstance(part, Tensor) and part.dim() > 0 for part in parts):
        raise RecipeError(
            "the example of a candidate is a batch of inputs, a tensor or a dictionary of tensors; "
            f"got {shown(example)}."
        )


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _not_plain(layer: nn.Module) -> str:
    if torch.nn.utils.parametrize.is_parametrized(layer):
        return "has parametrizations"
    if any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)):
        return "has hooks"
    if layer.training:
        return "is in training mode"
    return ""
