"""Bytes on their way: read without waiting for anybody, checked as they pass, written whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.io.files import descriptor_of

__all__ = [
    "FileFacts",
    "NotRegular",
    "Unfit",
    "Unreadable",
    "checked",
    "chunks_of",
    "facts_of",
    "open_regular",
    "reason",
    "write_new",
]

_CHUNK_BYTES = 1 << 20
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class FileFacts:
    """What a file's content is known by."""

    sha256: str
    bytes: int


class NotRegular(OSError):
    """A link, a pipe, a folder or a device where a file should be."""


class Unfit(Exception):
    """A file that is not what it should be; the message is a clause, such as "is missing"."""


class Unreadable(Unfit):
    """A file that could not be read now, and may be whole."""


def reason(error: OSError) -> str:
    """Why the system refused, in its words."""
    return str(error.strerror or error or type(error).__name__)


def open_regular(path: Path, *, follow: bool) -> int:
    """A descriptor of a file to read from.

    Raises:
        NotRegular: it is something else, or a link and ``follow`` is false.
        OSError: it cannot be opened.
    """
    return descriptor_of(path, _check, follow=follow)


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotRegular("it is no regular file")


def chunks_of(path: Path, *, follow: bool = True) -> Iterator[bytes]:
    """The content of a file, a piece at a time; see :func:`open_regular`."""
    with os.fdopen(open_regular(path, follow=follow), "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def facts_of(chunks: Iterable[bytes]) -> FileFacts:
    """Size and checksum of what passes."""
    digest, count = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        count += len(chunk)
    return FileFacts(digest.hexdigest(), count)


def checked(chunks: Iterable[bytes], facts: FileFacts) -> Iterator[bytes]:
    """The same chunks; whoever takes all of them has what ``facts`` say.

    Never more than ``facts.bytes`` are given.

    Raises:
        Unfit: at the latest after the last chunk, if the content is another.
        Unreadable: reading failed.
    """
    digest, count = hashlib.sha256(), 0
    try:
        for chunk in chunks:
            count += len(chunk)
            if count > facts.bytes:
                raise Unfit(f"has more than its {facts.bytes} bytes")
            digest.update(chunk)
            yield chunk
    except (FileNotFoundError, NotADirectoryError):
        raise Unfit("is missing") from None
    except NotRegular:
        raise Unfit("is no regular file") from None
    except OSError as error:
        raise Unreadable(f"cannot be read ({reason(error)})") from error
    if count != facts.bytes:
        raise Unfit(f"has {count} of its {facts.bytes} bytes")
    if digest.hexdigest() != facts.sha256:
        raise Unfit("has another checksum")


def write_new(path: Path, chunks: Iterable[bytes], mode: int | None = None) -> None:
    """Write a file that is not there yet, down to the disk; nothing is left where that fails.

    Args:
        path: of the file.
        chunks: its content.
        mode: its permissions, whatever the umask says; by default as for any new file.

    Raises:
        OSError: the disk refused.
        Unfit: whatever ``chunks`` raise.
    """
    mask = 0o666 if mode is None else mode
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mask)
    try:
        if mode is not None and hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):  # a disk that knows no permissions
                os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:  # an interrupt too
        with contextlib.suppress(OSError):
            path.unlink()
        raise
