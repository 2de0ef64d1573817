"""One process at a time in a run folder: the system's own lock, which goes with its process.

::

    RUN/.lock      while a process works here, and after one that was killed: who and since when

The file says who it is; the lock on it says whether that still holds, so none gets stale.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from compress.environment import process_index
from compress.errors import RecordError, StorageError

__all__ = ["LOCK_NAME", "held", "lock_file"]

LOCK_NAME = ".lock"

_MOST_BYTES = 4096
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextlib.contextmanager
def held(
    folder: Path,
    notify: Callable[[str], None] = lambda _: None,
    lock: Callable[[int], None] | None = None,
) -> Iterator[None]:
    """Hold a run folder, which is made if need be, against other processes that would write to it.

    Of several processes that were launched together only the first holds it, for all of them.

    Args:
        folder: of the run. It must not be held by this process already.
        notify: called with a sentence where the file system has no locks; then nothing is held.
        lock: locks an open file against other processes, or raises ``OSError``; by default with
            what the system has.

    Raises:
        RecordError: another process holds it, says who; or it is a file.
        StorageError: it cannot be made, or not be written to.
    """
    if process_index() > 0:
        yield
        return
    path = folder / LOCK_NAME
    handle = _taken(path, notify, lock or lock_file)
    try:
        yield
    finally:
        # Still locked, so that nobody holds what is removed.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _taken(path: Path, notify: Callable[[str], None], lock: Callable[[int], None]) -> int:
    while True:
        handle = _opened(path)
        try:
            if not _locked(handle, path, notify, lock) or _is_still(handle, path):
                _write(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its last holder has removed it meanwhile


def _opened(path: Path) -> int:
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except (FileExistsError, NotADirectoryError):
        given = "this is a file" if folder.is_file() else "a part of this path is a file"
        raise RecordError(f"{folder}: {given}; give a folder.") from None
    except OSError as error:
        raise StorageError(
            f"{folder}: nothing can be written there ({error.strerror or error}); give another "
            "--out."
        ) from error


def _locked(
    handle: int, path: Path, notify: Callable[[str], None], lock: Callable[[int], None]
) -> bool:
    """Lock the file; whether the file system can.

    Raises:
        RecordError: another process has locked it.
    """
    try:
        lock(handle)
    except OSError as error:
        if error.errno in _TAKEN:
            raise RecordError(f"{path.parent}: {_holder(handle)}.") from None
        notify(
            f"{path.parent} is on a file system without locks ({error.strerror}): see that no "
            "other process runs there at the same time"
        )
        return False
    return True


def lock_file(handle: int) -> None:
    """Lock an open file against other processes.

    Raises:
        OSError: another process has locked it, or the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        # Beyond what is written in the file, which others may then read.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_still(handle: int, path: Path) -> bool:
    """Whether the file that is open is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _write(handle: int) -> None:
    facts = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):  # a full disk: the lock holds, and others know less of it
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{json.dumps(facts)}\n".encode())


def _holder(handle: int) -> str:
    advice = "wait until it has ended, end it, or give another --out"
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        facts = json.loads(os.read(handle, _MOST_BYTES))
        process, host, since = int(facts["process"]), str(facts["host"]), str(facts["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"another process works in this folder; {advice}"
    if process == os.getpid() and host == platform.node():
        return "this process holds it already; it can be held only once"
    return f"process {process} on {host} has worked in this folder since {since}; {advice}"
