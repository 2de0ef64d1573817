"""One session at a time on a device: two that time at once would measure each other."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from compress.measure.ondevice.session_log import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DeviceBusy", "device_lock"]

_LOCK = "compresskit-device.lock"


class DeviceBusy(SessionError):
    """Another session is timing on this device."""


@contextlib.contextmanager
def device_lock() -> Iterator[None]:
    """Hold the device: two sessions that time at once would measure each other.

    The system's own file lock: it goes with its process, however that ends, so none gets stale.

    Raises:
        DeviceBusy: another session holds it.
        SessionError: the lock's file cannot be made.
    """
    path = Path(tempfile.gettempdir()) / _LOCK
    with _lock_file(path) as handle:
        try:
            _lock(handle)
        except OSError:
            holder = os.read(handle, 20).decode("ascii", "replace").strip()
            raise DeviceBusy(
                f"another session (process {holder or 'unknown'}) is timing on this device and "
                f"holds {path}; wait until it has ended."
            ) from None
        with contextlib.suppress(OSError):  # another user's file: locked, but not to be written
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    try:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:
            handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SessionError(
            f"{path}: the device's lock cannot be made ({error.strerror}); set TMPDIR to a folder "
            "where it can."
        ) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Beyond the number in the file, which others may then read.
        os.lseek(handle, 1000, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
