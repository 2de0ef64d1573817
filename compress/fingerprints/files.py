"""Checksums of files, remembered by what a file system says of a file: size, times, inode."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from compress.errors import CompressError, DataError, StorageError
from compress.io.atomic import write_atomically
from compress.io.files import opened, read_bounded

__all__ = ["FileDigestCache", "file_fingerprint"]

_BLOCK_BYTES = 1 << 20
_MOST_FILES = 50_000
_MOST_BYTES = 64 << 20
# A file system's clock may be this coarse: a file that is younger may change and look the same.
_SETTLED_NS = 2_000_000_000
_SCHEMA = 1
_HEX_DIGITS = 64


@dataclass(frozen=True)
class _FileState:
    """What tells that a file is as it was; ``changed`` cannot be set back as the other time can."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> _FileState:
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def is_older(self, age_ns: int) -> bool:
        return max(self.modified, self.changed) < time.time_ns() - age_ns


class FileDigestCache:
    """Checksums of files that did not change since they were read.

    Where several processes write at once, the file is always one of theirs; what is lost is read
    again, and so is all where it is damaged.

    Args:
        place: the file they are kept in between runs; ``None`` keeps them in memory.
        most_files: how many are kept between runs; the newest.
        settled_ns: the age from which on a file's checksum is remembered.
    """

    def __init__(
        self,
        place: Path | None = None,
        *,
        most_files: int = _MOST_FILES,
        settled_ns: int = _SETTLED_NS,
    ) -> None:
        self._place = place
        self._most_files, self._settled_ns = most_files, settled_ns
        self._known: dict[str, tuple[_FileState, str]] = {}
        self._is_read = place is None
        self._is_new = False

    def sha256(self, path: Path) -> str:
        """The checksum of a file's bytes, in 64 hex digits; what is new is kept by :meth:`save`.

        Raises:
            DataError: no such file, no regular one, or one that cannot be read.
        """
        self._read()
        key = os.path.realpath(path)
        known = self._known.get(key)
        if known is not None:
            with suppress(OSError):
                if _FileState.of(os.stat(key)) == known[0]:
                    return known[1]
        facts, checksum = _hashed(path, self._settled_ns)
        if facts is not None:
            self._known.pop(key, None)  # the newest stand last
            self._known[key] = (facts, checksum)
            self._is_new = True
        return checksum

    def content_of(self, path: PurePath) -> str:
        """The checksum where there is a file, or a word for what is there; never raises."""
        if not isinstance(path, Path):
            return "not a place on this machine"
        try:
            return self.sha256(path) if stat.S_ISREG(os.stat(path).st_mode) else "not a file"
        except (OSError, ValueError, CompressError):
            return "not there"

    def save(self) -> None:
        """Keep what is new, where there is a place for it and the disk takes it."""
        if self._place is None or not self._is_new:
            return
        others = _read(self._place)
        merged = {**{k: v for k, v in others.items() if k not in self._known}, **self._known}
        kept = dict(list(merged.items())[-self._most_files :])
        rows = {key: [*vars(facts).values(), checksum] for key, (facts, checksum) in kept.items()}
        content = {"schema": _SCHEMA, "sum": _sum(rows), "files": rows}
        # Without it files are read again, which is all that is lost.
        with suppress(StorageError):
            write_atomically(self._place, json.dumps(content))
            self._is_new = False

    def _read(self) -> None:
        if not self._is_read and self._place is not None:
            self._known = _read(self._place) | self._known
            self._is_read = True


def file_fingerprint(path: Path, memory: FileDigestCache) -> str:
    """The checksum of a file's bytes, in 64 hex digits, from ``memory`` where it did not change.

    Raises:
        DataError: no such file, no regular one, or one that cannot be read.
    """
    checksum = memory.sha256(path)
    memory.save()
    return checksum


def _hashed(path: Path, settled_ns: int) -> tuple[_FileState | None, str]:
    """The checksum, and the facts where nothing was written meanwhile nor just before."""
    digest = hashlib.sha256()
    with opened(path, DataError) as stream:
        before = _FileState.of(os.fstat(stream.fileno()))
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
        after = _FileState.of(os.fstat(stream.fileno()))
    return (before if before == after and before.is_older(settled_ns) else None), digest.hexdigest()


def _read(place: Path) -> dict[str, tuple[_FileState, str]]:
    """What is kept; nothing where it is missing, damaged or not of this version."""
    try:
        content = json.loads(read_bounded(place, _MOST_BYTES, DataError))
        rows = content["files"]
        if content["schema"] != _SCHEMA or content["sum"] != _sum(rows):
            return {}
        return {key: _row(row) for key, row in rows.items()}
    except (DataError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _row(row: Any) -> tuple[_FileState, str]:
    *facts, checksum = row
    if not all(type(fact) is int for fact in facts) or len(checksum) != _HEX_DIGITS:
        raise ValueError
    return _FileState(*facts), checksum


def _sum(rows: Any) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
