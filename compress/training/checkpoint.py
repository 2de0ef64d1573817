"""Checkpoints: an unfinished training in one file, from which it goes on bit for bit.

The file is safetensors, with the rest as JSON in its header; there is no pickle. A key says what
the training depends on, and a checksum whether the file is what was written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.io.atomic import write_atomically
from compress.io.files import memory_bytes, named, read_bounded

__all__ = ["Checkpoint", "Saved", "pack", "unpack"]

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: tensors by name, and plain JSON values."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


@dataclass(frozen=True)
class Checkpoint:
    """A place for the latest checkpoint of one stage, and no other.

    Args:
        folder: which is the checkpoint's own.
        key: identifies everything that the training depends on.
    """

    folder: Path
    key: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "checkpoint.safetensors"

    def within(self, *facts: object) -> Checkpoint:
        """The same place for a training that depends on more."""
        text = json.dumps([self.key, *facts], default=str)
        return replace(self, key=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())

    def write(self, saved: Saved) -> None:
        """Replace what was there in one step.

        Raises:
            StorageError: the disk refused; the checkpoint before is intact.
        """
        write_atomically(self.path, pack(saved.tensors, {**saved.facts, "key": self.key}))

    def read(self) -> bytes:
        """The content of the file; empty where there is none, or one of another training.

        Raises:
            CheckpointError: the file is damaged, or no file.
        """
        with contextlib.suppress(OSError):
            # What a process that was killed while it wrote has left.
            for part in self.folder.glob(f".{self.path.name}.*.part"):
                part.unlink()
        if not os.path.lexists(self.path):
            return b""
        try:
            content = read_bounded(self.path, memory_bytes() or sys.maxsize, CheckpointError)
        except CheckpointError as error:
            raise CheckpointError(
                f"{str(error).rstrip('.')}; the checkpoint is not used, and the training starts "
                "over."
            ) from error
        if not content:
            return b""
        try:
            saved = unpack(content)
        except ValueError as error:
            raise CheckpointError(
                f"{self.path}: the checkpoint is damaged ({error}) and is not used; the training "
                "starts over."
            ) from error
        return content if saved.facts.get("key") == self.key else b""

    def remove(self) -> None:
        """Remove the file and its folder, if they are there."""
        shutil.rmtree(self.folder, ignore_errors=True)


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """A safetensors file with ``facts`` as JSON in its header, and a checksum over all of it."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    return save(plain, {"facts": text, "checksum": _checksum(plain, text)})


def unpack(content: bytes) -> Saved:
    """What :func:`pack` has packed.

    Raises:
        ValueError: the content is another.
    """
    from safetensors.torch import load

    try:
        tensors = dict(load(content))
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES:end])["__metadata__"]
        facts, checksum = str(header["facts"]), header["checksum"]
    except Exception as error:  # of flipped bits the readers raise errors of many kinds
        raise ValueError(named(error)) from error
    if checksum != _checksum(tensors, facts):
        raise ValueError("its checksum differs")
    return Saved(tensors, json.loads(facts))


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
