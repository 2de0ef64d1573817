"""Files that are there whole or not at all, and the removal of what a kill leaves of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from compress.errors import StorageError

__all__ = [
    "is_gone",
    "is_stream",
    "part_of",
    "process_tag",
    "sweep",
    "sweep_beside",
    "write_atomically",
]

_DAY_S = 86_400.0
# Longer names leave no room for what is added to them: most file systems take 255 bytes.
_MOST_NAME_BYTES = 200
# `.NAME.PID.part` is what versions before wrote: whose machine it was on, it does not say.
_OF = r"(?:(?P<machine>[0-9a-f]{8})-)?(?P<process>[1-9][0-9]*)\.part"
_PART = re.compile(rf"\..+\.{_OF}", re.DOTALL)
_STREAM = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/([0-9]{1,6})")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content`` in one step (write beside it, flush to disk, rename).

    A link of that name is replaced, and what it leads to stays as it is; pipes and devices are
    written to as such. What UTF-8 cannot hold, such as the stray bytes of a path, is escaped.

    Raises:
        StorageError: the disk refused; ``path`` is as it was.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    beside = part_of(path)
    try:
        if is_stream(path):
            _write_on(path, data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        except BaseException:  # an interrupt too
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise StorageError(
            f"{path}: could not be written ({error.strerror or error}); "
            "what was there before is intact. Free space or choose another --out."
        ) from error


def process_tag() -> str:
    """Names this process, and its machine; :func:`is_gone` tells whether it still is."""
    return f"{_machine()}-{os.getpid()}"


def is_gone(tag: str) -> bool:
    """Whether the process of a :func:`process_tag` was one of this machine, and has ended."""
    machine, _, process = tag.partition("-")
    return machine == _machine() and not _runs(int(process))


def is_stream(path: Path) -> bool:
    """Whether ``path`` is a pipe or a device, or one of the streams that are open, by its name."""
    if _STREAM.fullmatch(str(path)):
        return True  # even if it leads to a file: what is printed goes there too
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _write_on(path: Path, data: bytes) -> None:
    found = _STREAM.fullmatch(str(path))
    if found is None:
        path.write_bytes(data)
        return
    number = {"stdout": 1, "stderr": 2}.get(found[1]) or int(found[2])
    sys.stdout.flush()
    with os.fdopen(os.dup(number), "wb") as stream:
        stream.write(data)


def part_of(path: Path) -> Path:
    """Where this process writes what becomes ``path``: beside it, under a name for :func:`sweep`.

    The name tells the process and its machine, so that others know whether it is still at work.
    """
    name = path.name
    if len(os.fsencode(name)) > _MOST_NAME_BYTES:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return path.with_name(f".{name}.{process_tag()}.part")


def sweep(folder: Path) -> list[Path]:
    """Remove the parts of files in ``folder`` and below whose process is gone; returns them.

    A part of another machine's process, or of a version that did not say whose it was, goes when it
    is a day old. Links are not followed, and what cannot be removed stays.
    """
    parts = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return _swept(parts)


def sweep_beside(path: Path) -> list[Path]:
    """Remove the parts of ``path`` alone, as :func:`sweep` does."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    beginning = part_of(path).name.removesuffix(f"{process_tag()}.part")
    own = re.compile(re.escape(beginning) + _OF)
    return _swept(path.with_name(name) for name in names if own.fullmatch(name))


def _swept(paths: Iterable[Path]) -> list[Path]:
    removed = []
    for path in paths:
        with contextlib.suppress(OSError):
            if _PART.fullmatch(path.name) and _is_left(path):
                path.unlink()
                removed.append(path)
    return removed


def _is_left(path: Path) -> bool:
    found = _PART.fullmatch(path.name)
    if found and found["machine"] == _machine():
        return is_gone(f"{found['machine']}-{found['process']}")
    return time.time() - path.lstat().st_mtime > _DAY_S


def _machine() -> str:
    """Names this machine, and within it the space that process numbers are unique in."""
    numbers = ""
    with contextlib.suppress(OSError):
        numbers = os.readlink("/proc/self/ns/pid")  # containers have numbers of their own
    text = f"{platform.node()} {numbers}"
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=4).hexdigest()


def _runs(process: int) -> bool:
    if sys.platform == "win32":
        return True  # a signal to ask with would end it there; its parts go when they are a day old
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
