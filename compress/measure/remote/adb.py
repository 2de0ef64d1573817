"""AdbShell: an Android device over ``adb``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from compress.errors import MeasurementError
from compress.measure.remote.shell import DISK_FULL, Cause, Done, execute, explained, transfer_s

__all__ = ["AdbShell"]

_ADB_CAUSES = (
    Cause(
        r"unauthorized",
        "the device does not trust this machine; unlock it and allow USB debugging",
    ),
    Cause(
        r"more than one device",
        "several devices are attached; name one, as in `adb:SERIAL` (`adb devices` lists them)",
    ),
    DISK_FULL,
    Cause(
        r"no devices|device '.*' not found|device not found",
        "no such device is attached; plug it in, and see that `adb devices` lists it",
        again=True,
    ),
    Cause(r"offline|closed|protocol fault|Connection reset", "the link is down", again=True),
)


class AdbShell:
    """An Android device on USB or the network, through ``adb``.

    Args:
        serial: as ``adb devices`` lists it; where not given, the only device there is.
    """

    def __init__(self, serial: str | None = None) -> None:
        if serial is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", serial):
            raise MeasurementError(
                f"adb: {serial!r} is no serial number; `adb devices` lists those there are."
            )
        self._serial = serial

    @property
    def where(self) -> str:
        """``adb:SERIAL``, or ``adb``."""
        return f"adb:{self._serial}" if self._serial else "adb"

    def __enter__(self) -> AdbShell:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close: the connection belongs to adb's own server."""

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 60) -> Done:
        """Run ``command``; see :class:`Shell`."""
        done = self._adb(["shell", command], stdin, timeout_s)
        # adb hands on the command's own status, so that only the words tell whose failure it is.
        if done.code and re.search(r"^(adb|error): ", done.complaint, re.M):
            raise explained(self.where, _ADB_CAUSES, done, {})
        return done

    def put(self, files: Sequence[Path], folder: str) -> None:
        """Copy ``files`` into ``folder``; see :class:`Shell`."""
        # Not several in one call: then adb would follow no links, and take a folder for granted.
        for file in files:
            self._transfer(
                ["push", str(file.resolve()), f"{folder}/{file.name}"], file.stat().st_size
            )

    def get(self, path: str, file: Path, size_bytes: int) -> None:
        """Copy one file from the device; see :class:`Shell`."""
        self._transfer(["pull", path, str(file)], size_bytes)

    def reset(self) -> None:
        """Nothing to forget."""

    def _transfer(self, arguments: Sequence[str], size_bytes: int) -> None:
        done = self._adb(arguments, "", transfer_s(size_bytes))
        if done.code:
            raise explained(self.where, _ADB_CAUSES, done, {})

    def _adb(self, arguments: Sequence[str], stdin: str, timeout_s: float) -> Done:
        device = ["-s", self._serial] if self._serial else []
        return execute(["adb", *device, *arguments], stdin, timeout_s, self.where)
