"""Progress on the terminal: one line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from compress.events import (
    CandidateMeasured,
    EpochEnd,
    Event,
    MeasurementReused,
    MeasureStart,
    Notice,
    ReadingData,
    Redone,
    Resumed,
    RunEnd,
    StageStart,
    StageWarning,
    StepEnd,
    TeacherPass,
    parse_event,
)

__all__ = ["TerminalProgress"]


class TerminalProgress:
    """Turns a run's events into lines on ``stream``: standard error, so that output stays clean."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._moves = self._stream.isatty()
        self._start_s = time.monotonic()
        self._stage, self._of = "", 0  # the label of a stage with its row, and the last row
        self._is_full = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event; of a stage of the user's own, only those that are listed."""
        match parse_event(event):
            case StageStart(index=index, label=label, of=last):
                self._of = last
                self._stage = self._at(index, label)
                self._settle(self._stage)
            case StepEnd() as step:
                self._step(step)
            case TeacherPass(view=view, views=views):
                self._move(f"{self._stage}: running the teacher, view {view}/{views}")
            case EpochEnd() as epoch:
                self._move(self._epoch(epoch))
            case ReadingData(what=what) if self._moves:
                self._move(f"{self._stage or 'before the run'}: reading {what}")
            case RunEnd():
                self._settle("")
            case parsed:
                line = self._line(parsed)
                if line is not None:
                    self._settle(line)

    def _line(self, event: Event | None) -> str | None:
        """What an event says on a line that stays; ``None`` for nothing."""
        match event:
            case Resumed(epoch=epoch):
                return f"{self._stage}: resumed after epoch {epoch}"
            case StageWarning(text=text):
                return f"{self._stage}: {text}"
            case Redone(index=index, label=label, why=why, what=what):
                return f"{self._at(index, label)}: {what or 'done'} again, since {why}"
            case Notice(text=text):
                return text
            case MeasureStart(index=index, label=label):
                return f"{self._at(index, label)}: measuring"
            case MeasurementReused(index=index, label=label):
                return f"{self._at(index, label)}: unchanged, measurements re-used"
            case CandidateMeasured() as tried:
                return f"{self._stage}: measured a candidate, {_tried(tried)}"
        return None

    def _at(self, index: int | None, label: str | None) -> str:
        # Rows are measured again once there is a baseline: an event may be of an earlier stage.
        if index is None:  # a net of a suite
            return self._stage
        return f"[{index}/{self._of}] {label}"

    def note(self, text: str) -> None:
        """Show a sentence on a line of its own."""
        self._settle(text)

    def _epoch(self, epoch: EpochEnd) -> str:
        validation = epoch.validation_loss
        seen = "" if validation is None else f", validation {validation:.4f}"
        return (
            f"{self._stage}: epoch {epoch.epoch}/{epoch.epochs}, loss {epoch.loss:.4f}"
            f"{seen}, {_pace(epoch)}"
        )

    def _step(self, step: StepEnd) -> None:
        # Lines that stay would be too many.
        if self._moves:
            self._move(
                f"{self._stage}: epoch {step.epoch}/{step.epochs}, step {step.step}/{step.steps}, "
                f"loss {step.loss:.4f}, {_pace(step)}"
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


def _pace(event: EpochEnd | StepEnd) -> str:
    left = f", {_clock(event.left_s)} left" if event.left_s >= 1 else ""
    return f"{event.samples_per_s:.0f} samples/s{left}"


def _tried(tried: CandidateMeasured) -> str:
    size = f"{tried.bytes / 1024:.1f} KiB, score {tried.score:.4f}"
    return size if tried.speedup is None else f"{size}, {tried.speedup:.2f}x as fast as before"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
