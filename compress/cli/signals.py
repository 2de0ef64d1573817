"""How a command ends on a signal: one exception for all signals, and a last sentence."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time

TYPE_CHECKING = False  # see the package: starting up is to be cheap
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

__all__ = ["Interrupted", "SignalHandler", "signals_raised"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
# The same signal, sent again at once: what is being saved meanwhile is not disturbed.
_AGAIN_S = 2.0
# Native code that computes without end never returns to handle a signal.
_PATIENCE_S = 10.0
_TOGETHER_S, _LOOK_S = 1.0, 0.05
_FAILED = 1


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end; the message is the signal's name."""


class SignalHandler:
    """Handles signals that end the program; ``name`` is that of the first one, if there was any.

    The first raises :class:`Interrupted` in the main thread. If that thread does not handle it for
    ten seconds, since native code computes there, the process ends at once.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._raised_s = self._handled_s = -math.inf

    def handle(self, number: int, _: FrameType | None) -> None:
        """Raise, unless a signal was handled a moment ago."""
        self._handled_s = now_s = time.monotonic()
        if now_s - self._raised_s < _AGAIN_S:
            return
        self._raised_s = now_s
        self.name = self.name or signal.Signals(number).name
        raise Interrupted(signal.Signals(number).name)

    def watch(self, reader: int, numbers: frozenset[int]) -> None:
        """End the process if a signal that arrives at ``reader`` is not handled."""
        while (received := os.read(reader, 1)) and received[0] != 0:
            if received[0] in numbers and not self._is_handled(time.monotonic()):
                sentence = (
                    f"compresskit: ended by {signal.Signals(received[0]).name} in the middle of a "
                    "computation that could not be interrupted; what was finished is kept.\n"
                )
                with contextlib.suppress(OSError):
                    os.write(2, sentence.encode())
                os._exit(_FAILED)

    def _is_handled(self, received_s: float) -> bool:
        # Two signals that come together are handled once, perhaps before the second is read here.
        while self._handled_s < received_s - _TOGETHER_S:
            if time.monotonic() - received_s > _PATIENCE_S:
                return False
            time.sleep(_LOOK_S)
        return True


@contextlib.contextmanager
def signals_raised() -> Iterator[SignalHandler]:
    """Within it, SIGINT, SIGTERM and SIGHUP raise :class:`Interrupted` in the main thread.

    A signal that the process was started to ignore, as by ``nohup``, stays ignored. In another
    thread than the main one nothing is changed.
    """
    own = SignalHandler()
    if threading.current_thread() is not threading.main_thread():
        yield own
        return
    earlier: dict[int, Any] = {}
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            earlier[number] = signal.signal(number, own.handle)
    try:
        with _watched(own, frozenset(map(int, earlier))):
            yield own
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@contextlib.contextmanager
def _watched(handler: SignalHandler, numbers: frozenset[int]) -> Iterator[None]:
    if sys.platform == "win32":  # its wake-up takes a socket
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=handler.watch, args=(reader, numbers), daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writer, b"\0")
        watcher.join()
        os.close(reader)
        os.close(writer)
