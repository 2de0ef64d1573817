"""Progress in a notebook: one output that is replaced, with a bar, and the warnings below it."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compress.events import RunEnd, parse_event
from compress.formatting import sanitize
from compress.progress.lines import Moving, RunLines, Staying, clock
from compress.progress.remaining import Remaining

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

__all__ = ["NotebookProgress", "in_notebook"]

_PAUSE_S = 0.5  # every update travels to a browser
_MOST_LINES = 12
_BAR = 24


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, whoever shows it."""
    # What was not imported runs nothing.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """Turns a run's events into one output of a notebook's cell, which stays short.

    It is drawn by events alone, as :class:`~compress.progress.TerminalProgress` is.
    """

    def __init__(self) -> None:
        self._lines, self._remaining = RunLines(), Remaining()
        self._handle: DisplayHandle | None = None
        self._start_s = self._drawn_s = time.monotonic()
        self._now, self._kept, self._is_done = "", list[str](), False

    def __enter__(self) -> NotebookProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None and not self._is_done:
            self._now = f"stopped: {self._now}"
            self._draw()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event; of a stage of the user's own, only those that are listed."""
        parsed = parse_event(event)
        self._remaining.take(parsed)
        match self._lines.of(parsed):
            case Staying(text=text, is_step=True):
                self._show(text, None, is_due=True)
            case Staying(text=text):
                self._kept.append(text)
                self._draw()
            case Moving() as line:
                text = f"{self._lines.stage}: {line.text}"
                is_due = time.monotonic() - self._drawn_s > _PAUSE_S
                self._show(text, line.done, is_due=is_due or not line.is_brief)
        if isinstance(parsed, RunEnd) and parsed.status == "done":
            self._is_done = True
            self._now = f"done in {clock(time.monotonic() - self._start_s)}"
            self._draw()

    def _show(self, text: str, done: float | None, *, is_due: bool) -> None:
        if not is_due:
            return
        filled = round(_BAR * (done or 0.0))
        bar = "" if done is None else f" {'█' * filled}{'░' * (_BAR - filled)}"
        left = self._remaining.words
        self._now = f"{clock(time.monotonic() - self._start_s)}{bar}  {text}"
        self._now += f"\n      {left}" if left else ""
        self._draw()

    def _draw(self) -> None:
        from IPython.display import DisplayHandle

        lines = [*self._kept[-_MOST_LINES:], *self._now.split("\n")]
        shown = "\n".join(html.escape(sanitize(line, 300)) for line in lines if line)
        # As text, too: a notebook that is read elsewhere may show nothing else.
        output = {
            "text/html": f'<pre style="margin:0;white-space:pre-wrap">{shown}</pre>',
            "text/plain": "\n".join(lines),
        }
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(output, raw=True)
        else:
            self._handle.update(output, raw=True)
        self._drawn_s = time.monotonic()
