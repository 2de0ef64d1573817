"""Checkpoints: an unfinished training in one file, from which it resumes bit for bit.

The file is safetensors, with all that is not a tensor as JSON in its header; there is no pickle. A
key identifies all that the training depends on, and a checksum shows damage.
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

__all__ = ["Checkpoint", "CheckpointContent", "pack", "unpack"]

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class CheckpointContent:
    """What a checkpoint holds.

    Args:
        tensors: by name.
        facts: plain JSON values by name.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix``, by the rest of their names."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


@dataclass(frozen=True)
class Checkpoint:
    """Where the latest checkpoint of one stage is kept.

    Args:
        folder: holds nothing else, but for those of the parts of a stage.
        key: identifies all that the training depends on.
    """

    folder: Path
    key: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "checkpoint.safetensors"

    def within(self, *facts: object) -> Checkpoint:
        """The same folder with a key that depends on ``facts``, JSON values, as well."""
        text = json.dumps([self.key, *facts], default=str)
        return replace(self, key=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())

    def beside(self, part: str) -> Checkpoint:
        """That of one of several trainings of the stage, which the others leave alone.

        Args:
            part: the name of a folder.
        """
        return replace(self, folder=self.folder / part)

    def write(self, content: CheckpointContent) -> None:
        """Replace the file by ``content``, atomically.

        Raises:
            StorageError: it could not be written; the checkpoint before is intact.
        """
        write_atomically(self.path, pack(content.tensors, {**content.facts, "key": self.key}))

    def read(self) -> bytes:
        """The content of the file; empty where there is none, or one of another training.

        Raises:
            CheckpointError: the file is damaged, or no file.
        """
        with contextlib.suppress(OSError):
            # Left by a process that was killed while it wrote.
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
            facts = unpack(content).facts
        except ValueError as error:
            raise CheckpointError(
                f"{self.path}: the checkpoint is damaged ({error}) and is not used; the training "
                "starts over."
            ) from error
        return content if facts.get("key") == self.key else b""

    def remove(self) -> None:
        """Remove the file and its folder, if they are there."""
        shutil.rmtree(self.folder, ignore_errors=True)


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file with ``facts`` as JSON in its header, and a checksum.

    Args:
        tensors: by name, on any device.
        facts: plain JSON values.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    return save(plain, {"facts": text, "checksum": _checksum(plain, text)})


def unpack(content: bytes) -> CheckpointContent:
    """Read what :func:`pack` returned.

    Raises:
        ValueError: the bytes are damaged, or were written by something else.
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
    return CheckpointContent(tensors, json.loads(facts))


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
