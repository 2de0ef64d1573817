"""A bundle on the device: a stranger's archive, checked on the way out; no code of it is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

from compress.measure.ondevice.session import stays_inside

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BUNDLE_KIND", "MANIFEST", "BundleError", "Manifest", "Member", "Unpacked", "unpack"]

MANIFEST = "MANIFEST.json"
BUNDLE_KIND = "compresskit-bundle"
_SCHEMA = 1
_MOST_MANIFEST_BYTES = 4 << 20
_MOST_BYTES = 4 << 30
_BLOCK_BYTES = 1 << 16
_LINK = 0o120000
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


class BundleError(Exception):
    """A bundle that is refused; the message is a sentence."""


class Member(TypedDict):
    """What a manifest declares of one file of its bundle."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """MANIFEST.json of a bundle: its files, the session on them, and whose results they are.

    ``plans`` are by the mode's name. ``rows`` and ``samples`` go into the result as they are.
    """

    schema: int
    kind: str
    record: str
    target: str
    rows: list[dict[str, object]]
    samples: dict[str, int]
    session: dict[str, object]
    plans: dict[str, dict[str, object]]
    members: dict[str, Member]


class Unpacked(NamedTuple):
    """A bundle's manifest, and the sha256 of the manifest's text."""

    manifest: Manifest
    sha256: str


def unpack(bundle: Path, folder: Path) -> Unpacked:
    """Unpack a bundle into a new folder.

    Nothing is written that the manifest does not declare, and of each member no more than that.
    Programs, which bundles of earlier versions hold, are checked and never written.

    Raises:
        BundleError: the file is no whole bundle, or a member is not what it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not stat.S_ISREG(os.stat(bundle).st_mode):  # a pipe would be waited for
            raise BundleError(f"{bundle}: it is no file; give the bundle itself.")
        archive = zipfile.ZipFile(bundle)
    except FileNotFoundError as error:
        raise BundleError(f"{bundle}: there is no such bundle.") from error
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
            path = None if name.endswith(".py") else folder / name
            _copy(bundle, archive, members[name], entry, path)
    return Unpacked(manifest, hashlib.sha256(text).hexdigest())


def _members(bundle: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name, each of which is safe to write."""
    members: dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for info in archive.infolist():
        name = info.orig_filename
        if not stays_inside(name):
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


def _parsed(bundle: Path, text: bytes) -> Manifest:
    try:
        manifest = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{bundle}: {MANIFEST} is damaged ({error}); copy it again.") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != BUNDLE_KIND:
        raise BundleError(f"{bundle}: {MANIFEST} is not that of a bundle.")
    if manifest.get("schema") != _SCHEMA:
        raise BundleError(
            f"{bundle}: a bundle of schema {manifest.get('schema')!r:.20}, and this program knows "
            f"{_SCHEMA}; take the program of the version that wrote it."
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
    return cast("Manifest", manifest)


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
    entry: Member,
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
