"""Agent: what is done on a device between sessions. Its text is piped to the device's Python.

Nothing is installed: ``python3 -I -`` reads this file and a last line that calls :func:`main`, so
that a text cut off by a broken link does nothing at all. Standard library only; every job may be
asked for again, since an answer can get lost on its way. On the device::

    FOLDER/.compresskit             says whose folder it is
    FOLDER/files/SHA256             models, inputs, code: each once, whole, and checked
    FOLDER/incoming/TOKEN/SHA256    on their way
    FOLDER/sessions/KEY/            links to the files; session.jsonl and outputs of the program

A job is a JSON object; the answer is the line of standard output that begins with :data:`MARK`,
whatever else a login prints.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import site
import subprocess
import sys
import time
from importlib import machinery, metadata, util
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Job = dict[str, Any]

__all__ = ["JOBS", "KEPT_BYTES", "KEPT_SESSIONS", "MARK", "main"]

MARK = "compresskit-answer:"
KEPT_SESSIONS = 4  # beside those that run
KEPT_BYTES = 1 << 30  # of models and inputs, beside those of the sessions that are kept
_ABANDONED_S = 86_400
_STARTING_S = 3.0
_WORDS_BYTES = 2_000


class Refused(Exception):
    """A job that will not be done; the message is the whole explanation."""


# -- the device -------------------------------------------------------------------------------


def _hello(job: Job) -> Job:
    """Where ``folder`` is, what is free there, and which Python and libraries there are."""
    folder = Path(os.path.abspath(os.path.expanduser(job["folder"])))
    ours = folder / ".compresskit"
    if folder.exists() and any(folder.iterdir()) and not ours.exists():
        # Old files are removed from it, so that it must be nobody else's.
        raise Refused(f"{folder}: holds files of something else; give `folder` a place of its own")
    folder.mkdir(parents=True, exist_ok=True)
    ours.touch()
    for name in ("files", "incoming", "sessions"):
        (folder / name).mkdir(exist_ok=True)
    return {
        "folder": str(folder),
        "free_bytes": shutil.disk_usage(str(folder)).free,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in ("numpy", "onnxruntime")},
    }


def _version(name: str) -> str | None:
    # Isolated mode leaves a user's own site folder out; the program looks there too.
    own = [site.getusersitepackages()]
    if not (util.find_spec(name) or machinery.PathFinder.find_spec(name, own)):
        return None
    for found in metadata.distributions(name=name, path=[*sys.path, *own]):
        return found.version
    return "of unknown version"  # such as onnxruntime from a distribution of another name


# -- files ------------------------------------------------------------------------------------


def _want(job: Job) -> Job:
    """Take in what has arrived of ``files`` (digest to size), and say what is still ``missing``."""
    folder = Path(job["folder"])
    incoming = folder / "incoming" / job["token"]
    incoming.mkdir(parents=True, exist_ok=True)
    missing = []
    for digest, size in job["files"].items():
        kept, arrived = folder / "files" / digest, incoming / digest
        if _is(arrived, size) and _sha256(arrived) == digest:
            os.replace(str(arrived), str(kept))
        # Only whole files get that name: from then on their size is enough.
        if _is(kept, size):
            os.utime(str(kept))
        else:
            missing.append(digest)
    return {"incoming": str(incoming), "missing": missing}


def _is(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# -- sessions ---------------------------------------------------------------------------------


def _start(job: Job) -> Job:
    """See that the program runs in the session ``key``, made of ``links`` (path to digest).

    A session whose results were taken (:func:`_settle`) begins anew. ``started`` says whether a
    program had to be; ``code`` is its exit status if it gave up at once, ``words`` are the last of
    any so far.
    """
    folder = Path(job["folder"])
    session = folder / "sessions" / job["key"]
    with _alone(folder):
        if (session / "taken").exists():
            shutil.rmtree(str(session))
        if not session.exists():
            _make(session, folder / "files", job["links"])
        started = not _ended(session) and not _running(session)
        code = _first_moments(_spawn(session, job["program"]), session) if started else None
    return {
        "session": str(session),
        "started": started,
        "code": code,
        "words": _words(session),
    }


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One agent at a time: two that start the same session would write into each other's lines."""
    import fcntl

    with (folder / ".compresskit").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _make(session: Path, files: Path, links: dict[str, str]) -> None:
    # Aside first: a session that has its name has all its files.
    beside = session.with_name(f".{session.name}.{os.getpid()}")
    for path, digest in links.items():
        place = beside / path
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(str(files / digest), str(place))
        except OSError:  # a file system without links
            shutil.copyfile(str(files / digest), str(place))
    os.rename(str(beside), str(session))


def _spawn(session: Path, program: str) -> subprocess.Popen[bytes]:
    """Start the program so that it outlives this process, its shell, and the link."""
    command = [sys.executable, "-I", str(session / program), str(session)]
    with (session / "program.err").open("ab") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=str(session),
            start_new_session=True,
        )
    with (session / "starts").open("a") as stream:
        stream.write(f"{process.pid}\n")
    return process


def _first_moments(process: subprocess.Popen[bytes], session: Path) -> int | None:
    """The exit status of a program that ends before it gets anything done, for want of anything."""
    before = _size(session / "session.jsonl")
    begin = time.monotonic()
    while time.monotonic() - begin < _STARTING_S:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.1)
        if _size(session / "session.jsonl") > before:
            break
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _words(session: Path) -> str:
    try:
        return (session / "program.err").read_text(errors="replace")[-_WORDS_BYTES:]
    except OSError:
        return ""


def _running(session: Path) -> bool:
    try:
        pid = int((session / "starts").read_text().split()[-1])
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError):
        return False
    # After a reboot that number may be anyone's.
    command = Path(f"/proc/{pid}/cmdline")
    return not command.exists() or os.fsencode(str(session)) in command.read_bytes().split(b"\0")


def _ended(session: Path) -> bool:
    try:
        with (session / "session.jsonl").open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 100))
            lines = stream.read().splitlines()
        return bool(lines) and json.loads(lines[-1].decode()).get("kind") == "end"
    except (OSError, ValueError):
        return False


def _outputs(job: Job) -> Job:
    """The files that the program left in the session's ``outputs``, with digest and size."""
    folder = Path(job["session"]) / "outputs"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        "files": [
            {"path": str(file), "bytes": file.stat().st_size, "sha256": _sha256(file)}
            for file in files
        ]
    }


def _settle(job: Job) -> Job:
    """Note that the results of ``session`` were taken, and remove what is old."""
    (Path(job["session"]) / "taken").touch()
    folder = Path(job["folder"])
    with _alone(folder):
        sessions = [path for path in (folder / "sessions").iterdir() if not _running(path)]
        abandoned = [
            path
            for path in (folder / "incoming").iterdir()
            if path.stat().st_mtime < time.time() - _ABANDONED_S
        ]
        for path in [*_newest_first(sessions)[KEPT_SESSIONS:], *abandoned]:
            shutil.rmtree(str(path), ignore_errors=True)
        _prune(folder / "files")
    return {}


def _newest_first(paths: list[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def _prune(files: Path) -> None:
    total = 0
    for file in _newest_first([path for path in files.iterdir() if path.stat().st_nlink == 1]):
        size = file.stat().st_size
        if total + size > KEPT_BYTES:
            file.unlink()
        else:
            total += size


# -- the way in -------------------------------------------------------------------------------

JOBS: dict[str, Callable[[Job], Job]] = {
    "hello": _hello,
    "want": _want,
    "start": _start,
    "outputs": _outputs,
    "settle": _settle,
}


def _done(job: Job) -> Job:
    try:
        return JOBS[job["kind"]](job)
    except Refused as error:
        return {"error": str(error)}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"error": "no space is left there", "full": True}
        return {"error": f"{error.filename or job['folder']}: {error.strerror or error}"}


def main(text: str) -> None:
    """Do the job in ``text`` and print the answer."""
    sys.stdout.write(f"\n{MARK}{json.dumps(_done(json.loads(text)))}\n")
