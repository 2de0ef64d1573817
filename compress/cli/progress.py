"""Progress on the terminal: one line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

__all__ = ["Progress"]


class Progress:
    """Turns a run's events into lines on ``stream``: standard error, so that output stays clean."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._moves = self._stream.isatty()
        self._start_s = time.monotonic()
        self._stage, self._of = "", 0
        self._is_full = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        kind = event["event"]
        if kind == "stage":
            self._of = event["of"]
            self._stage = self._at(event)
            self._settle(f"{self._stage}")
        elif kind == "epoch":
            self._move(self._epoch(event))
        elif kind == "step":
            self._step(event)
        elif kind == "resumed":
            self._settle(f"{self._stage}: going on after epoch {event['epoch']}")
        elif kind == "teacher":
            self._move(f"{self._stage}: asking the teacher, view {event['view']}/{event['views']}")
        elif kind == "warning":
            self._settle(f"{self._stage}: {event['text']}")
        elif kind == "again":
            what = event.get("what", "done")
            self._settle(f"{self._at(event)}: {what} again, since {event['why']}")
        elif kind == "notice":
            self._settle(event["text"])
        elif kind == "reading" and self._moves:
            self._move(f"{self._stage or 'before the run'}: reading {event['what']}")
        elif kind == "measure":
            self._settle(f"{self._at(event)}: measuring")
        elif kind == "reuse":
            self._settle(f"{self._at(event)}: unchanged, measurements re-used")
        elif kind == "end":
            self._settle("")

    def _at(self, event: Mapping[str, Any]) -> str:
        # Rows are measured again once there is a baseline: not only the last stage is told of.
        if "index" not in event:  # a net of a suite
            return self._stage
        return f"[{event['index']}/{self._of}] {event['label']}"

    def note(self, text: str) -> None:
        """Show a sentence on a line of its own."""
        self._settle(text)

    def _epoch(self, event: Mapping[str, Any]) -> str:
        validation = event["validation_loss"]
        seen = "" if validation is None else f", validation {validation:.4f}"
        return (
            f"{self._stage}: epoch {event['epoch']}/{event['epochs']}, loss {event['loss']:.4f}"
            f"{seen}, {_pace(event)}"
        )

    def _step(self, event: Mapping[str, Any]) -> None:
        # Lines that stay would be too many.
        if self._moves:
            self._move(
                f"{self._stage}: epoch {event['epoch']}/{event['epochs']}, step {event['step']}/"
                f"{event['steps']}, loss {event['loss']:.4f}, {_pace(event)}"
            )

    def _move(self, text: str) -> None:
        if not self._moves:
            self._settle(text)
            return
        width = _width()
        self._write(f"\r{self._stamped(text)[:width]:<{width}}")

    def _settle(self, text: str) -> None:
        cleared = f"\r{'':<{_width()}}\r" if self._moves else ""
        self._write(cleared + (f"{self._stamped(text)}\n" if text else ""))

    def _write(self, text: str) -> None:
        if self._is_full:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise  # whoever looked has ended it
        except OSError:
            self._is_full = True  # a full disk behind a log ends no run

    def _stamped(self, text: str) -> str:
        return f"{_clock(time.monotonic() - self._start_s):>6}  {text}"


def _width() -> int:
    # One less: a full last column makes some terminals begin a new line.
    return max(1, shutil.get_terminal_size().columns - 1)


def _pace(event: Mapping[str, Any]) -> str:
    left = f", {_clock(event['left_s'])} left" if event["left_s"] >= 1 else ""
    return f"{event['samples_per_s']:.0f} samples/s{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
