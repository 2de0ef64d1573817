"""Candidate: what flows from stage to stage.

A plain float32 module, the formats it will be computed in, and the promises made about it. Nothing
in it is encoded: every stage finds a module that it can trace, prune and train.

It is saved as safetensors plus JSON, without pickle. The JSON names the architecture and lists the
integer attributes of every submodule (channels, groups, heads, ...), from which a pruned structure
is rebuilt around a freshly built module of that architecture.
"""

from __future__ import annotations

import copy
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
from compress.invariants import Invariant
from compress.numerics import Numerics, QuantRule
from compress.record import write_atomically

__all__ = ["FILES", "Architecture", "Candidate", "Inputs", "count_parameters", "load_weights"]

_WEIGHTS = "weights.safetensors"
_STRUCTURE = "candidate.json"
#: What a saved candidate consists of.
FILES = (_WEIGHTS, _STRUCTURE)


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
        own = copy.deepcopy(module).float().eval()
        return cls(module=own.requires_grad_(True), example=example)

    def fork(self) -> Candidate:
        """A copy whose module may be edited."""
        return replace(self, module=copy.deepcopy(self.module), notes=())

    @property
    def fingerprint(self) -> str:
        """BLAKE2 over sorted tensors, structure, numerics and invariants; 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(json.dumps(self._describe(), sort_keys=True).encode())
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

        tensors = {
            k: v.detach().cpu().contiguous().clone() for k, v in self.module.state_dict().items()
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
        text = json.dumps(self._describe() | {"notes": self.notes, "lineage": self.lineage})
        write_atomically(folder / _STRUCTURE, text)

    @classmethod
    def load(
        cls, folder: Path, example: Inputs, build: Callable[[Architecture | None], nn.Module]
    ) -> Candidate:
        """Read what :meth:`save` wrote; ``build`` makes the module that is then reshaped.

        Raises:
            CheckpointError: a missing, damaged or foreign file.
        """
        try:
            stored = json.loads((folder / _STRUCTURE).read_text(encoding="utf-8"))
            spec = stored["architecture"]
            architecture = Architecture.model_validate(spec) if spec else None
            rules = TypeAdapter(tuple[QuantRule, ...]).validate_python(stored["numerics"])
            promises = TypeAdapter(tuple[Invariant, ...]).validate_python(stored["invariants"])
            structure, lineage = stored["structure"], tuple(stored["lineage"])
            notes = tuple(stored["notes"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CheckpointError(
                f"{folder / _STRUCTURE}: not a saved candidate ({error})."
            ) from error
        module = build(architecture)
        _restore_structure(module, structure, folder / _STRUCTURE)
        _restore_tensors(module, _read_tensors(folder / _WEIGHTS), folder / _WEIGHTS)
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
    """Number of parameters, and how many of them are not zero."""
    tensors = [p.detach() for p in module.parameters()]
    return sum(t.numel() for t in tensors), sum(int(torch.count_nonzero(t)) for t in tensors)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into ``module``, strictly.

    Raises:
        CheckpointError: no such file, not safetensors, or names or shapes that do not fit.
    """
    tensors = _read_tensors(path)
    own = module.state_dict()
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


def _structure(module: nn.Module) -> dict[str, dict[str, int | list[int]]]:
    def integers(layer: nn.Module) -> dict[str, int | list[int]]:
        found: dict[str, int | list[int]] = {}
        for key, value in vars(layer).items():
            if key.startswith("_") or isinstance(value, bool):
                continue
            if isinstance(value, int):
                found[key] = value
            elif isinstance(value, tuple) and value and all(type(v) is int for v in value):
                found[key] = list(value)
        return found

    return {name: ints for name, layer in module.named_modules() if (ints := integers(layer))}


def _restore_structure(module: nn.Module, structure: Any, source: Path) -> None:
    # Only integers that the built module already has are set: a stranger's file cannot add state.
    current = _structure(module)
    if not isinstance(structure, dict) or structure.keys() != current.keys():
        raise CheckpointError(f"{source}: the saved structure is of another architecture.")
    for name, attributes in structure.items():
        layer = module.get_submodule(name)
        for key, value in attributes.items():
            if key not in current[name] or type(value) is not type(current[name][key]):
                raise CheckpointError(f"{source}: {name}.{key} is not part of this architecture.")
            setattr(layer, key, tuple(value) if isinstance(value, list) else value)


def _restore_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    own = module.state_dict()
    reshaped = {
        name: tuple(tensors[name].shape)
        if name in tensors and tensors[name].dim() == own[name].dim()
        else tuple(own[name].shape)
        for name in own
    }
    if problem := _misfit(reshaped, tensors):
        raise CheckpointError(f"{source}: the weights do not fit the saved structure: {problem}.")
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(tensor.clone())
        else:
            owner._buffers[leaf] = tensor.clone()
