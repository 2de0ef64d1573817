"""The program that runs on a device: a bundle in, a result out.

::

    python3 compresskit-device.pyz BUNDLE [--out RESULT.json] [--quick | --strict] [--threads N]
    python3 compresskit-device.pyz FOLDER

It needs Python 3.9 or newer, numpy and onnxruntime, and runs no code of the bundle, so that the
bundle may be anyone's: members are unpacked into a fresh folder, each checked for its name, size
and sha256 on the way. FOLDER is that of a session (:mod:`.session`), whose lines stay in it, and
standard output is silent then, for whoever listens disturbs. The same command again resumes where
the last one was stopped. Exit status: 0 done (a folder's lines tell of models that failed), 1 a
model of a bundle could not be measured, 2 the bundle, the folder or the command is wrong, 3 another
session is timing on this device.

Then, where the run is: ``compresskit merge RUN RESULT.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from compress.measure.ondevice.bundle import BundleError, unpack
from compress.measure.ondevice.lock import DeviceBusy
from compress.measure.ondevice.process import WORKER
from compress.measure.ondevice.session import run_folder
from compress.measure.ondevice.session_log import SessionError, read_lines
from compress.measure.ondevice.table import printable, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compress.measure.ondevice.session_log import Line

__all__ = ["RESULT_KIND", "DeviceResult", "main", "measure_bundle"]

RESULT_KIND = "compresskit-result"

_SCHEMA = 1


class DeviceResult(TypedDict):
    """What goes back: the lines of a session, and of which bundle's models they are."""

    schema: int
    kind: str
    bundle_sha256: str
    mode: str
    record: str | None
    target: str | None
    rows: list[dict[str, object]]
    samples: dict[str, int] | None
    lines: list[Line]


def measure_bundle(
    bundle: Path, out: Path, mode: str, threads: int | None
) -> tuple[DeviceResult, str]:
    """Measure a bundle's models and write the result to ``out``; the result, and its table.

    Raises:
        BundleError: the bundle is refused, or where the result goes, or the number of threads.
        SessionError: nothing can be measured here, or not now.
    """
    part = out.with_name(f"{out.name}.part")
    if not out.parent.is_dir():
        raise BundleError(f"{out}: the folder is not there; make it, or give another --out.")
    with tempfile.TemporaryDirectory(prefix="compresskit-") as name:
        folder = Path(name, "session")
        manifest, sha256 = unpack(bundle, folder)
        if mode not in manifest["plans"]:
            raise BundleError(f"{bundle}: it has no plan for the mode {mode}; take another mode.")
        session = {**manifest["session"], "plan": manifest["plans"][mode]}
        if session.get("job"):
            raise BundleError(f"{bundle}: it asks for settings of the runtime, as no bundle may.")
        if threads is not None:
            session["threads"] = threads
        _check_threads(session.get("threads"))
        (folder / "session.json").write_text(json.dumps(session), encoding="utf-8")
        with _worker_on_disk(Path(name)) as worker:
            outcome = run_folder(folder, lines=part, worker=worker, notify=_notify)
    _notify("")
    lines, _ = read_lines(part)
    result: DeviceResult = {
        "schema": _SCHEMA,
        "kind": RESULT_KIND,
        "bundle_sha256": sha256,
        "mode": mode,
        "record": manifest.get("record"),
        "target": manifest.get("target"),
        "rows": manifest["rows"],
        "samples": manifest.get("samples"),
        "lines": lines,
    }
    _write(out, json.dumps(result))
    part.unlink()
    return result, table(outcome, lines)


@contextlib.contextmanager
def _worker_on_disk(folder: Path) -> Iterator[Path]:
    """The file that worker processes execute; a program that is an archive is unpacked for them.

    A session starts hundreds of them, and what is imported from an archive is compiled anew each
    time.
    """
    archive = next((path for path in WORKER.parents if path.is_file()), None)
    if archive is None:
        yield WORKER
        return
    with tempfile.TemporaryDirectory(prefix="program-", dir=folder) as name:
        with zipfile.ZipFile(archive) as program:
            program.extractall(name)
        yield Path(name, WORKER.relative_to(archive))


def _check_threads(threads: object) -> None:
    if isinstance(threads, int) and threads < 1:
        raise BundleError(
            f"threads must be at least 1, and {threads} are asked for; give --threads."
        )
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if isinstance(threads, int) and usable and threads > usable:
        raise BundleError(
            f"{threads} threads are asked for, and this process may use {usable} core(s); give "
            "--threads."
        )


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def _notify(words: str) -> None:
    if sys.stderr.isatty():
        end = "" if words else "\r"
        print(f"\r{printable(words)[:78]:<78}", end=end, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command on ``arguments`` (by default those of this process); its exit status."""
    asked = _parser().parse_args(arguments)
    # Ended politely, it takes its worker along and gives the device back.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return _run_folder(asked) if asked.place.is_dir() else _run_bundle(asked)
    except DeviceBusy as error:
        return _refused(error, 3)
    except (BundleError, SessionError, OSError) as error:
        return _refused(error, 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure a compresskit run on this device.")
    parser.add_argument(
        "place", type=Path, metavar="BUNDLE", help="a bundle, or the folder of a session"
    )
    parser.add_argument(
        "--out", type=Path, metavar="RESULT.json", help="default: BUNDLE-result.json"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: those of the run")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="roughly, in a fraction of the time")
    mode.add_argument("--strict", action="store_true", help="to 1 %%, however long it takes")
    return parser


def _run_bundle(asked: argparse.Namespace) -> int:
    out = asked.out or Path(f"{asked.place.stem}-result.json")
    mode = "quick" if asked.quick else "strict" if asked.strict else "default"
    result, shown = measure_bundle(asked.place, out, mode, asked.threads)
    print(f"{shown}\nwrote {out}; where the run is: compresskit merge RUN {out.name}")
    return int(any("error" in line for line in result["lines"]))


def _run_folder(asked: argparse.Namespace) -> int:
    if asked.out or asked.threads is not None or asked.quick or asked.strict:
        raise SessionError(
            f"{asked.place}: options are for a bundle; session.json has those of a session."
        )
    folder = asked.place.absolute()
    with _worker_on_disk(folder) as worker:
        run_folder(folder, worker=worker)
    return 0


def _refused(error: Exception, status: int) -> int:
    print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    return status
