"""A store of arrays on disk, by view: each view is written whole or not at all.

::

    FOLDER/0000/outputs.npy, ...   plain arrays, with the rows of the view in its order
    FOLDER/0000/view.json          their checksums, and a mark of every batch; written last

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

__all__ = ["Array", "Form", "ViewStore"]

Array = np.ndarray[Any, np.dtype[Any]]

_BLOCK_BYTES = 1 << 20
_MOST_FACTS_BYTES = 64 << 20  # a mark of 19 bytes for every batch


@dataclass(frozen=True)
class Form:
    """What one row of an array is; ``dtype`` is numpy's name for it."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class ViewStore:
    """Arrays of a fixed form for every view.

    Args:
        folder: where they lie.
        owner: identifies what they are worked out from; what others left is not used.
        forms: of one row of each array.
        rows: of every batch of a view.
    """

    def __init__(
        self, folder: Path, owner: str, forms: Mapping[str, Form], rows: Sequence[int]
    ) -> None:
        self._folder, self._owner, self._forms = folder, owner, dict(forms)
        self._ends = list(accumulate(rows))
        # Of the views that were seen to be whole.
        self._marks: dict[int, list[str]] = {}
        self._headers = {name: _header(form, self._ends[-1]) for name, form in forms.items()}

    def __contains__(self, view: int) -> bool:
        """Whether the view was finished; whether it is still as it was written is not looked at."""
        return self._facts_path(view).is_file()

    def read(self, view: int, batch: int, mark: str) -> dict[str, Array] | None:
        """The rows of one batch; ``None`` where the view was never finished.

        Args:
            view: which view; at its first reading all of it is checked.
            batch: its place in the view.
            mark: must be the one that it was written with.

        Raises:
            DataError: what is there is damaged, or belongs to something else.
        """
        if view not in self._marks:
            if view not in self:
                return None
            self._marks[view] = self._checked(view)
        if self._marks[view][batch] != mark:
            raise DataError(f"{self._path(view)}: batch {batch + 1} belongs to other inputs.")
        rows = slice(self._ends[batch - 1] if batch else 0, self._ends[batch])
        return {name: np.array(self._mapped(view, name)[rows]) for name in self._forms}

    def write(self, view: int, batches: Iterable[tuple[str, Mapping[str, Array]]]) -> None:
        """Write a view from the marks and arrays of its batches, in order.

        Raises:
            StorageError: the disk refused; nothing of the view is left.
        """
        folder = self._path(view)
        self.drop(view)
        try:
            folder.mkdir(parents=True)
            facts = self._write_arrays(view, batches)
            write_atomically(self._facts_path(view), json.dumps(facts))
        except OSError as error:
            self.drop(view)
            raise StorageError(
                f"{folder}: could not be written ({error.strerror or error}); what was finished "
                "before is intact. Free space, or set fewer views or cache: {dtype: float16}."
            ) from error
        except BaseException:
            self.drop(view)
            raise
        self._marks[view] = facts["marks"]

    def drop(self, view: int) -> None:
        """Remove a view, finished or not."""
        self._marks.pop(view, None)
        shutil.rmtree(self._path(view), ignore_errors=True)

    def _write_arrays(
        self, view: int, batches: Iterable[tuple[str, Mapping[str, Array]]]
    ) -> dict[str, Any]:
        sums = {name: hashlib.sha256() for name in self._forms}
        marks: list[str] = []
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(self._array_path(view, name).open("wb"))
                for name in self._forms
            }

            def put(name: str, block: bytes) -> None:
                sums[name].update(block)
                files[name].write(block)

            for name, header in self._headers.items():
                put(name, header)
            for mark, arrays in batches:
                marks.append(mark)
                for name, form in self._forms.items():
                    put(name, np.ascontiguousarray(arrays[name], form.dtype).tobytes())
            for stream in files.values():
                stream.flush()
                os.fsync(stream.fileno())
        digests = {name: digest.hexdigest() for name, digest in sums.items()}
        return {"schema": 1, "owner": self._owner, "sums": digests, "marks": marks}

    def _checked(self, view: int) -> list[str]:
        """The marks of a view, once every byte of it is seen to be as it was written."""
        path = self._facts_path(view)
        facts = read_json(path, _MOST_FACTS_BYTES, DataError)
        try:
            owner, sums, marks = facts["owner"], dict(facts["sums"]), list(facts["marks"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error!r}).") from error
        if owner != self._owner or len(marks) != len(self._ends):
            raise DataError(f"{path}: belongs to another teacher or to other data.")
        for name in self._forms:
            self._look_at(view, name, sums.get(name))
        return marks

    def _look_at(self, view: int, name: str, expected: object) -> None:
        """See that a file has every byte that was written, before anything reads it as an array."""
        path, header = self._array_path(view, name), self._headers[name]
        wanted, digest = len(header) + self._ends[-1] * self._forms[name].nbytes, hashlib.sha256()
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
            raise DataError(f"{path}: holds arrays of another form.")

    def _mapped(self, view: int, name: str) -> Array:
        """An array of a view that was checked; its header, then, is known."""
        path, dtype = str(self._array_path(view, name)), self._forms[name].dtype
        try:
            return np.memmap(path, dtype, "r", len(self._headers[name]), self._shape(name))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}).") from error

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._ends[-1], *self._forms[name].shape

    def _path(self, view: int) -> Path:
        return self._folder / f"{view:04d}"

    def _array_path(self, view: int, name: str) -> Path:
        return self._path(view) / f"{name}.npy"

    def _facts_path(self, view: int) -> Path:
        return self._path(view) / "view.json"


def _header(form: Form, rows: int) -> bytes:
    stream = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(form.dtype)),
        "fortran_order": False,
        "shape": (rows, *form.shape),
    }
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()
