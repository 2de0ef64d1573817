"""CacheEntry: the manifest of one result, with checksums of its files and of itself.

The same text lies in the store under the result's key, and in a run folder beside the files. It is
JSON of a fixed form, so that the checksum is compared before anything of it is parsed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.cache.streams import FileFacts, Unfit, checked, chunks_of, facts_of
from compress.errors import StorageError
from compress.io.files import named, parse_json
from compress.quoting import shown

__all__ = ["MOST_ENTRY_BYTES", "CacheEntry", "DamagedEntry", "FileFacts", "PathOf"]

#: Where a file of a result lies, by its name in the entry; ``folder.joinpath`` for one in a folder.
PathOf = Callable[[str], Path]

#: No entry is larger: facts are numbers and sentences.
MOST_ENTRY_BYTES = 64 << 20

_SCHEMA = 1
_TEXT = re.compile(
    rb'\{\n"checksum": "(?P<checksum>[0-9a-f]{64})",\n"entry": (?P<entry>\{.*\})\n\}\n', re.DOTALL
)
_KEY = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z][a-z-]{0,31}")
_MOST_NAME_CHARACTERS = 500


class DamagedEntry(ValueError):
    """A text that is no whole entry; the message is a clause. It never leaves this package."""


@dataclass(frozen=True)
class CacheEntry:
    """The manifest of one result.

    Args:
        key: 32 hex digits that identify everything the result depends on.
        kind: ``stage`` or ``measurement``.
        facts: plain JSON: what it depends on, by name, and the result itself. ``recipe``,
            ``stage`` and ``target`` are shown by ``compresskit cache ls``.
        files: by plain relative POSIX names, such as ``candidate/weights.safetensors``.

    Raises:
        DamagedEntry: a part that cannot be one.
    """

    key: str
    kind: str
    facts: dict[str, Any]
    files: dict[str, FileFacts]

    def __post_init__(self) -> None:
        if not _is(_KEY, self.key):
            raise DamagedEntry("its key is none")
        if not _is(_KIND, self.kind):
            raise DamagedEntry("its kind is none")
        if not isinstance(self.facts, dict) or not isinstance(self.files, dict):
            raise DamagedEntry("its facts or its files are no mapping")
        for name, facts in self.files.items():
            if problem := _name_problem(name) or _facts_problem(facts):
                raise DamagedEntry(f"of its file {shown(name)}, {problem}")
        folders = {"/".join(parts[:n]) for parts in map(_parts, self.files) for n in _below(parts)}
        if both := sorted(folders & self.files.keys()):
            raise DamagedEntry(f"{shown(both[0])} is both a file and a folder of it")

    @classmethod
    def of(
        cls,
        key: str,
        kind: str,
        facts: Mapping[str, Any],
        names: Iterable[str],
        path_of: PathOf,
    ) -> CacheEntry:
        """The entry of files that are there; each is read once.

        Raises:
            StorageError: a file is not there, or cannot be read.
        """
        files = {}
        for name in sorted(names):
            try:
                files[name] = facts_of(chunks_of(path_of(name)))
            except OSError as error:
                raise StorageError(
                    f"{named(path_of(name))}: this file was just written and cannot be read "
                    f"({error.strerror or error}); the result is not kept."
                ) from error
        # As it will be once it was stored: tuples are lists then.
        return cls(key, kind, json.loads(json.dumps(dict(facts))), files)

    @property
    def size_bytes(self) -> int:
        """Size of its files; equal ones count once."""
        return sum(facts.bytes for facts in set(self.files.values()))

    def dumps(self) -> str:
        """JSON text that begins with a checksum over all the rest."""
        stored = {"schema": _SCHEMA, "key": self.key, "kind": self.kind, "facts": self.facts}
        files = {name: asdict(facts) for name, facts in self.files.items()}
        text = json.dumps({**stored, "files": files}, indent=1)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        return f'{{\n"checksum": "{checksum}",\n"entry": {text}\n}}\n'

    @classmethod
    def loads(cls, text: str | bytes) -> CacheEntry:
        """Read what :meth:`dumps` made.

        Raises:
            DamagedEntry: anything else, whatever it is.
        """
        content = text.encode(errors="backslashreplace") if isinstance(text, str) else text
        if len(content) > MOST_ENTRY_BYTES:
            raise DamagedEntry("it is too large")
        found = _TEXT.fullmatch(content)
        if not found:
            raise DamagedEntry("it has not the form of an entry")
        if hashlib.sha256(found["entry"]).hexdigest().encode() != found["checksum"]:
            raise DamagedEntry("its checksum is another")
        # Whole, and still perhaps a stranger's.
        try:
            stored = parse_json(found["entry"], finite=False)
        except ValueError as error:
            raise DamagedEntry(f"it cannot be parsed: {error}") from error
        return _of(stored)

    def damage(self, path_of: PathOf) -> str | None:
        """What is wrong with its files, as a clause; ``None`` if all are there and whole."""
        for name, facts in self.files.items():
            try:
                for _ in checked(chunks_of(path_of(name)), facts):
                    pass
            except Unfit as problem:
                return f"{name} {problem}"
        return None


def _of(stored: Any) -> CacheEntry:
    if not isinstance(stored, dict) or stored.get("schema") != _SCHEMA:
        raise DamagedEntry("it is of another version")
    if stored.keys() != {"schema", "key", "kind", "facts", "files"}:
        raise DamagedEntry("it has other parts than an entry")
    if not isinstance(stored["files"], dict):
        raise DamagedEntry("its facts or its files are no mapping")
    files = {}
    for name, facts in stored["files"].items():
        if not isinstance(facts, dict) or facts.keys() != {"sha256", "bytes"}:
            raise DamagedEntry(f"of its file {shown(name)}, the facts are none")
        files[name] = FileFacts(facts["sha256"], facts["bytes"])
    return CacheEntry(stored["key"], stored["kind"], stored["facts"], files)


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _parts(name: str) -> list[str]:
    return name.split("/")


def _below(parts: list[str]) -> range:
    return range(1, len(parts))


def _name_problem(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME_CHARACTERS:
        return "the name is empty or too long"
    if not name.isprintable() or "\\" in name or ":" in name:
        return "the name has characters that a plain one has not"
    if {"", ".", ".."} & {*name.split("/")}:
        return "the name is no plain relative one"
    return ""


def _facts_problem(facts: FileFacts) -> str:
    if not _is(_SHA256, facts.sha256):
        return "the checksum is none"
    if type(facts.bytes) is not int or not 0 <= facts.bytes < 1 << 63:
        return "the size is none"
    return ""
