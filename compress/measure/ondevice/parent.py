"""The end of a worker process that has lost whoever gave it its job."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_SYNCHRONIZE, _FOREVER = 0x00100000, 0xFFFFFFFF  # of Windows
_LOOK_S = 1.0  # between looks at the process that gave the job, where the system does not tell


def end_with_parent(text: str) -> None:
    """End when ``parent``, the process that gave the job, does: whatever a model computes.

    What waits for its input sees its end; a model that computes without end never looks.
    """
    with contextlib.suppress(ValueError, TypeError, KeyError):
        parent = int(json.loads(text)["parent"])
        if not (os.getppid() == parent and _killed_with_parent()):
            # Not the system's work, or something stands between: whatever starts Python here.
            threading.Thread(target=_watch, args=(parent,), daemon=True).start()
        elif os.getppid() != parent:
            os._exit(1)  # it ended before the system was asked


def _killed_with_parent() -> bool:
    """Ask Linux to kill this process when the thread that started it ends."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _watch(parent: int) -> None:
    _wait_on_windows(parent) if sys.platform == "win32" else _wait(parent)
    os._exit(1)


def _wait(parent: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        while True:
            time.sleep(_LOOK_S)
            with contextlib.suppress(PermissionError):
                os.kill(parent, 0)


def _wait_on_windows(parent: int) -> None:
    system: Any = ctypes.windll.kernel32  # type: ignore[attr-defined]
    system.OpenProcess.restype = ctypes.c_void_p
    handle = system.OpenProcess(_SYNCHRONIZE, False, parent)
    if handle:
        system.WaitForSingleObject(ctypes.c_void_p(handle), _FOREVER)
