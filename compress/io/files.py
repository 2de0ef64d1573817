"""Files of strangers: opened so that nothing hangs, read within a bound, refused in one sentence.

Every reader begins here. A path may lead nowhere, to a folder, to a pipe that nobody writes to or
to a device without an end; a file may be larger than memory, or hold less than it says. Knows
nothing of formats beyond text and JSON; no torch.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from compress.errors import CompressError
from compress.quoting import on_one_line

__all__ = ["Refusal", "memory_bytes", "named", "on_one_line", "opened", "parse_json"]
__all__ += ["read_bounded", "read_json", "read_text", "regular_file", "size_words"]

#: The class of error that a reader raises.
Refusal = type[CompressError]

_BLOCK_BYTES = 1 << 20
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_MOST_CHARACTERS = 300
_MOST_VALUES = 4_000_000
_KINDS = (
    (stat.S_ISDIR, "it is a folder, and a file is asked for"),
    (stat.S_ISFIFO, "it is a pipe, which is not read; give a file"),
    (stat.S_ISSOCK, "it is a socket, which is not read; give a file"),
    (stat.S_ISCHR, "it is a device, which is not read; give a file"),
    (stat.S_ISBLK, "it is a device, which is not read; give a file"),
)
_CAUSES = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file, and a part of its path is no folder",
    errno.EACCES: "this user may not read it",
    errno.EPERM: "this user may not read it",
    errno.ENAMETOOLONG: "its name is longer than this system takes",
    errno.ELOOP: "it is a link that leads back to itself",
    errno.EMFILE: "this process has too many files open to read it",
    errno.ENFILE: "this machine has too many files open to read it",
}


def named(path: object) -> str:
    """A path or a name in a sentence: on one line, of bounded length, whatever it holds."""
    text = on_one_line(str(path))
    half = _MOST_CHARACTERS // 2
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:half]}…{text[-half:]}"


def size_words(count: float) -> str:
    """A number of bytes, as people write it."""
    for unit, scale in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << scale:
            return f"{count / (1 << scale):,.1f} {unit}"
    return f"{count:,.0f} bytes"


def memory_bytes() -> int | None:
    """The memory of this machine; ``None`` where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def regular_file(
    path: Path, error: Refusal, *, most_bytes: int | None = None, where: str = ""
) -> int:
    """Check that ``path`` is a file that can be opened; its size in bytes.

    Args:
        path: of anything.
        error: what is raised.
        most_bytes: the largest that is taken.
        where: begins the sentence, before the path.

    Raises:
        CompressError: of the class ``error``: no such file, no regular one, or a larger one.
    """
    with opened(path, error, most_bytes=most_bytes, where=where) as stream:
        return os.fstat(stream.fileno()).st_size


@contextmanager
def opened(
    path: Path, error: Refusal, *, most_bytes: int | None = None, where: str = ""
) -> Iterator[BinaryIO]:
    """A file open to be read as bytes, never waiting for anybody; see :func:`regular_file`.

    Raises:
        CompressError: of the class ``error``: no such file, no regular one, a larger one, or one
            that the system or the memory refuses to read within the context.
    """
    with _open(path, error, most_bytes, where) as stream:
        try:
            yield stream
        except (OSError, MemoryError) as cause:
            raise error(f"{where}{named(path)}: {_why(path, cause)}.") from cause


def descriptor_of(
    path: Path, check: Callable[[os.stat_result], None], *, follow: bool = True
) -> int:
    """A descriptor to read a file by, without waiting for anybody.

    Args:
        path: of the file.
        check: raises where it is not one to be read. It looks twice: before, since to open a device
            may do something to it, and once it is open, since another thing may lie there by then.
        follow: whether it may be a link.

    Raises:
        OSError: it cannot be opened.
    """
    check(os.stat(path, follow_symlinks=follow))
    descriptor = os.open(path, _READ | (0 if follow else _NO_LINK))
    try:
        check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path, error: Refusal, most_bytes: int | None, where: str) -> BinaryIO:
    def check(found: os.stat_result) -> None:
        if problem := _problem(found, most_bytes):
            raise error(f"{where}{named(path)}: {problem}.")

    try:
        return os.fdopen(descriptor_of(path, check), "rb")
    except (OSError, ValueError) as cause:
        raise error(f"{where}{named(path)}: {_why(path, cause)}.") from cause


def read_bounded(path: Path, most_bytes: int, error: Refusal, *, where: str = "") -> bytes:
    """The content of a file of at most ``most_bytes``; see :func:`regular_file`.

    Raises:
        CompressError: of the class ``error``: it cannot be read, or there is more of it.
    """
    with opened(path, error, most_bytes=most_bytes, where=where) as stream:
        # As much as it says that it has: a bound may be larger than memory.
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(min(size, most_bytes) + 1)
        while size < len(content) <= most_bytes and (more := stream.read(_BLOCK_BYTES)):
            content += more
    if len(content) > most_bytes:  # of files that do not say their size, as those of /proc
        raise error(f"{where}{named(path)}: {_too_large(len(content), most_bytes)}.")
    return content


def read_text(path: Path, most_bytes: int, error: Refusal, *, where: str = "") -> str:
    """The text of a file in UTF-8; see :func:`read_bounded`.

    Raises:
        CompressError: of the class ``error``: it cannot be read, is too large, or is no such text.
    """
    content = read_bounded(path, most_bytes, error, where=where)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(
            f"{where}{named(path)}: not readable as UTF-8 text (the byte {content[cause.start]:#x} "
            f"at {cause.start} is none of it)."
        ) from cause


def read_json(
    path: Path,
    most_bytes: int,
    error: Refusal,
    *,
    where: str = "",
    most_values: int = _MOST_VALUES,
    finite: bool = True,
) -> Any:
    """The value in a JSON file; see :func:`parse_json`.

    Raises:
        CompressError: of the class ``error``: it cannot be read, is too large, or is no JSON.
    """
    content = read_bounded(path, most_bytes, error, where=where)
    try:
        return parse_json(content, most_values=most_values, finite=finite)
    except ValueError as cause:
        raise error(
            f"{where}{named(path)}: not readable as JSON ({_first_line(cause)})."
        ) from cause


def parse_json(content: bytes, *, most_values: int = _MOST_VALUES, finite: bool = True) -> Any:
    """The value of a JSON text, in memory that its length bounds.

    Args:
        content: UTF-8.
        most_values: an empty list takes thirty times the memory of its text.
        finite: refuse numbers that are none, or infinite.

    Raises:
        ValueError: it is no JSON, or has more values.
    """
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if values > most_values:
        raise ValueError(f"it has more than {most_values:,} values")
    try:
        text = content.decode("utf-8")
        if not finite:
            return json.loads(text)
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except UnicodeDecodeError as cause:
        raise ValueError(f"the byte at {cause.start} is not UTF-8") from cause
    except RecursionError as cause:
        raise ValueError("it is nested too deeply") from cause
    except MemoryError as cause:
        raise ValueError("it does not fit into memory") from cause


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no finite number")
    return number


def _problem(found: os.stat_result, most_bytes: int | None) -> str:
    for is_kind, words in _KINDS:
        if is_kind(found.st_mode):
            return words
    if most_bytes is not None and found.st_size > most_bytes:
        return _too_large(found.st_size, most_bytes)
    return ""


def _too_large(count: int, most: int) -> str:
    return f"it has {size_words(count)}, and at most {size_words(most)} are taken"


def _why(path: Path, cause: BaseException) -> str:
    if isinstance(cause, MemoryError):
        return "it does not fit into this machine's memory"
    if not isinstance(cause, OSError):
        return "there is no such file, since a name cannot hold the character NUL"
    if cause.errno == errno.ENOENT and os.path.islink(path):
        return "it is a link to a file that is not there"
    return _CAUSES.get(cause.errno or 0, f"it cannot be read ({cause.strerror or cause})")


def _first_line(cause: BaseException) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return named((lines or [type(cause).__name__])[0]).rstrip(".")
