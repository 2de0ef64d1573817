"""The lines of a session: raw data of all that was measured, and what it is resumed from."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    #: One line of a session, as it came: plain JSON, of which ``kind`` says what it is.
    Line = dict[str, Any]

__all__ = ["SessionError", "SessionLog", "open_log", "read_lines"]


class SessionError(Exception):
    """A session that cannot be; the message is a sentence or two."""


class SessionLog:
    """The lines of a session: those that are there are taken in turn, later ones are made.

    A session decides by nothing but its seed and its lines. So resuming a half-written one,
    or reading a finished one, goes through the same steps with the same lines.
    """

    def __init__(self, lines: Iterable[Line] = (), write: Callable[[Line], None] | None = None):
        self._there = deque(lines)
        self._write = write

    def line(self, place: Mapping[str, object], make: Callable[[], Mapping[str, object]]) -> Line:
        """The line at ``place``: the next that is there, or a new one with what ``make`` returns.

        Raises:
            SessionError: the next line is of another place, or there is none and none can be made.
        """
        return self.lines([place], lambda: [make()])[0]

    def lines(
        self,
        places: Sequence[Mapping[str, object]],
        make: Callable[[], Sequence[Mapping[str, object]]],
    ) -> list[Line]:
        """The lines at ``places``, which are made all at once if they are not there.

        Raises:
            SessionError: as from :meth:`line`.
        """
        if self._there or self._write is None:
            return [self._taken(place) for place in places]
        made = make()
        found = [{**places[i], **made[i]} for i in range(len(places))]
        for line in found:
            self._write(line)
        return found

    def _taken(self, place: Mapping[str, object]) -> Line:
        if not self._there:
            raise SessionError(f"its lines end before the one with {_described(place)}.")
        line = self._there.popleft()
        if any(line.get(key) != place[key] for key in place if key != "model"):
            raise SessionError(f"expected a line with {_described(place)}; got {_described(line)}.")
        return line


def _described(line: Mapping[str, object]) -> str:
    keys = ("kind", "index", "round", "label")
    return ", ".join(f"{key} {line[key]!r:.60}" for key in keys if key in line) or "no kind"


def read_lines(path: Path) -> tuple[list[Line], int]:
    """The whole lines of a file, and how many bytes they take; none where there is no file.

    Raises:
        SessionError: a line other than a torn last one is not a JSON object.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(content[:whole].splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise SessionError(f"{path}:{number}: not a line of a session; move the file away.")
        lines.append(line)
    return lines, whole


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[SessionLog]:
    """The lines in a file, to resume from: what is not whole at its end is cut off."""
    lines, whole = read_lines(path)
    # What a round timed side by side belongs together: half of a round is done again.
    half = 0
    while half < len(lines) and lines[-1 - half].get("kind") == "time":
        half += 1
    if half:
        lines = lines[:-half]
        whole = sum(map(len, path.read_bytes().splitlines(keepends=True)[: len(lines)]))
    with path.open("a", encoding="utf-8") as stream:
        stream.truncate(whole)

        def write(line: Line) -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        yield SessionLog(lines, write)
