"""Standard streams that never fail for what is written to them: ASCII terminals, closed ones."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys

TYPE_CHECKING = False  # see the package: starting up is to be cheap
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

__all__ = ["discard", "open_closed_streams", "printable_streams"]

_ERRORS = "compresskit-plain"
# What tables and sentences use beyond ASCII.
_PLAIN = {
    "×": "x",
    "±": "+-",
    "…": "...",
    "−": "-",
    "–": "-",
    "—": "-",
    "·": "-",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "µ": "u",
    "²": "2",
    "’": "'",
}


def open_closed_streams() -> None:
    """Put nothing in the place of standard streams that are closed.

    Else the next file that is opened has the number of one, and whatever native code prints goes
    into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = _nothing()
    if sys.stderr is None:
        sys.stderr = _nothing()


def _nothing() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """Within it, characters that an output cannot show are replaced by others, or escaped."""
    codecs.register_error(_ERRORS, _as_ascii)
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors in ("strict", "backslashreplace"):
            with contextlib.suppress(OSError, ValueError):  # what was printed before is stuck
                changed.append((stream, stream.errors))
                stream.reconfigure(errors=_ERRORS)
    try:
        yield
    finally:
        for stream, errors in changed:
            with contextlib.suppress(OSError, ValueError):  # one that was closed meanwhile
                stream.reconfigure(errors=errors)


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = [_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text]
    return "".join(shown), error.end


def discard() -> None:
    """Let go of what can no longer be written: whoever read it is gone, or its disk is full.

    Else the interpreter tries again at its end, and complains.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
