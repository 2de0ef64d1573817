"""Shells on other devices, and what the programs that make them say when they fail.

A shell runs a command, puts files and gets one; it knows nothing of models. What ``ssh``, ``scp``
or ``adb`` complains of becomes one sentence: :class:`LinkDown` where trying again may help, and a
plain :class:`MeasurementError` where it will not.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from compress.errors import MeasurementError

__all__ = [
    "DISK_FULL",
    "LINK_BROKE",
    "CommandResult",
    "KnownFailure",
    "LinkDown",
    "Shell",
    "execute",
    "explained",
    "home_path",
    "transfer_s",
]

LINK_BROKE = 255  # the status of an error of ssh itself

_LEAST_BYTES_PER_S = 20_000  # a slower transfer counts as stuck
_TRANSFER_S = 60
# What becomes the program, having asked Linux to end it with this process: a transfer would go on
# for as long as it takes. (Doing so between fork and exec is not safe where there are threads.)
_PR_SET_PDEATHSIG = 1
_WITH_PARENT = (
    "import ctypes, os, sys; parent, *command = sys.argv[1:]; "
    f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)}); "
    "os.getppid() == int(parent) or sys.exit(1); os.execvp(command[0], command)"
)


class LinkDown(MeasurementError):
    """The device cannot be reached at the moment."""


@dataclass(frozen=True)
class CommandResult:
    """What a command on the device left behind."""

    code: int
    out: str
    stderr: str


class Shell(Protocol):
    """A way onto one device. A context manager: leaving it closes the connection."""

    @property
    def where(self) -> str:
        """The device, as messages name it."""
        ...

    def __enter__(self) -> Shell: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 60) -> CommandResult:
        """Run ``command``, which must be quoted for a shell.

        Raises:
            LinkDown: the device does not answer.
            MeasurementError: it never will like this.
        """
        ...

    def put(self, files: Sequence[Path], folder: str) -> None:
        """Copy ``files`` into ``folder``, which exists, under their own names; raises as run does.

        What was there under that name is replaced, perhaps in part.
        """
        ...

    def get(self, path: str, file: Path, size_bytes: int) -> None:
        """Copy one file from the device; raises as :meth:`run` does."""
        ...

    def reset(self) -> None:
        """Forget the connection, so that the next call makes a new one."""
        ...


@dataclass(frozen=True)
class KnownFailure:
    """Words of a program, and what they mean. ``again`` is whether trying again may help."""

    words: str
    meaning: str
    again: bool = False


DISK_FULL = KnownFailure(
    r"No space left on device|Disk quota exceeded|ENOSPC",
    "no space is left there for models and samples; free some, or give `folder` another place",
)


def explained(
    where: str, failures: Sequence[KnownFailure], done: CommandResult, names: Mapping[str, str]
) -> MeasurementError:
    """The error for what a program said; for what nobody foresaw, its last line."""
    said = done.stderr or done.out
    for failure in failures:
        if found := re.search(failure.words, said):
            facts = {**names, "words": _line_with(said, found.start())}
            kind = LinkDown if failure.again else MeasurementError
            return kind(f"{where}: {failure.meaning.format_map(facts)}.")
    last = (said.strip().splitlines() or ["it gave no reason"])[-1].strip().rstrip(".")
    if done.code == LINK_BROKE:
        return LinkDown(f"{where}: the link broke ({last}).")
    return MeasurementError(f"{where}: status {done.code}: {last}.")


def _line_with(text: str, place: int) -> str:
    begin = text.rfind("\n", 0, place) + 1
    return text[begin:].partition("\n")[0].strip().rstrip(".")


def execute(
    command: Sequence[str], stdin: str, timeout_s: float, where: str, install: str = "it"
) -> CommandResult:
    """Run a program of this machine that talks to the device ``where``.

    ``install`` is what brings the program, for the error where it is missing.

    Raises:
        LinkDown: it took longer than ``timeout_s``, and was stopped.
        MeasurementError: there is no such program.
    """
    # Errors go to a file, not a pipe: the connection that ssh leaves behind for later calls keeps
    # it open in some versions, and a pipe would then never end.
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                _ended_with_this_process(command),
                input=stdin.encode(),
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise MeasurementError(
                f"{where}: there is no `{command[0]}` on this machine; install {install}."
            ) from None
        except subprocess.TimeoutExpired:
            raise LinkDown(f"{where}: no answer within {timeout_s:g} s.") from None
        return CommandResult(done.returncode, done.stdout.decode(errors="replace"), _text(errors))


def _ended_with_this_process(command: Sequence[str]) -> list[str]:
    if not sys.platform.startswith("linux") or shutil.which(command[0]) is None:
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), *command]


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def transfer_s(size_bytes: int) -> float:
    """How long a transfer may take before it counts as stuck."""
    return _TRANSFER_S + size_bytes / _LEAST_BYTES_PER_S


def home_path(path: str) -> str:
    """``path`` quoted for a shell, with a leading ``~`` still meaning the home folder."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)
