"""RawLog: the raw samples of a session, kept so that everything else can be computed again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from compress.errors import StorageError

__all__ = ["RawLog"]


class RawLog:
    """Appends JSON lines to a file, each on its way to disk before the next one is made.

    A context manager; without a path it keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stream: TextIO | None = None

    def __enter__(self) -> RawLog:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                torn = _is_torn(self._path)
                self._stream = self._path.open("a", encoding="utf-8")
                if torn:
                    self._stream.write("\n")
            except OSError as error:
                raise self._refused(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            try:
                self._stream.close()
            except OSError as refused:  # the lines that could not be written, once more
                if error is None:
                    raise self._refused(refused) from refused

    def write(self, line: Mapping[str, Any]) -> None:
        """Append ``line``.

        Raises:
            StorageError: the disk refused; earlier lines are intact.
        """
        if self._stream is not None:
            try:
                self._stream.write(json.dumps(line) + "\n")
                self._stream.flush()
            except OSError as error:
                raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._path}: raw samples could not be written ({error.strerror or error}); "
            "free space or choose another place."
        )


def _is_torn(path: Path) -> bool:
    """Whether a kill has cut the last line of a file off; what follows is a line of its own."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return False
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
