"""A store behind any address that fsspec knows, such as an S3 bucket that several machines share.

Object stores show a file whole or not at all; elsewhere it is written beside its place and moved.
Either way its checksum has the last word.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.cache.backend import (
    MARKER,
    MARKER_TEXT,
    TOPS,
    StoredFile,
    is_ours,
    part_name,
    shown_place,
)
from compress.cache.streams import NotRegular
from compress.errors import MissingExtra, RecipeError
from compress.io.files import named

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Remote", "connect"]

_CHUNK_BYTES = 1 << 20
# A touch may mean that a file is sent again: one that is this fresh is fresh enough.
_FRESH_S = 1800.0
_OBJECT_STORES = frozenset(
    {"s3", "s3a", "gs", "gcs", "gcsfs", "az", "abfs", "abfss", "oss", "oci", "ocifs", "memory"}
)
# What file systems call the time of the last change.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "timeModified", "created")


class Remote:
    """A folder of a file system of fsspec's."""

    def __init__(self, place: str, system: AbstractFileSystem, root: str) -> None:
        self._place, self._system, self._root = place, system, root.rstrip("/")
        named = system.protocol
        protocols = {named} if isinstance(named, str) else {*named}
        self._shows_whole = bool(protocols & _OBJECT_STORES)

    @property
    def place(self) -> str:
        """Its address, less a password in it."""
        return shown_place(self._place)

    @property
    def is_local(self) -> bool:
        """Reading is as slow as sending."""
        return False

    def is_marked(self) -> bool:
        """Whether it has the marker of a store."""
        return self.stat(MARKER) is not None

    def top(self) -> Iterator[str]:
        """Names of what lies directly in it."""
        with _as_os_errors():
            found = self._system.ls(self._root, detail=False)
        yield from (str(path).rstrip("/").rpartition("/")[2] for path in found)

    def make(self) -> None:
        """Mark it as a store; folders of object stores are not made."""
        with _as_os_errors():
            if not self._shows_whole:
                self._system.makedirs(self._root, exist_ok=True)
            self._system.pipe_file(self._path(MARKER), MARKER_TEXT)

    def stat(self, name: str) -> StoredFile | None:
        """A file, if it is there."""
        try:
            with _as_os_errors():
                self._system.invalidate_cache()
                return _held(name, self._system.info(self._path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Its content."""
        held = self.stat(name)
        if held is not None and not held.regular:
            raise NotRegular("it is no regular file")
        with _as_os_errors(), self._system.open(self._path(name), "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield bytes(chunk)

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Send a file, once all of it was read and nothing was wrong with it."""
        with tempfile.TemporaryDirectory() as folder:
            spool = Path(folder, "spool")
            with spool.open("wb") as stream:
                stream.writelines(chunks)
            with _as_os_errors():
                self._send(spool, name)

    def _send(self, spool: Path, name: str) -> None:
        path = self._path(name)
        if self._shows_whole:
            self._system.put_file(str(spool), path)
            return
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        part = self._path(part_name(name))
        try:
            self._system.put_file(str(spool), part)
            self._system.mv(part, path)
        except BaseException:
            with contextlib.suppress(Exception):  # what failed is raised; this part is swept later
                self._system.rm_file(part)
            raise

    def touch(self, name: str) -> bool:
        """Note that a file is used now, where that can be noted without sending it again."""
        held = self.stat(name)
        if held is None:
            return False
        if time.time() - held.used_s < _FRESH_S:
            return True
        try:
            with _as_os_errors():
                self._system.touch(self._path(name), truncate=False)
        except OSError as error:
            if isinstance(error.__cause__, (NotImplementedError, ValueError, TypeError)):
                return False
            raise
        return True

    def remove(self, name: str) -> bool:
        """Remove a file."""
        try:
            with _as_os_errors():
                self._system.rm_file(self._path(name))
        except FileNotFoundError:
            return False
        return True

    def files(self) -> Iterator[StoredFile]:
        """All files of the store."""
        for top in TOPS:
            with _as_os_errors():
                self._system.invalidate_cache()
                try:
                    found = self._system.find(self._path(top), detail=True)
                except FileNotFoundError:
                    continue
            for path, info in found.items():
                name = str(path).strip("/").removeprefix(f"{self._root}/".lstrip("/"))
                if is_ours(name):
                    with _as_os_errors():
                        held = _held(name, info)
                    yield held

    def free_bytes(self) -> int | None:
        """Nobody knows."""
        return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def connect(place: str) -> Remote:
    """The store at an address.

    Raises:
        RecipeError: it is no address that fsspec knows.
        MissingExtra: the package for this kind of address is not installed.
        OSError: it cannot be reached.
    """
    from fsspec.core import url_to_fs

    try:
        with _as_os_errors():
            system, root = url_to_fs(place)
    except OSError as error:
        cause, where = error.__cause__, shown_place(place)
        if isinstance(cause, ImportError):
            raise MissingExtra(
                f"{where}: a store of this kind needs a package that is not installed: {cause}."
            ) from cause
        if isinstance(cause, ValueError):
            raise RecipeError(
                f"{where}: this is no address of a store ({cause}); give a folder, an address such "
                "as s3://bucket/folder, or none."
            ) from cause
        raise
    return Remote(place, system, str(root))


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """File systems of many makers raise what they like; a store knows of one kind."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(named(words)) from error


def _held(name: str, info: Mapping[str, Any]) -> StoredFile:
    regular = info.get("type") == "file" and not info.get("islink")
    return StoredFile(name, int(info.get("size") or 0) if regular else 0, _time_s(info), regular)


def _time_s(info: Mapping[str, Any]) -> float:
    for value in map(info.get, _TIMES):
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
            return aware.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    # Of unknown age: never taken for old.
    return time.time()
