"""What keeps a store whole and within its bounds: a look at everything, and removing what may go.

Several processes and machines may do this at once, while others find and put. So an object that no
entry names may be about to be named. It goes when it is an hour old; or with the last entry that
named it, unless it was touched after that entry was last used. Whoever puts a result looks once
more when its entry is written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from compress.cache.backend import (
    StorageBackend,
    StoredFile,
    entry_name,
    is_entry,
    is_object,
    object_name,
)
from compress.cache.entry import MOST_ENTRY_BYTES, CacheEntry, DamagedEntry
from compress.cache.streams import NotRegular, facts_of, reason

__all__ = [
    "Removed",
    "StoredResult",
    "Verified",
    "evict",
    "kept_entries",
    "read_entry",
    "sweep",
    "verify",
]

#: How long a file that nothing names may be another process's work.
GRACE_S = 3600.0


@dataclass(frozen=True)
class StoredResult:
    """An entry in the store; ``used_s`` is its last use, in seconds since 1970."""

    entry: CacheEntry
    used_s: float


@dataclass(frozen=True)
class Removed:
    """What was removed: results, and the bytes of all files; ``damaged`` says what was so."""

    results: int
    bytes: int
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """What was read, and a sentence for each thing that is damaged."""

    results: int
    bytes: int
    damage: tuple[str, ...]


def read_entry(backend: StorageBackend, name: str) -> CacheEntry:
    """The entry of this name.

    Raises:
        DamagedEntry: it is none, or of another key.
        OSError: it is not there, or cannot be read.
    """
    content = bytearray()
    try:
        for chunk in backend.chunks(name):
            content += chunk
            if len(content) > MOST_ENTRY_BYTES:
                raise DamagedEntry("it is too large")
    except NotRegular as error:
        raise DamagedEntry(reason(error)) from error
    entry = CacheEntry.loads(bytes(content))
    if entry_name(entry.key) != name:
        raise DamagedEntry("it is of another key")
    return entry


def kept_entries(
    backend: StorageBackend, held: Iterable[StoredFile]
) -> Iterator[StoredResult | tuple[StoredFile, str]]:
    """The entries among ``held``; for one that is damaged, its file and why."""
    for file in held:
        if is_entry(file.name):
            try:
                yield StoredResult(read_entry(backend, file.name), file.used_s)
            except DamagedEntry as error:
                yield file, str(error)
            except FileNotFoundError:  # removed by another process
                continue


def sweep(backend: StorageBackend, held: Iterable[StoredFile]) -> int:
    """Remove parts of files whose process is gone; how many bytes they had."""
    count = 0
    for file in held:
        is_part = not is_entry(file.name) and not is_object(file.name)
        if is_part and file.regular and _is_old(file) and backend.remove(file.name):
            count += file.bytes
    return count


def evict(backend: StorageBackend, most_bytes: int) -> Removed:
    """Remove the results that were not used for longest, until the store takes ``most_bytes``.

    What nothing names and what is damaged goes in any case.

    Raises:
        OSError: the place refused.
    """
    eviction = _Eviction(backend)
    eviction.remove_the_useless()
    eviction.shrink(most_bytes)
    return eviction.removed()


class _Eviction:
    def __init__(self, backend: StorageBackend) -> None:
        self._backend = backend
        held = [file for file in backend.files() if file.regular]
        self._held = {file.name: file for file in held}
        self._kept: list[StoredResult] = []
        self._damaged: dict[str, str] = {}
        for found in kept_entries(backend, held):
            if isinstance(found, StoredResult):
                self._kept.append(found)
            else:
                self._damaged[found[0].name] = found[1]
        self._naming = Counter(name for kept in self._kept for name in _objects_of(kept.entry))
        self._results = self._bytes = 0

    def removed(self) -> Removed:
        damaged = tuple(f"{name}: {why}" for name, why in self._damaged.items())
        return Removed(self._results, self._bytes, damaged)

    def remove_the_useless(self) -> None:
        self._bytes += sweep(self._backend, self._held.values())
        for name in self._damaged:
            self._remove(name)
        for name, file in self._held.items():
            if is_object(name) and not self._naming[name] and _is_old(file):
                self._remove(name)

    def shrink(self, most_bytes: int) -> None:
        # What nothing names and is to stay for now does not count: nothing else is to go for it.
        names = [*self._naming, *(entry_name(kept.entry.key) for kept in self._kept)]
        total = sum(self._size(name) for name in names)
        for kept in sorted(self._kept, key=lambda kept: kept.used_s):
            if total <= most_bytes:
                break
            name = entry_name(kept.entry.key)
            self._results += self._remove(name)
            total -= self._size(name)
            for name in _objects_of(kept.entry):
                self._naming[name] -= 1
                if not self._naming[name]:
                    total -= self._size(name)
                    self._remove_unless_touched(name, kept.used_s)

    def _remove_unless_touched(self, name: str, last_use_s: float) -> None:
        now = self._backend.stat(name)
        if now is not None and now.regular and (now.used_s <= last_use_s or _is_old(now)):
            self._remove(name)

    def _remove(self, name: str) -> bool:
        was_there = self._backend.remove(name)
        self._bytes += self._size(name) if was_there else 0
        return was_there

    def _size(self, name: str) -> int:
        return self._held[name].bytes if name in self._held else 0


def verify(backend: StorageBackend, *, keep: bool) -> Verified:
    """Read everything; what is damaged is removed, unless ``keep``.

    Raises:
        OSError: the place cannot be listed.
    """
    held = list(backend.files())
    damage, whole = [], {}
    for file in held:
        if is_object(file.name):
            try:
                problem = _object_problem(backend, file)
            except FileNotFoundError:  # removed by another process
                continue
            except OSError as error:
                damage.append(f"{file.name}: it cannot be read ({reason(error)}).")
                problem = None  # and nothing is known against the results that name it
            if problem is None:
                whole[file.name] = file.bytes
            else:
                damage.append(f"{file.name}: {problem}{_removal(backend, file.name, keep)}")
    count = 0
    for found in kept_entries(backend, held):
        if isinstance(found, StoredResult):
            name, problem = entry_name(found.entry.key), _entry_problem(found.entry, whole)
        else:
            name, problem = found[0].name, found[1]
        # An entry that is gone by now was removed by another process, its objects with it.
        if problem and backend.stat(name) is not None:
            damage.append(f"{name}: {problem}{_removal(backend, name, keep)}")
        count += not problem
    return Verified(count, sum(whole.values()), tuple(damage))


def _object_problem(backend: StorageBackend, file: StoredFile) -> str | None:
    if not file.regular:
        return "it is no regular file"
    found = facts_of(backend.chunks(file.name))
    return None if object_name(found.sha256) == file.name else "its checksum is another"


def _entry_problem(entry: CacheEntry, whole: dict[str, int]) -> str:
    for name, facts in entry.files.items():
        if whole.get(object_name(facts.sha256)) != facts.bytes:
            return f"its {name} is missing or damaged"
    return ""


def _removal(backend: StorageBackend, name: str, keep: bool) -> str:
    if keep:
        return "."
    try:
        backend.remove(name)
    except OSError as error:
        return f"; it could not be removed ({reason(error)})."
    return "; removed."


def _objects_of(entry: CacheEntry) -> set[str]:
    return {object_name(facts.sha256) for facts in entry.files.values()}


def _is_old(file: StoredFile) -> bool:
    return time.time() - file.used_s > GRACE_S
