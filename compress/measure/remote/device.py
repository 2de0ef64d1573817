"""RemoteDevice: measuring sessions on another machine, over a link that may break at any time.

Files go over once, by content. The program is started so that it needs no one; from then on the
only traffic is one short look at its lines now and then, less often the longer it takes. When the
link breaks, it is tried again with growing pauses, and a repeated command finds the session where
it is.
Knows folders and lines, not what they mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from compress.errors import MeasurementError
from compress.io.scratch import scratch
from compress.measure.program import PROGRAM
from compress.measure.remote.agent import MARK
from compress.measure.remote.shell import LinkDown, Shell, home_path

__all__ = ["Location", "RemoteDevice", "SessionFiles"]

#: A line of a session, or an answer of the agent: plain JSON.
Line = dict[str, Any]
_Result = TypeVar("_Result")

_AGENT = Path(__file__).with_name("agent.py")

_LEAST_PYTHON = (3, 9)
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_PATIENT = 0.25  # pauses grow to this share of the time that a session has taken so far
_QUIET_S = 4.0  # without a new line; then the program is looked after, and after twice that again
_MOST_STARTS = 3  # of a program that gets nothing done
_AGENT_S = 120  # it may have to read large files
_BUSY, _WRONG = 3, 2  # exit statuses of the program


@dataclass(frozen=True)
class Location:
    """Where on a device, and with which Python."""

    folder: str
    python: str = "python3"


@dataclass(frozen=True)
class SessionFiles:
    """A folder that the program understands, by the files in it."""

    files: Mapping[str, Path]
    digests: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> SessionFiles:
        """What lies in ``folder``: a session, and the program beside it."""
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return cls(files, {name: _sha256(path) for name, path in files.items()})

    @property
    def key(self) -> str:
        """The same for the same files."""
        text = json.dumps(self.digests, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def by_digest(self) -> dict[str, Path]:
        """One file for each content."""
        return {digest: self.files[name] for name, digest in self.digests.items()}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass
class RemoteDevice:
    """A place behind a shell.

    Args:
        shell: the way there.
        location: folder and Python.
        patience_s: how long a broken link is tried again, and how long a device may be silent.
        met: whether the device answered before: then a link that is down may come back.
        sleep: for tests.
    """

    shell: Shell
    location: Location
    patience_s: float
    met: bool = False
    sleep: Callable[[float], None] = time.sleep
    _folder: str = field(default="", init=False)
    _free_bytes: int = field(default=0, init=False)
    _token: str = field(default_factory=lambda: secrets.token_hex(8), init=False)

    def hello(self) -> Line:
        """Versions of Python and libraries, and free bytes.

        Raises:
            MeasurementError: the device cannot be reached, or has no Python for the agent.
        """
        job = {"kind": "hello", "folder": self.location.folder}
        facts = self._ask(job) if self.met else self._asked(job)
        self._folder, self._free_bytes = facts["folder"], facts["free_bytes"]
        return facts

    def prepare(self) -> None:
        """Make contact, and see that sessions can run.

        Raises:
            MeasurementError: they cannot; the message says what to install.
        """
        facts = self.hello()
        version = tuple(int(part) for part in facts["python"].split(".")[:2])
        if version < _LEAST_PYTHON:
            raise MeasurementError(
                f"{self.shell.where}: {self.location.python} there is Python {facts['python']}, "
                "and measuring needs 3.9; give `python` the path of a newer one."
            )
        missing = [name for name, found in facts["libraries"].items() if found is None]
        if missing:
            raise MeasurementError(
                f"{self.shell.where}: {self.location.python} there ({facts['python']}) has no "
                f"{' and no '.join(missing)}; run `{self.location.python} -m pip install "
                f"{' '.join(missing)}` there, or give `python` the path of one that has."
            )

    def run(self, session: SessionFiles, limit_s: float) -> Iterator[Line]:
        """The program's lines, as they are fetched; picks up a session that is there already.

        ``limit_s`` is the longest that the program may go without a new line.

        Raises:
            MeasurementError: the device is busy, full or out of reach, or the program fails.
        """
        self._push(session)
        self._started(session, 0)
        path = self._session_folder(session)
        began = news = time.monotonic()
        offset, quiet_s, starts = 0, _QUIET_S, 1
        while True:
            text = self._look(path, offset)
            now = time.monotonic()
            if text:
                offset, news, quiet_s, starts = offset + len(text), now, _QUIET_S, 0
                for line in map(json.loads, text.splitlines()):
                    yield line
                    if line["kind"] == "end":
                        return
            elif now - news > limit_s:
                raise MeasurementError(
                    f"{self.shell.where}: the program has been silent for {now - news:.0f} s; see "
                    f"{path} there."
                )
            elif now - news > quiet_s:
                quiet_s *= 2
                starts += self._started(session, starts)
            self.sleep(_pause_s(now - began))

    def outputs(self, session: SessionFiles, folder: Path) -> dict[str, Path]:
        """Fetch what the program left in ``outputs``, into ``folder``, by name.

        Raises:
            MeasurementError: the device is out of reach, or a file keeps arriving damaged.
        """
        found = self._ask({"kind": "outputs", "session": self._session_folder(session)})
        fetched = {}
        for file in found["files"]:
            local = folder / Path(file["path"]).name
            self._again(partial(self._fetch, file, local))
            fetched[local.name] = local
        return fetched

    def settle(self, session: SessionFiles) -> None:
        """Report that the results are here: the same session starts anew next time."""
        job = {"kind": "settle", "session": self._session_folder(session)}
        # Not worth failing for: at worst the next one is answered with these results again.
        with contextlib.suppress(LinkDown):
            self._again(lambda: self._asked(job), min(self.patience_s, _LONGEST_PAUSE_S))

    # -- files ---------------------------------------------------------------------------------

    def _push(self, session: SessionFiles) -> None:
        files = session.by_digest
        sizes = {digest: path.stat().st_size for digest, path in files.items()}

        def attempt() -> None:
            job = {"kind": "want", "token": self._token, "files": sizes}
            wanted = self._asked(job)
            if wanted["missing"]:
                self._send(
                    {digest: files[digest] for digest in wanted["missing"]}, wanted["incoming"]
                )
                wanted = self._asked(job)
            if wanted["missing"]:
                raise LinkDown(f"{self.shell.where}: files keep arriving damaged.")

        self._again(attempt)

    def _send(self, files: Mapping[str, Path], incoming: str) -> None:
        size = sum(path.stat().st_size for path in files.values())
        if size > self._free_bytes:
            raise MeasurementError(
                f"{self.shell.where}: {_mib(size)} have to go to {self._folder}, where "
                f"{_mib(self._free_bytes)} are free; free some, or give `folder` another place."
            )
        with scratch() as folder:
            named = []
            for digest, path in files.items():
                named.append(Path(folder) / digest)
                named[-1].symlink_to(path.absolute())
            self.shell.put(named, incoming)

    def _fetch(self, file: Line, local: Path) -> None:
        self.shell.get(file["path"], local, file["bytes"])
        if _sha256(local) != file["sha256"]:
            raise LinkDown(f"{self.shell.where}: {file['path']} keeps arriving damaged.")

    # -- the program ---------------------------------------------------------------------------

    def _started(self, session: SessionFiles, starts: int) -> bool:
        """See that the program runs, or is done; whether it had to be started (again)."""
        job = {
            "kind": "start",
            "key": session.key,
            "links": session.digests,
            "program": PROGRAM,
        }
        state = self._ask(job)
        words = (state["words"].strip().splitlines() or ["it left no message"])[-1]
        if state["code"] in (_BUSY, _WRONG):
            raise MeasurementError(f"{self.shell.where}: {words}")
        if state["started"] and starts >= _MOST_STARTS:
            raise MeasurementError(
                f"{self.shell.where}: the program ended {starts} times without getting anything "
                f"done ({words})."
            )
        return bool(state["started"])

    def _look(self, path: str, offset: int) -> str:
        """The whole lines from ``offset`` on."""
        command = f"echo {MARK}; tail -c +{offset + 1} {shlex.quote(path)}/session.jsonl"
        done = self._again(lambda: self.shell.run(command))
        _, _, text = done.out.partition(f"{MARK}\n")
        return text[: text.rfind("\n") + 1]

    def _session_folder(self, session: SessionFiles) -> str:
        return f"{self._folder}/sessions/{session.key}"

    # -- the agent -----------------------------------------------------------------------------

    def _ask(self, job: Mapping[str, object]) -> Line:
        return self._again(lambda: self._asked(job))

    def _asked(self, job: Mapping[str, object]) -> Line:
        text = json.dumps({"folder": self._folder, **job})
        code = f"{_AGENT.read_text(encoding='utf-8')}\nmain({text!r})\n"
        done = self.shell.run(
            f"{home_path(self.location.python)} -I -", stdin=code, timeout_s=_AGENT_S
        )
        _, mark, answer = done.out.rpartition(MARK)
        if not mark:
            raise MeasurementError(self._no_answer(done.code, done.stderr))
        result: Line = json.loads(answer)
        if result.get("full"):
            raise MeasurementError(
                f"{self.shell.where}: no space is left in {self.location.folder}; free some, or "
                "give `folder` another place."
            )
        if "error" in result:
            raise MeasurementError(f"{self.shell.where}: {result['error']}.")
        return result

    def _no_answer(self, code: int, stderr: str) -> str:
        if code in (126, 127):
            return (
                f"{self.shell.where}: there is no {self.location.python} there; install Python 3.9 "
                "or newer with numpy and onnxruntime, or give `python` the path of one."
            )
        last = (stderr.strip().splitlines() or ["it left no message"])[-1]
        return f"{self.shell.where}: {self.location.python} there ended with status {code}: {last}."

    def _again(self, action: Callable[[], _Result], patience_s: float | None = None) -> _Result:
        """Do ``action``, and again with growing pauses as long as the link is down."""
        limit_s = self.patience_s if patience_s is None else patience_s
        begin = time.monotonic()
        pause_s = _SHORTEST_PAUSE_S
        while True:
            try:
                return action()
            except LinkDown as error:
                down_s = time.monotonic() - begin
                if down_s > limit_s:
                    raise LinkDown(
                        f"{error} Given up after {down_s:.0f} s; what runs there continues, and "
                        "the same command resumes from it."
                    ) from error
            self.shell.reset()
            self.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _pause_s(taken_s: float) -> float:
    return min(max(_PATIENT * taken_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
