"""An Android device over ``adb``: its shell, its settings, and the target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal

from pydantic import Field

from compress.errors import MeasurementError
from compress.measure.remote.shell import (
    DISK_FULL,
    CommandResult,
    KnownFailure,
    Shell,
    execute,
    explained,
    transfer_s,
)
from compress.measure.remote.target import FOLDER_PATTERN, RemoteSettings, RemoteTarget
from compress.measure.target_kind import NAME_PATTERN

__all__ = ["AdbSettings", "AdbShell", "AdbTarget"]

_TOOLS = "the Android platform tools"
_SERIAL = r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$"

_ADB_FAILURES = (
    KnownFailure(
        r"unauthorized",
        "the device does not trust this machine; unlock it and allow USB debugging",
    ),
    KnownFailure(
        r"more than one device",
        "several devices are attached; name one, as in `adb:SERIAL` (`adb devices` lists them)",
    ),
    DISK_FULL,
    KnownFailure(
        r"no devices|device '.*' not found|device not found",
        "no such device is attached; plug it in, and see that `adb devices` lists it",
        again=True,
    ),
    KnownFailure(r"offline|closed|protocol fault|Connection reset", "the link is down", again=True),
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

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 60) -> CommandResult:
        """Run ``command``; see :class:`Shell`."""
        done = self._adb(["shell", command], stdin, timeout_s)
        # adb hands on the command's own status, so that only the words tell whose failure it is.
        if done.code and re.search(r"^(adb|error): ", done.stderr, re.M):
            raise explained(self.where, _ADB_FAILURES, done, {})
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
            raise explained(self.where, _ADB_FAILURES, done, {})

    def _adb(self, arguments: Sequence[str], stdin: str, timeout_s: float) -> CommandResult:
        device = ["-s", self._serial] if self._serial else []
        return execute(
            ["adb", *device, *arguments], stdin, timeout_s, self.where, "the Android platform tools"
        )


class AdbSettings(RemoteSettings):
    """An Android device that ``adb`` reaches."""

    place: ClassVar[str] = "SERIAL"
    place_key: ClassVar[str] = "serial"
    is_place_needed: ClassVar[bool] = False

    name: str = Field(default="adb", pattern=NAME_PATTERN)
    """What the target is called in tables and files; unique within a recipe."""
    kind: Literal["adb"]
    serial: str | None = Field(default=None, pattern=_SERIAL, max_length=100)
    """The device, as ``adb devices`` lists it. Where not given, the only one."""
    folder: str = Field(
        default="/data/local/tmp/compresskit", pattern=FOLDER_PATTERN, max_length=1000
    )
    """A folder of its own on the device, for models and samples."""

    @classmethod
    def target_type(cls) -> type[AdbTarget]:
        """The target itself."""
        return AdbTarget


class AdbTarget(AdbSettings, RemoteTarget):
    """An Android device over ``adb``; see :class:`AdbSettings`."""

    kind: Literal["adb"] = "adb"

    def shell(self) -> Shell:
        """The way through adb's server."""
        return AdbShell(self.serial)
