"""Arrays on disk by seeded epoch: each epoch is written whole or not at all.

::

    FOLDER/0000/outputs.npy, ...   plain arrays, with the samples of the epoch in its order
    FOLDER/0000/epoch.json         checksums of them, and of the inputs of every batch; written last

Arrays are written through files: where the disk is full, a write to a file fails, and one through a
memory map kills the process. They are read through memory maps that live for one batch, so that
what was read once does not stay in memory. Knows nothing of teachers or stages.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import DataError, StorageError
from compress.io.atomic import write_atomically
from compress.io.files import opened, read_json

__all__ = ["Array", "ArraySpec", "EpochArrays"]

Array = np.ndarray[Any, np.dtype[Any]]

_BLOCK_BYTES = 1 << 20
_MOST_FACTS_BYTES = 64 << 20  # a checksum of 19 bytes for every batch


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one sample of an array.

    Args:
        shape: without the axis of samples.
        dtype: numpy's name for it.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class EpochArrays:
    """Arrays of fixed shapes for every seeded epoch.

    Args:
        folder: where they are.
        owner: identifies what they are computed from; arrays of another owner are not used.
        specs: of one sample of each array, by name.
        batch_sizes: of an epoch, by index of the batch.
    """

    def __init__(
        self,
        folder: Path,
        owner: str,
        specs: Mapping[str, ArraySpec],
        batch_sizes: Sequence[int],
    ) -> None:
        self._folder, self._owner, self._specs = folder, owner, dict(specs)
        self._ends = list(accumulate(batch_sizes))
        # Of the inputs of every batch, for epochs whose files have been checked.
        self._batch_checksums: dict[int, list[str]] = {}
        self._headers = {name: _header(spec, self._ends[-1]) for name, spec in specs.items()}

    def __contains__(self, epoch_seed: int) -> bool:
        """Whether an epoch was written; not whether its files are still undamaged."""
        return self._facts_path(epoch_seed).is_file()

    def read(self, epoch_seed: int, index: int, batch_checksum: str) -> dict[str, Array] | None:
        """The arrays of one batch by name; ``None`` where its epoch was never written.

        Args:
            epoch_seed: which epoch; all of its files are checked when it is first read.
            index: of the batch in its epoch.
            batch_checksum: of the inputs; must be the one that the batch was written with.

        Raises:
            DataError: the files are damaged, or belong to something else.
        """
        if epoch_seed not in self._batch_checksums:
            if epoch_seed not in self:
                return None
            self._batch_checksums[epoch_seed] = self._checked(epoch_seed)
        if self._batch_checksums[epoch_seed][index] != batch_checksum:
            raise DataError(f"{self._path(epoch_seed)}: batch {index + 1} belongs to other inputs.")
        rows = slice(self._ends[index - 1] if index else 0, self._ends[index])
        return {name: np.array(self._mapped(epoch_seed, name)[rows]) for name in self._specs}

    def write(self, epoch_seed: int, batches: Iterable[tuple[str, Mapping[str, Array]]]) -> None:
        """Write an epoch.

        Args:
            epoch_seed: which epoch.
            batches: by index, the checksum of the inputs and the arrays by name.

        Raises:
            StorageError: they could not be written; nothing of the epoch is left.
        """
        folder = self._path(epoch_seed)
        self.drop(epoch_seed)
        try:
            folder.mkdir(parents=True)
            facts = self._write_arrays(epoch_seed, batches)
            write_atomically(self._facts_path(epoch_seed), json.dumps(facts))
        except OSError as error:
            self.drop(epoch_seed)
            raise StorageError(
                f"{folder}: could not be written ({error.strerror or error}); what was finished "
                "before is intact. Free space, or set fewer views or cache: {dtype: float16}."
            ) from error
        except BaseException:
            self.drop(epoch_seed)
            raise
        self._batch_checksums[epoch_seed] = facts["batch_checksums"]

    def drop(self, epoch_seed: int) -> None:
        """Remove an epoch, finished or not."""
        self._batch_checksums.pop(epoch_seed, None)
        shutil.rmtree(self._path(epoch_seed), ignore_errors=True)

    def _write_arrays(
        self, epoch_seed: int, batches: Iterable[tuple[str, Mapping[str, Array]]]
    ) -> dict[str, Any]:
        digests = {name: hashlib.sha256() for name in self._specs}
        batch_checksums: list[str] = []
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(self._array_path(epoch_seed, name).open("wb"))
                for name in self._specs
            }

            def put(name: str, block: bytes) -> None:
                digests[name].update(block)
                files[name].write(block)

            for name, header in self._headers.items():
                put(name, header)
            for batch_checksum, arrays in batches:
                batch_checksums.append(batch_checksum)
                for name, spec in self._specs.items():
                    put(name, np.ascontiguousarray(arrays[name], spec.dtype).tobytes())
            for stream in files.values():
                stream.flush()
                os.fsync(stream.fileno())
        return {
            "schema": 2,
            "owner": self._owner,
            "checksums": {name: digest.hexdigest() for name, digest in digests.items()},
            "batch_checksums": batch_checksums,
        }

    def _checked(self, epoch_seed: int) -> list[str]:
        """The checksums of the inputs of each batch, once all files are seen to be undamaged."""
        path = self._facts_path(epoch_seed)
        facts = read_json(path, _MOST_FACTS_BYTES, DataError)
        try:
            owner, checksums = facts["owner"], dict(facts["checksums"])
            batch_checksums = list(facts["batch_checksums"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error!r}).") from error
        if owner != self._owner or len(batch_checksums) != len(self._ends):
            raise DataError(f"{path}: belongs to another teacher or to other data.")
        for name in self._specs:
            self._check_file(epoch_seed, name, checksums.get(name))
        return batch_checksums

    def _check_file(self, epoch_seed: int, name: str, expected: object) -> None:
        """Check size, checksum and header of a file before anything reads it as an array."""
        path, header = self._array_path(epoch_seed, name), self._headers[name]
        wanted, digest = len(header) + self._ends[-1] * self._specs[name].nbytes, hashlib.sha256()
        with opened(path, DataError) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != wanted:
                raise DataError(f"{path}: holds {size:,} bytes where {wanted:,} were written.")
            # Through the file: the pages of a map would count as memory of this process.
            block = start = stream.read(len(header))
            while block:
                digest.update(block)
                block = stream.read(_BLOCK_BYTES)
        if digest.hexdigest() != expected:
            raise DataError(f"{path}: its checksum is another.")
        if start != header:
            raise DataError(f"{path}: holds arrays of another shape or dtype.")

    def _mapped(self, epoch_seed: int, name: str) -> Array:
        """A memory map of a file that was checked, so that its header is known."""
        path, dtype = str(self._array_path(epoch_seed, name)), self._specs[name].dtype
        try:
            return np.memmap(path, dtype, "r", len(self._headers[name]), self._shape(name))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}).") from error

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._ends[-1], *self._specs[name].shape

    def _path(self, epoch_seed: int) -> Path:
        return self._folder / f"{epoch_seed:04d}"

    def _array_path(self, epoch_seed: int, name: str) -> Path:
        return self._path(epoch_seed) / f"{name}.npy"

    def _facts_path(self, epoch_seed: int) -> Path:
        return self._path(epoch_seed) / "epoch.json"


def _header(spec: ArraySpec, rows: int) -> bytes:
    stream = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(spec.dtype)),
        "fortran_order": False,
        "shape": (rows, *spec.shape),
    }
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()
