"""Measure a run on this device: a bundle in, a result out.

::

    python3 run.py BUNDLE [--out RESULT.json] [--quick | --strict] [--threads N]
    python3 BUNDLE                          the same, by the copy of this program in the bundle

It needs Python 3.9 or newer, numpy and onnxruntime, and beside it ``driver.py`` and ``worker.py``.
The first form runs no code of the bundle, so that the bundle may be anyone's: members are unpacked
into a fresh folder, each checked for its name, size and sha256 on the way. The same command again
goes on where the last one was stopped. Exit status: 0 done, 1 a model could not be measured, 2 the
bundle or the command is wrong, 3 another session is timing on this device.

Then, where the run is: ``compresskit merge RUN RESULT.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import signal
import stat
import statistics
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.measure.ondevice import driver
else:
    import driver  # the file beside this one

__all__ = ["BundleError", "main", "measure", "unpack"]

MANIFEST = "MANIFEST.json"
BUNDLE_KIND = "compresskit-bundle"
RESULT_KIND = "compresskit-result"

_SCHEMA = 1
_MOST_MANIFEST_BYTES = 4 << 20
_MOST_BYTES = 4 << 30
_BLOCK_BYTES = 1 << 16
_LINK = 0o120000
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


class BundleError(Exception):
    """A bundle that is refused; the message is a sentence."""


# -- unpacking --------------------------------------------------------------------------------


def unpack(bundle: Path, folder: Path, *, with_code: bool = False) -> tuple[dict[str, Any], str]:
    """Unpack a bundle into a new folder; its manifest, and the manifest's sha256.

    Nothing is written that the manifest does not declare, and of each member no more than that.
    Programs are checked, but written only ``with_code``.

    Raises:
        BundleError: the file is no whole bundle, or a member is not what it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not stat.S_ISREG(os.stat(bundle).st_mode):  # a pipe would be waited for
            raise BundleError(f"{bundle}: it is no file; give the bundle itself.")
        archive = zipfile.ZipFile(bundle)
    except _DAMAGE as error:
        raise BundleError(f"{bundle}: not a whole bundle ({error}); copy it again.") from error
    with archive:
        members = _members(bundle, archive)
        text = _read_manifest(bundle, archive, members)
        manifest = _parsed(bundle, text)
        declared = manifest["members"]
        _compare_names(bundle, set(members) - {MANIFEST}, set(declared))
        total = sum(entry["bytes"] for entry in declared.values())
        free = shutil.disk_usage(folder.parent).free  # the folder itself is made later
        if total > min(_MOST_BYTES, free):
            raise BundleError(
                f"{bundle}: its members take {total >> 20} MiB; at most {_MOST_BYTES >> 20} MiB "
                f"are taken, and {folder} has {free >> 20} MiB free."
            )
        for name, entry in sorted(declared.items()):
            path = None if name.endswith(".py") and not with_code else folder / name
            _copy(bundle, archive, members[name], entry, path)
    return manifest, hashlib.sha256(text).hexdigest()


def _members(bundle: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name, each of which is safe to write."""
    members: dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for info in archive.infolist():
        name = info.orig_filename
        if not driver.stays_inside(name):
            raise BundleError(f"{bundle}: the member {name!r:.100} leads out of the bundle.")
        if (info.external_attr >> 16) & 0o170000 == _LINK:
            raise BundleError(f"{bundle}: the member {name!r} is a link, and must be a file.")
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise BundleError(f"{bundle}: the member {name!r} is encrypted or packed unusually.")
        if name.lower() in seen:  # some file systems do not tell A from a
            raise BundleError(f"{bundle}: the member {name!r} is there twice.")
        seen.add(name.lower())
        members[name] = info
    return members


def _read_manifest(
    bundle: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
) -> bytes:
    if MANIFEST not in members:
        raise BundleError(f"{bundle}: there is no {MANIFEST} in it; this is no bundle.")
    try:
        with archive.open(members[MANIFEST]) as stream:
            text = stream.read(_MOST_MANIFEST_BYTES + 1)
    except _DAMAGE as error:
        raise BundleError(f"{bundle}: {MANIFEST} is damaged ({error}); copy it again.") from error
    if len(text) > _MOST_MANIFEST_BYTES:
        raise BundleError(f"{bundle}: {MANIFEST} has more than {_MOST_MANIFEST_BYTES} bytes.")
    return text


def _parsed(bundle: Path, text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{bundle}: {MANIFEST} is damaged ({error}); copy it again.") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != BUNDLE_KIND:
        raise BundleError(f"{bundle}: {MANIFEST} is not that of a bundle.")
    if manifest.get("schema") != _SCHEMA:
        raise BundleError(
            f"{bundle}: a bundle of schema {manifest.get('schema')!r:.20}, and this program knows "
            f"{_SCHEMA}; take the run.py of the version that wrote it."
        )
    members = manifest.get("members")
    rows, plans = manifest.get("rows"), manifest.get("plans")
    if not (
        isinstance(members, dict)
        and all(_is_entry(entry) for entry in members.values())
        and isinstance(rows, list)
        and isinstance(plans, dict)
        and isinstance(manifest.get("session"), dict)
    ):
        raise BundleError(f"{bundle}: {MANIFEST} lacks members, rows, plans or session.")
    return manifest


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("bytes"), int)
        and entry["bytes"] >= 0
        and isinstance(entry.get("sha256"), str)
    )


def _compare_names(bundle: Path, there: set[str], declared: set[str]) -> None:
    for name in sorted(there - declared):
        raise BundleError(f"{bundle}: the member {name!r} is not declared in {MANIFEST}.")
    for name in sorted(declared - there):
        raise BundleError(f"{bundle}: the member {name!r:.100} is missing; copy the bundle again.")


def _copy(
    bundle: Path,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    entry: Mapping[str, Any],
    path: Path | None,
) -> None:
    """Check one member, and write it to ``path`` meanwhile; it is read in blocks, never whole."""
    name, digest, left = info.filename, hashlib.sha256(), entry["bytes"]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(info) as source, open(path or os.devnull, "wb") as target:
            for block in iter(lambda: source.read(_BLOCK_BYTES), b""):
                left -= len(block)
                if left < 0:
                    raise BundleError(
                        f"{bundle}: the member {name!r} is larger than the {entry['bytes']} bytes "
                        "that it declares."
                    )
                digest.update(block)
                target.write(block)
    except _DAMAGE as error:
        raise BundleError(
            f"{bundle}: the member {name!r} is damaged ({error}); copy the bundle again."
        ) from error
    if left or digest.hexdigest() != entry["sha256"]:
        raise BundleError(
            f"{bundle}: the member {name!r} is damaged (its sha256 is not the declared one); copy "
            "the bundle again."
        )


# -- measuring --------------------------------------------------------------------------------


def measure(bundle: Path, out: Path, mode: str, threads: int | None) -> tuple[dict[str, Any], str]:
    """Measure a bundle's models and write the result to ``out``; the result, and its table.

    Raises:
        BundleError: the bundle is refused.
        driver.DriverError: nothing can be measured here, or not now.
    """
    here = Path(__file__).resolve()
    inside = here.parent.is_file()  # this file is a member of an archive
    part = out.with_name(f"{out.name}.part")
    with tempfile.TemporaryDirectory(prefix="compresskit-") as name:
        folder = Path(name)
        manifest, sha256 = unpack(bundle, folder, with_code=inside)
        if mode not in manifest["plans"]:
            raise BundleError(f"{bundle}: it has no plan for the mode {mode}; take another mode.")
        session = {**manifest["session"], "plan": manifest["plans"][mode]}
        if session.get("job"):
            raise BundleError(f"{bundle}: it asks for settings of the runtime, as no bundle may.")
        if threads is not None:
            session["threads"] = threads
        _check_threads(session.get("threads"))
        (folder / "session.json").write_text(json.dumps(session), encoding="utf-8")
        worker = (folder if inside else here.parent) / "worker.py"
        outcome = driver.drive(folder, lines=part, worker=worker, tell=_tell)
    _tell("")
    lines, _ = driver.read_lines(part)
    known = ("record", "target", "rows", "samples")
    result = {
        "schema": _SCHEMA,
        "kind": RESULT_KIND,
        "bundle_sha256": sha256,
        "mode": mode,
        **{key: manifest.get(key) for key in known},
        "lines": lines,
    }
    _write(out, json.dumps(result))
    part.unlink()
    return result, table(outcome, lines)


def _check_threads(threads: object) -> None:
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


def _tell(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{_plain(words)[:78]:<78}", end="" if words else "\r", file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    # A bundle's names are a stranger's: none may steer the terminal.
    return "".join(c if c.isprintable() else "?" for c in text)


# -- the table --------------------------------------------------------------------------------


def table(outcome: driver.Outcome, lines: Sequence[Mapping[str, Any]]) -> str:
    """Plain text: a line for each model, then what went wrong."""
    models = lines[0]["session"]["models"]
    outputs = {line["index"]: line for line in lines if line.get("kind") == "outputs"}
    times = _times(outcome)
    rows = [("model", "p50 ms", "speed-up", "95 % interval", "score", "peak MiB")]
    notes = []
    for index, model in enumerate(models):
        found = outputs.get(index, {})
        cells = (*times.get(index, ("-", "-", "-")), _score(found), _peak(outcome, index))
        rows.append((model["name"], *cells))
        notes += [text for text in (outcome.failures.get(index), found.get("error")) if text]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = [
        "  ".join([row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in range(1, len(row)))])
        for row in rows
    ]
    return "\n".join(_plain(line) for line in (*shown, *dict.fromkeys(notes))) + "\n"


def _times(outcome: driver.Outcome) -> dict[int, tuple[str, str, str]]:
    if not outcome.configs:
        return {}
    baseline, again, *others = outcome.configs
    ratios = driver.log_ratios(outcome.configs)[1:]
    shown = {baseline.index: (_ms(baseline.medians_s + again.medians_s), "1", "baseline")}
    for place, config in enumerate(others):
        mean, half = ratios[place].mean, ratios[place].half_width
        interval = f"{math.exp(mean - half):.3f} to {math.exp(mean + half):.3f}"
        shown[config.index] = (_ms(config.medians_s), f"{math.exp(mean):.3f}", interval)
    return shown


def _ms(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.3f}"


def _score(line: Mapping[str, Any]) -> str:
    scores = line.get("scores")
    return f"{statistics.fmean(scores):.4f}" if scores else "-"


def _peak(outcome: driver.Outcome, index: int) -> str:
    results = outcome.surveys.get(index, {}).get("memory")
    if not results:
        return "-"
    middle = results[len(results) // 2]
    peak = max(middle["load_peak_bytes"], middle["run_peak_bytes"])
    return f"{max(0, peak - middle['runtime_bytes']) / 2**20:.1f}"


# -- the command ------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="run.py", description="Measure a compresskit run on this device."
    )
    own = Path(__file__).resolve().parent
    inside = own.is_file()
    parser.add_argument(
        "bundle",
        type=Path,
        metavar="BUNDLE",
        nargs="?" if inside else None,
        default=own if inside else None,
    )
    parser.add_argument("--out", type=Path, metavar="RESULT.json", help="default: BUNDLE.json")
    parser.add_argument("--threads", type=int, metavar="N", help="default: those of the run")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="roughly, in a fraction of the time")
    mode.add_argument("--strict", action="store_true", help="to 1 %%, however long it takes")
    asked = parser.parse_args(arguments)
    out = asked.out or Path(f"{asked.bundle.stem}-result.json")
    name = "quick" if asked.quick else "strict" if asked.strict else "default"
    # Ended politely, it takes its worker along.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        result, shown = measure(asked.bundle, out, name, asked.threads)
    except driver.Busy as error:
        return _refused(error, 3)
    except (BundleError, driver.DriverError, OSError) as error:
        return _refused(error, 2)
    print(f"{shown}\nwrote {out}; where the run is: compresskit merge RUN {out.name}")
    return int(any("error" in line for line in result["lines"]))


def _refused(error: Exception, status: int) -> int:
    print(f"run.py: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
