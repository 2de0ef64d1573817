"""Backend: what a store asks of the place where it lies, and the names of what lies there.

::

    PLACE/compresskit-store-1            says that this is a store, and of which layout
    PLACE/objects/ab/<sha256>            files of results, under their checksum
    PLACE/entries/ab/<key>.json          entries, under their key; written after their objects

Nothing else in a place is ever counted or removed.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from compress.io.files import named

__all__ = [
    "MARKER",
    "MARKER_TEXT",
    "TOPS",
    "ForeignFiles",
    "StorageBackend",
    "StoredFile",
    "claim",
    "entry_name",
    "is_entry",
    "is_object",
    "is_ours",
    "object_name",
    "part_name",
    "shown_place",
]

_MARKERS = "compresskit-store-"
MARKER = f"{_MARKERS}1"
MARKER_TEXT = (
    b"Results of compresskit; see `compresskit cache --help`. May be removed at any time.\n"
)
TOPS = ("entries", "objects")

_ENTRY = re.compile(r"entries/([0-9a-f]{2})/\1[0-9a-f]{30}\.json")
_OBJECT = re.compile(r"objects/([0-9a-f]{2})/\1[0-9a-f]{62}")
_PART = re.compile(
    r"(?:entries/([0-9a-f]{2})/\.\1[0-9a-f]{30}\.json|objects/([0-9a-f]{2})/\.\2[0-9a-f]{62})"
    r"\.[0-9]{1,10}-[0-9a-f]{16}\.part"
)


class ForeignFiles(Exception):
    """A place that is somebody else's; the message is a clause that follows its name."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a store.

    ``used_s`` is when it was last written or touched, in seconds since 1970; ``regular`` is false
    for a link, a pipe or a folder that has a file's name.
    """

    name: str
    bytes: int
    used_s: float
    regular: bool = True


class StorageBackend(Protocol):
    """A place for files under names with slashes. Whatever fails is an :class:`OSError`."""

    @property
    def place(self) -> str:
        """Its name, for people."""

    @property
    def is_local(self) -> bool:
        """Whether reading costs little beside working out a result."""

    def is_marked(self) -> bool:
        """Whether it has the marker of a store."""

    def top(self) -> Iterator[str]:
        """What lies directly in it; FileNotFoundError where it does not exist, or ForeignFiles."""

    def make(self) -> None:
        """Make it, and mark it as a store."""

    def stat(self, name: str) -> StoredFile | None:
        """A file, if it is there."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Its content; FileNotFoundError or NotRegular where there is none."""

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file so that others see all of it or nothing."""

    def touch(self, name: str) -> bool:
        """Note that it is used now; false where only writing it again does."""

    def remove(self, name: str) -> bool:
        """Remove a file; false where it was not there."""

    def files(self) -> Iterator[StoredFile]:
        """All files that :func:`is_ours` knows."""

    def free_bytes(self) -> int | None:
        """What could be written yet, where that is known."""


def claim(backend: StorageBackend, *, create: bool) -> None:
    """Make sure that a place is a store's, or empty; ``create`` marks it as one.

    Raises:
        ForeignFiles: something else lies there.
        OSError: it cannot be read, or be made.
    """
    if backend.is_marked():
        return
    try:
        found = list(islice(backend.top(), 100))
    except FileNotFoundError:
        found = []
    # Another process may have made it in between; the marker is the first thing that it writes.
    if found and not backend.is_marked():
        if any(name.startswith(_MARKERS) for name in found):
            raise ForeignFiles("was made by another version of compresskit")
        raise ForeignFiles("has files that are not compresskit's")
    if create:
        backend.make()


def shown_place(place: str) -> str:
    """A place in a sentence, less a password in its address."""
    return named(re.sub(r"(?<=://)[^/@]*@", "", place))


def object_name(sha256: str) -> str:
    """Where a file of this content lies."""
    return f"objects/{sha256[:2]}/{sha256}"


def entry_name(key: str) -> str:
    """Where the entry of this key lies."""
    return f"entries/{key[:2]}/{key}.json"


def part_name(name: str) -> str:
    """A name beside ``name``, of this process alone, for what is not whole yet."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/.{last}.{os.getpid()}-{secrets.token_hex(8)}.part"


def is_entry(name: str) -> bool:
    """Whether this is the name of an entry."""
    return _ENTRY.fullmatch(name) is not None


def is_object(name: str) -> bool:
    """Whether this is the name of an object."""
    return _OBJECT.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Whether this is the name of an entry, an object, or a part of one."""
    return is_entry(name) or is_object(name) or _PART.fullmatch(name) is not None
