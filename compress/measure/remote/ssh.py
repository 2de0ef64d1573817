"""A host over the system's own ``ssh`` and ``scp``: its shell, its settings, and the target."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal

from pydantic import Field

from compress.config.fields import Whole
from compress.errors import MeasurementError
from compress.measure.remote.shell import (
    DISK_FULL,
    LINK_BROKE,
    CommandResult,
    KnownFailure,
    LinkDown,
    Shell,
    execute,
    explained,
    transfer_s,
)
from compress.measure.remote.target import RemoteSettings, RemoteTarget
from compress.measure.target_kind import NAME_PATTERN

__all__ = ["SshSettings", "SshShell", "SshTarget"]

_HOST = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*$"

_CONNECT_S = 15
_SOCKET_ROOM = 80  # a socket's path has 104 bytes on some systems, and ssh appends 18 to it
# Devices without an SFTP server still have scp's older protocol; over a shared connection, scp does
# not say more than this about it.
_NO_SFTP = r"sftp|subsystem|connection closed"

# In this order: the first line of ssh about a changed key also says that verification failed.
_SSH_FAILURES = (
    KnownFailure(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key is not the one that this machine knows: the device was set up anew, or "
        "another one answers in its place; if it was, run `ssh-keygen -R {name}` and `ssh {host}` "
        "once",
    ),
    KnownFailure(
        r"Host key verification failed|host key is known for",
        "its host key is not known to this machine; run `ssh {host}` once and accept it",
    ),
    KnownFailure(
        r"[Pp]ermission denied \(",
        "permission denied: no key that this machine offers is accepted there; run "
        "`ssh-copy-id {host}`, or `ssh-add` for a key with a passphrase",
    ),
    KnownFailure(
        r"Bad configuration option|Can't open user config file|bad configuration options",
        "ssh refuses its configuration ({words})",
    ),
    DISK_FULL,
    KnownFailure(
        r"Could not resolve hostname",
        "there is no host of that name; check it, or the `Host` block in ~/.ssh/config",
        again=True,
    ),
    KnownFailure(
        r"Connection refused",
        "it refuses connections; is its ssh server running, and on this port",
        again=True,
    ),
    KnownFailure(
        r"timed out|No route to host|[Nn]etwork is unreachable|Host is down",
        "it does not answer ({words}); is it on, and on this network",
        again=True,
    ),
    KnownFailure(
        r"lost connection|[Cc]onnection (closed|reset)|Broken pipe|disconnect",
        "the link broke ({words})",
        again=True,
    ),
)


class SshShell:
    """One host, by the name that ``ssh`` knows it under: aliases and jump hosts work.

    One connection is shared by all calls: an open one of the user's own (``ControlMaster``), or
    else one that lives as long as this object. Nothing is ever asked for: a host that wants a
    password needs a key, or an open connection of the user's own.

    Args:
        host: ``HOST`` or ``USER@HOST``.
        port: where the host's configuration does not say.
        config: a file in place of ``~/.ssh/config``. It can name programs for ssh to start: never
            take it from a stranger.
    """

    def __init__(self, host: str, *, port: int | None = None, config: Path | None = None) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*", host):
            raise MeasurementError(
                f"ssh: {host!r} is no name of a host; give HOST or USER@HOST, and anything else in "
                "a `Host` block of ~/.ssh/config."
            )
        self._host = host
        self._own = ["-F", str(config)] if config else []
        self._own += ["-o", f"Port={port}"] if port else []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._sharing: list[str] = []
        self._old_scp = False

    @property
    def where(self) -> str:
        """``ssh:HOST``."""
        return f"ssh:{self._host}"

    def __enter__(self) -> SshShell:
        if not self._users_own_connection():
            self._folder = _short_folder()
            path = f"{self._folder.name}/s"
            self._sharing = ["-o", "ControlMaster=auto", "-o", "ControlPersist=120"]
            self._sharing += ["-o", f"ControlPath={path}"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reset()
        if self._folder is not None:
            self._folder.cleanup()

    def run(self, command: str, *, stdin: str = "", timeout_s: float = 60) -> CommandResult:
        """Run ``command``; see :class:`Shell`."""
        whole = ["ssh", *self._options(), "-T", "-o", "RemoteCommand=none"]
        done = execute([*whole, "--", self._host, command], stdin, timeout_s, self.where, "OpenSSH")
        if done.code == LINK_BROKE:
            raise self._error(done)
        return done

    def put(self, files: Sequence[Path], folder: str) -> None:
        """Copy ``files`` into ``folder``; see :class:`Shell`."""
        limit_s = transfer_s(sum(file.stat().st_size for file in files))
        self._copy([*map(str, files), f"{self._remote()}:{folder}/"], limit_s)

    def get(self, path: str, file: Path, size_bytes: int) -> None:
        """Copy one file from the device; see :class:`Shell`."""
        self._copy([f"{self._remote()}:{path}", str(file)], transfer_s(size_bytes))

    def reset(self) -> None:
        """Close the shared connection, unless it is the user's own."""
        if self._sharing:
            command = ["ssh", *self._own, *self._sharing, "-O", "exit", "--", self._host]
            with suppress(LinkDown):
                execute(command, "", _CONNECT_S, self.where, "OpenSSH")

    def _copy(self, ends: Sequence[str], limit_s: float) -> None:
        done = self._scp(ends, limit_s, old=self._old_scp)
        if done.code and not self._old_scp and re.search(_NO_SFTP, done.stderr, re.I):
            self.run("true")  # or it is the link, and this says so
            done = self._scp(ends, limit_s, old=True)
            self._old_scp = done.code == 0
        if done.code:
            raise self._error(done)

    def _scp(self, ends: Sequence[str], limit_s: float, *, old: bool) -> CommandResult:
        protocol = ["-O"] if old else []
        command = ["scp", "-q", *protocol, *self._options(), "--", *ends]
        return execute(command, "", limit_s, self.where, "OpenSSH")

    def _options(self) -> list[str]:
        options = ["BatchMode=yes", f"ConnectTimeout={_CONNECT_S}", "LogLevel=ERROR"]
        options += ["ServerAliveInterval=15", "ServerAliveCountMax=3"]
        # The device gets nothing of this machine beyond the connection itself.
        options += ["ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes"]
        return [*self._own, *(part for o in options for part in ("-o", o)), *self._sharing]

    def _users_own_connection(self) -> bool:
        command = ["ssh", *self._own, "-O", "check", "--", self._host]
        return execute(command, "", _CONNECT_S, self.where, "OpenSSH").code == 0

    def _remote(self) -> str:
        user, at, name = self._host.rpartition("@")
        return f"{user}{at}[{name}]" if ":" in name else self._host

    def _error(self, done: CommandResult) -> MeasurementError:
        names = {"host": self._host, "name": self._host.rpartition("@")[2]}
        return explained(self.where, _SSH_FAILURES, done, names)


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    usual = len(tempfile.gettempdir()) + len("/ck-12345678/s")
    return tempfile.TemporaryDirectory(prefix="ck-", dir="/tmp" if usual > _SOCKET_ROOM else None)


class SshSettings(RemoteSettings):
    """A device that ``ssh HOST`` reaches without asking for anything."""

    place: ClassVar[str] = "HOST"
    place_key: ClassVar[str] = "host"
    options: ClassVar[tuple[str, ...]] = (*RemoteSettings.options, "config")

    name: str = Field(default="ssh", pattern=NAME_PATTERN)
    """What the target is called in tables and files; unique within a recipe."""
    kind: Literal["ssh"]
    host: str = Field(pattern=_HOST, max_length=300)
    """HOST or USER@HOST, an alias in ~/.ssh/config included, which is where everything else about
    the way there belongs."""
    port: Whole | None = Field(default=None, ge=1, le=65535)
    """Port of the ssh server. Where not given, as ~/.ssh/config says, or 22."""

    @classmethod
    def target_type(cls) -> type[SshTarget]:
        """The target itself."""
        return SshTarget


class SshTarget(SshSettings, RemoteTarget):
    """A device over ``ssh``; see :class:`SshSettings`.

    ``config`` is a file in place of ~/.ssh/config. It is not a key of recipes: such a file can name
    programs for ssh to start on this machine.
    """

    kind: Literal["ssh"] = "ssh"
    config: Path | None = None

    def shell(self) -> Shell:
        """A new connection."""
        return SshShell(self.host, port=self.port, config=self.config)
