"""Progress: what a run's events say to whoever waits for it, in a terminal, a notebook or a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from compress.events import EventCallback
from compress.progress.notebook import NotebookProgress, in_notebook
from compress.progress.terminal import TerminalProgress

__all__ = ["NotebookProgress", "TerminalProgress", "progress_for"]


@contextmanager
def progress_for(wanted: bool | None, observer: EventCallback) -> Iterator[EventCallback]:
    """What shows a run's events, if that is ``wanted``, and hands each to ``observer``.

    ``None`` wants it where somebody looks: in a notebook, or where standard error is a terminal.
    ``True`` gives plain lines elsewhere.
    """
    if wanted is None:
        wanted = in_notebook() or (sys.stderr is not None and sys.stderr.isatty())
    if not wanted:
        yield observer
        return
    with NotebookProgress() if in_notebook() else TerminalProgress() as show:

        def callback(event: Mapping[str, Any]) -> None:
            show(event)
            observer(event)

        yield callback
