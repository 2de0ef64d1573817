"""The folder ``ship/`` of a run: what is in it, and which of its files this tool may replace.

``model.json`` lists the files with their checksums. A file of one of our names that is not as it
was written is somebody's, and stays as it is; files of other names are nobody's business.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import RecipeError, StorageError
from compress.io.atomic import sweep
from compress.io.scratch import sweep_scratch
from compress.record import Record

__all__ = [
    "FACTS",
    "KIND",
    "SHIP",
    "Shipped",
    "check_ship_folder",
    "digest_of",
    "remove_shipped",
    "replace_files",
    "shipped_in",
    "shipped_of",
    "sweep_ship",
    "unchanged_files",
]

#: The folder within that of a run, the file that says what is in it, and what it says of itself.
SHIP, FACTS, KIND = "ship", "model.json", "compresskit-ship"

# Lists, while files are being replaced, those that are coming: a kill leaves some of each.
_COMING = ".coming.json"
_NAMES = re.compile(
    r"model(-[^/\\]+)?\.onnx(\.data)?|run\.py|reading\.py|README\.md|samples\.npz|tokenizer\.json"
)
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Shipped:
    """What a folder holds: a row of a run.

    Args:
        folder: where it is.
        row: its number in the record.
        stage: the label of its stage.
        target: that it was measured on.
        fingerprint: of the candidate.
        batch: of the file: a number, or ``any``.
        was_measured: whether the file is the one that the record is about.
    """

    folder: Path
    row: int
    stage: str
    target: str
    fingerprint: str
    batch: int | str
    was_measured: bool

    def is_of(self, record: Record, target: str | None = None) -> bool:
        """Whether it is a row of this record, on this target, and not of a run before it."""
        of_target = target in (None, self.target)
        rows = ((row.index, row.fingerprint) for row in record.rows if row.on(self.target))
        return of_target and (self.row, self.fingerprint) in rows


def shipped_in(folder: Path) -> Shipped | None:
    """What lies in ``folder``; ``None`` where nothing was shipped there, or not to the end."""
    facts = _facts(folder / FACTS)
    try:
        provenance, model = facts["provenance"], facts["model"]
        return Shipped(
            folder,
            int(provenance["row"]),
            str(provenance["stage"]),
            str(provenance["target"]),
            str(provenance["fingerprint"]),
            model["batch"] if not model["open"] else "any",
            bool(model["was_measured"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def shipped_of(record: Record, run: Path) -> Shipped | None:
    """The row of ``record`` that is shipped in the folder of its run; ``None`` without one."""
    found = shipped_in(run / SHIP)
    return found if found is not None and found.is_of(record) else None


def unchanged_files(folder: Path, made_from: str) -> bool:
    """Whether ``folder`` holds, whole and as it was written, what is made of the same facts."""
    facts = _facts(folder / FACTS)
    files = _files_of(facts)
    if facts.get("made_from") != made_from or not files or (folder / _COMING).exists():
        return False
    return all(digest_of(folder / name) == digest for name, digest in files.items())


def check_ship_folder(folder: Path, option: str = "") -> None:
    """See that a row may be shipped to ``folder``.

    Raises:
        RecipeError: it is a file or a link, cannot be looked at, or has a file of one of our names
            that this tool did not write, or that was changed since.
    """
    place = f"{option} {folder}".lstrip()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        what = "a link" if folder.is_symlink() else "a file"
        raise RecipeError(f"{place}: this is {what}; move it away, or give a folder.")
    if not os.path.lexists(folder):
        return
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        raise RecipeError(
            f"{place}: cannot be used ({error.strerror or error}); give another folder."
        ) from error
    own = _written(folder)
    for name in sorted(filter(_NAMES.fullmatch, there)):
        if digest_of(folder / name) not in own.get(name, ()):
            raise RecipeError(
                f"{place}: {name} in it is not as compresskit wrote it, and stays as it is; move "
                "it away or rename it (a row would be shipped there)."
            )
    if FACTS in there and _facts(folder / FACTS).get("kind") != KIND:
        raise RecipeError(
            f"{place}: {FACTS} in it was not written by compresskit, and stays as it is; move it "
            "away or rename it (a row would be shipped there)."
        )


def replace_files(draft: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Move the files of ``draft``, on the same disk, to ``folder``; :data:`FACTS` comes last.

    Files of other names stay, and so does what an earlier row had and this one has not, unless this
    tool wrote it. A kill at any moment leaves a folder that may be shipped to again.

    Raises:
        OSError: the disk refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _written(folder)
    coming = {name: [facts["files"][name], *earlier.get(name, ())] for name in facts["files"]}
    stale = {name: list(found) for name, found in earlier.items() if name not in coming}
    (folder / _COMING).write_text(json.dumps({"kind": KIND, "files": {**stale, **coming}}))
    (folder / FACTS).unlink(missing_ok=True)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    for name in facts["files"]:
        os.replace(draft / name, folder / name)
    os.replace(draft / FACTS, folder / FACTS)
    (folder / _COMING).unlink()


def remove_shipped(folder: Path) -> None:
    """Remove what this tool wrote into ``folder``, and the folder where that was all.

    Raises:
        StorageError: the disk refused.
    """
    try:
        for name, digests in _written(folder).items():
            if digest_of(folder / name) in digests:
                (folder / name).unlink()
        if _facts(folder / FACTS).get("kind") == KIND:
            (folder / FACTS).unlink()
        (folder / _COMING).unlink(missing_ok=True)
        if folder.is_dir() and not folder.is_symlink() and not os.listdir(folder):
            folder.rmdir()
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be removed ({error.strerror or error}); remove it, and repeat."
        ) from error


def sweep_ship(folder: Path) -> None:
    """Remove what a killed process left in and beside ``folder``."""
    sweep(folder)
    sweep_scratch(folder.parent)


def digest_of(path: Path) -> str | None:
    """The SHA-256 of a file; ``None`` where there is none that can be read."""
    digest = hashlib.sha256()
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def _written(folder: Path) -> dict[str, tuple[str, ...]]:
    """The files that this tool wrote into the folder, or was writing, with their checksums."""
    found: dict[str, tuple[str, ...]] = {}
    for name in (FACTS, _COMING):
        for file, digests in _files_of(_facts(folder / name)).items():
            several = digests if isinstance(digests, list) else [digests]
            found[file] = (*found.get(file, ()), *map(str, several))
    return found


def _files_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    files = facts.get("files") if facts.get("kind") == KIND else None
    known = files.items() if isinstance(files, dict) else ()
    return {name: digest for name, digest in known if _NAMES.fullmatch(name)}


def _facts(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return {}
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError, MemoryError):
        return {}
    return content if isinstance(content, dict) else {}
