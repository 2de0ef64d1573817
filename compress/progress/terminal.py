"""Progress on a terminal: a line with a bar below lines that stay; plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from compress.events import RunEnd, parse_event
from compress.formatting import sanitize
from compress.progress.lines import Moving, RunLines, Staying, clock
from compress.progress.remaining import Remaining
from compress.text_table import in_ascii

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["TerminalProgress"]

_BAR = 20  # cells of a terminal
_PAUSE_S = 0.2  # drawing takes a millisecond, and a step of a small net may take less


class TerminalProgress:
    """Turns a run's events into lines on ``stream``: standard error, so that output stays clean.

    A terminal has a line with a bar below those that stay. The end of the context takes it away.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._moving = _moving_line(self._stream)
        self._start_s = time.monotonic()
        self._lines, self._remaining = RunLines(), Remaining()
        self._is_full = False

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event; of a stage of the user's own, only those that are listed."""
        parsed = parse_event(event)
        self._remaining.take(parsed)
        match self._lines.of(parsed):
            case Staying(text=text, is_step=is_step):
                self.note(f"{text}{self._of_the_run() if is_step else ''}")
            case Moving(is_brief=is_brief) as moving:
                if not is_brief or (self._moving is not None and self._moving.is_due):
                    self._move(moving)
        if isinstance(parsed, RunEnd):
            self._clear()

    def _of_the_run(self) -> str:
        """What remains of the whole run, where it is known and somebody looks."""
        words = self._remaining.words if self._moving is not None else ""
        return f" ({words})" if words else ""

    def note(self, text: str) -> None:
        """Show a sentence on a line of its own, which stays."""
        self._clear()
        line = self._stamped(text)
        self._try(lambda: print(line, file=self._stream, flush=True))

    def _move(self, line: Moving) -> None:
        """Show a line where it is replaced by the next, or one that stays where nothing moves."""
        before, moving = f"{self._lines.stage or 'before the run'}:", self._moving
        left = [f"{clock(line.left_s)} left"] if line.left_s >= 1 else []
        if moving is None:
            self.note(f"{before} {', '.join([line.text, *left])}")
            return
        if words := self._remaining.brief:
            left = [" ".join([*left, f"({words})"])]
        # What comes last is cut where the terminal is narrow.
        shown = _printable(", ".join([*left, line.text]))
        self._try(lambda: moving.draw(self._stamped(before), line.done, shown))

    def _try(self, show: Callable[[], None]) -> None:
        if self._is_full:
            return
        try:
            show()
        except BrokenPipeError:
            raise  # whoever looked has ended it
        except OSError:
            self._is_full = True  # a full disk behind a log ends no run

    def _clear(self) -> None:
        if self._moving is not None:
            with contextlib.suppress(OSError):  # of a terminal that is gone
                self._moving.clear()

    def _stamped(self, text: str) -> str:
        return f"{clock(time.monotonic() - self._start_s):>6}  {_printable(text)}"


class _MovingLine:
    """The line below all others, which is drawn again and again.

    It is drawn by events alone: a thread that did would compute while inference is timed, and no
    event tells of that before it is over.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._drawn_s = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether it was drawn long enough ago to be drawn again."""
        return time.monotonic() - self._drawn_s > _PAUSE_S

    def draw(self, before: str, done: float | None, text: str) -> None:
        """Draw ``before``, a bar if it is known how much is ``done``, and what fits of ``text``."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        show = str if self._console.encoding.startswith("utf") else in_ascii
        # A string could hold rich's markup; a Text holds none.
        cells: list[RenderableType] = [Text(show(before))]
        if done is not None:
            width = max(1, min(_BAR, self._console.width // 8))
            cells.append(ProgressBar(1.0, done, width=width))
        line = Table.grid(padding=(0, 1, 0, 0))
        for _ in cells:
            line.add_column(no_wrap=True)  # what comes last is cut first
        line.add_row(*cells, Text(show(text), no_wrap=True, overflow="crop"))
        self._started().update(line, refresh=True)
        self._drawn_s = time.monotonic()

    def _started(self) -> Live:
        from rich.live import Live

        if self._live is None:
            # What others print meanwhile appears above the line.
            ours = self._console.file is sys.stderr
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=ours and sys.stdout.isatty(),
                redirect_stderr=ours,
            )
            self._live.start()
            self._console.show_cursor(True)  # a process that is killed could not do it later
        return self._live

    def clear(self) -> None:
        """Take it away, until it is drawn again."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def _moving_line(stream: TextIO) -> _MovingLine | None:
    """``None`` where nothing can move: in a file, a pipe, or a terminal without a cursor."""
    if not stream.isatty():
        return None
    from rich.console import Console

    # What is printed meanwhile is shown as it is.
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    return _MovingLine(console) if console.is_interactive else None


def _printable(text: str) -> str:
    return sanitize(text, len(text) + 1)
