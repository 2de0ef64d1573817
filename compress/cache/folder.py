"""A store in a folder: what the file system gives is all that it needs, on one machine or several.

A file is written under a name of its own and renamed, so there is nothing to lock. Renames are not
flushed: after a power cut a file may be missing or short, which its checksum says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from compress.cache.backend import (
    MARKER,
    MARKER_TEXT,
    TOPS,
    ForeignFiles,
    StoredFile,
    is_ours,
    part_name,
)
from compress.cache.streams import NotRegular, chunks_of, open_regular, write_new
from compress.io.files import named

__all__ = ["Folder"]

# Results may be private. A folder that was there keeps its mode, and what is in it takes it over.
_MODE = 0o700
_HEX = frozenset("0123456789abcdef")


class Folder:
    """A folder of this machine, or one that several mount."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """Its path."""
        return self._root

    @property
    def place(self) -> str:
        """Its path, for people."""
        return named(self._root)

    @property
    def is_local(self) -> bool:
        """A folder that is mounted counts as near."""
        return True

    def is_marked(self) -> bool:
        """Whether it has the marker of a store."""
        return os.path.lexists(self._root / MARKER)

    def top(self) -> Iterator[str]:
        """Names of what lies directly in it."""
        if self._root.exists() and not self._root.is_dir():
            raise ForeignFiles("is no folder")
        with os.scandir(self._root) as found:
            for entry in found:
                yield entry.name

    def make(self) -> None:
        """Make the folder, and mark it as a store."""
        self._root.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self._root.mkdir(mode=_MODE)
        with contextlib.suppress(FileExistsError):
            write_new(self._root / MARKER, [MARKER_TEXT], self._mode() & 0o666)

    def stat(self, name: str) -> StoredFile | None:
        """A file, if it is there; links are not followed."""
        try:
            return _held(name, os.stat(self._path(name), follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Its content; links are not followed, and nothing is waited for."""
        yield from chunks_of(self._path(name), follow=False)

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write beside its place, flush to disk, rename."""
        mode = self._mode()
        for folder in self._folders(name):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=_MODE)
                folder.chmod(mode)
        path, part = self._path(name), self._path(part_name(name))
        write_new(part, chunks, mode & 0o666)
        try:
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise

    def touch(self, name: str) -> bool:
        """Note that a file is used now."""
        path = self._path(name)
        if os.utime not in os.supports_fd:
            os.utime(path)
            return True
        descriptor = open_regular(path, follow=False)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)
        return True

    def remove(self, name: str) -> bool:
        """Remove a file, or a link that has its name."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def files(self) -> Iterator[StoredFile]:
        """All files of the store."""
        for top in TOPS:
            for folder in _listed(self._root / top):
                if len(folder.name) == 2 and _HEX.issuperset(folder.name):
                    yield from _files(f"{top}/{folder.name}", Path(folder.path))

    def free_bytes(self) -> int | None:
        """What the disk has free; nothing is known of a folder that is not there."""
        try:
            return shutil.disk_usage(self._root).free
        except FileNotFoundError:
            return None

    def _mode(self) -> int:
        return stat.S_IMODE(os.stat(self._root).st_mode)

    def _folders(self, name: str) -> list[Path]:
        return [self._root / parent for parent in reversed(PurePosixPath(name).parents[:-1])]

    def _path(self, name: str) -> Path:
        # The store itself may be a link of its owner's; one inside would lead out of it.
        if any(folder.is_symlink() for folder in self._folders(name)):
            raise NotRegular("a folder in it is a link")
        return self._root / name


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        if folder.is_symlink():
            return []
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(prefix: str, folder: Path) -> Iterator[StoredFile]:
    for entry in _listed(folder):
        name = f"{prefix}/{entry.name}"
        if is_ours(name):
            with contextlib.suppress(FileNotFoundError):  # removed by another process
                yield _held(name, entry.stat(follow_symlinks=False))


def _held(name: str, found: os.stat_result) -> StoredFile:
    regular = stat.S_ISREG(found.st_mode)
    return StoredFile(name, found.st_size if regular else 0, found.st_mtime, regular)
