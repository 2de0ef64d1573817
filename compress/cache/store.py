"""Store: results by key, for all runs, processes and machines that share a place.

What it cannot do is never an error of the run: a result that cannot be read is worked out again,
one that cannot be kept is not, and a sentence says so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.cache.backend import (
    ForeignFiles,
    StorageBackend,
    claim,
    entry_name,
    object_name,
    shown_place,
)
from compress.cache.entry import MOST_ENTRY_BYTES, CacheEntry, DamagedEntry, PathOf
from compress.cache.folder import Folder
from compress.cache.location import LIMIT, NOTHING, PLACE, asked_bytes, backend_at, default_place
from compress.cache.streams import (
    FileFacts,
    Unfit,
    Unreadable,
    checked,
    chunks_of,
    reason,
    write_new,
)
from compress.cache.upkeep import (
    Removed,
    StoredResult,
    Verified,
    evict,
    kept_entries,
    read_entry,
    sweep,
    verify,
)
from compress.errors import RecipeError, StorageError
from compress.io.atomic import part_of
from compress.io.files import named, size_words

__all__ = ["Store", "Usage"]

# A store that is full is emptied a little further, so that not every result empties it again.
_ROOM = 0.9


@dataclass(frozen=True)
class Usage:
    """What a store takes, and what it may take."""

    bytes: int
    limit_bytes: int


class Store:
    """Results by key; :meth:`open` finds the place.

    Args:
        backend: where they lie; ``None`` keeps nothing.
        asked_bytes: what they may take at most.
        note: a sentence that says why nothing is kept, where that was not asked for.
    """

    def __init__(
        self, backend: StorageBackend | None, asked_bytes: int, note: str | None = None
    ) -> None:
        self._backend, self._asked_bytes = backend, asked_bytes
        self.note = note
        self._notes: list[str] = []
        self._said: set[str] = set()

    @classmethod
    def open(cls, place: str | None = None, *, create: bool = True) -> Store:
        """The store at a place, which is made if it is not there.

        Args:
            place: a folder, an address that fsspec knows, or ``none``. By default what the
                environment variable COMPRESSKIT_CACHE says, else a folder of the user's.
            create: make it; else one that is not there is empty.

        Raises:
            RecipeError: the place that was chosen is none, or is used for something else; or the
                limit in the environment is no size.
            MissingExtra: the package for this kind of address is not installed.
        """
        asked = asked_bytes()
        chosen = place if place is not None else os.environ.get(PLACE) or None
        where = default_place() if chosen is None else chosen
        if where == NOTHING:
            return cls(None, asked)
        if where is None:
            note = f"HOME is not set, so no results are kept for other runs; {PLACE} may say where."
            return cls(None, asked, note)
        try:
            backend = backend_at(where)
            claim(backend, create=create)
            return cls(backend, asked)
        except ForeignFiles as problem:
            if chosen is not None:
                raise RecipeError(
                    f"{shown_place(where)} {problem}, so no results are kept there; give another "
                    f"place or an empty folder (--cache or {PLACE})."
                ) from problem
            why = str(problem)
        except OSError as error:
            why = f"cannot be used ({reason(error)})"
        return cls(
            None, asked, f"{shown_place(where)} {why}, so no results are kept for other runs."
        )

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        return self._backend.place if self._backend else NOTHING

    @property
    def folder(self) -> Path | None:
        """Where it lies, if that is a folder of this machine."""
        return self._backend.root if isinstance(self._backend, Folder) else None

    def take_notes(self) -> list[str]:
        """Sentences that the user should read, each once."""
        notes, self._notes = self._notes, []
        return notes

    def find(self, key: str, kind: str) -> CacheEntry | None:
        """The entry of a key, if there is a whole one of this kind."""
        backend = self._backend
        if backend is None:
            return None
        name = entry_name(key)
        try:
            entry = read_entry(backend, name)
        except DamagedEntry as problem:
            self._drop(backend, name, str(problem))
            return None
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say_unread(reason(error))
            return None
        # A store that may only be read is of use all the same.
        with contextlib.suppress(OSError):
            if not backend.touch(name):
                backend.write(name, [entry.dumps().encode()])
        return entry if entry.kind == kind else None

    def fetch(self, entry: CacheEntry, path_of: PathOf) -> bool:
        """Put an entry's files where ``path_of`` says, all of them or none.

        Each is checked on its way. False if one is missing or damaged: the entry is dropped then.

        Raises:
            StorageError: a file cannot be written there.
        """
        backend = self._backend
        if backend is None:
            return False
        parts: dict[Path, Path] = {}
        try:
            for name in entry.files:
                path = path_of(name)
                parts[path] = part_of(path)
                if not self._fetched(backend, entry, name, parts[path]):
                    return False
            for path, part in parts.items():
                part.replace(path)
        except OSError as error:
            raise StorageError(
                f"{named(path)}: could not be written ({reason(error)}); free space or choose "
                "another --out."
            ) from error
        finally:
            for part in parts.values():
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        return True

    def put(self, entry: CacheEntry, path_of: PathOf) -> None:
        """Keep an entry and its files, which are copied."""
        backend = self._backend
        if backend is None:
            return
        text = entry.dumps().encode()
        if len(text) > MOST_ENTRY_BYTES:
            self._warn_once(
                "facts", f"the facts of a {entry.kind} are too many to be kept in the cache."
            )
            return
        try:
            if not self._has_room(backend, entry.size_bytes + len(text)):
                return
            _send(backend, entry, path_of, _is_in_use)
            backend.write(entry_name(entry.key), [text])
            # Someone who made room meanwhile may have taken an object before its entry was there.
            _send(backend, entry, path_of, _is_there)
        except Unfit as problem:
            self._warn_once("source", f"a {entry.kind} is not kept in the cache: its {problem}.")
        except OSError as error:
            self._warn_once(
                "write",
                f"{self.place}: results cannot be kept for other runs ({reason(error)}); this run "
                "continues without.",
            )

    def usage(self) -> Usage:
        """What it takes and may take.

        Raises:
            StorageError: it cannot be read.
        """
        with self._as_storage_errors() as backend:
            total = sum(file.bytes for file in backend.files()) if backend else 0
            return Usage(total, self._limit_bytes(total))

    def entries(self) -> Iterator[StoredResult]:
        """All results, those used last first; what is damaged is noted and stays.

        Raises:
            StorageError: it cannot be read.
        """
        with self._as_storage_errors() as backend:
            found = list(kept_entries(backend, backend.files())) if backend else []
        for one in found:
            if not isinstance(one, StoredResult):
                self._notes.append(f"{one[0].name} is damaged ({one[1]}).")
        kept = (one for one in found if isinstance(one, StoredResult))
        yield from sorted(kept, key=lambda one: one.used_s, reverse=True)

    def verify(self, *, keep: bool = False) -> Verified:
        """Read everything, and remove what is damaged unless ``keep``.

        Raises:
            StorageError: it cannot be read.
        """
        with self._as_storage_errors() as backend:
            return verify(backend, keep=keep) if backend else Verified(0, 0, ())

    def prune(self, most_bytes: int | None = None) -> Removed:
        """Remove the results that were not used for longest, down to a size or to the limit.

        Raises:
            StorageError: it cannot be read or written.
        """
        most = self.usage().limit_bytes if most_bytes is None else most_bytes
        with self._as_storage_errors() as backend:
            return evict(backend, most) if backend else Removed(0, 0)

    @contextlib.contextmanager
    def _as_storage_errors(self) -> Iterator[StorageBackend | None]:
        if self.note:
            raise StorageError(self.note)
        try:
            yield self._backend
        except OSError as error:
            raise StorageError(
                f"{self.place}: the kept results cannot be read or changed ({reason(error)})."
            ) from error

    def _limit_bytes(self, total_bytes: int) -> int:
        # Never more than half of what the disk has for it: the runs need space as well.
        free = self._backend.free_bytes() if self._backend else None
        asked = self._asked_bytes
        return asked if free is None else min(asked, (free + total_bytes) // 2)

    def _has_room(self, backend: StorageBackend, bytes_: int) -> bool:
        held = list(backend.files())
        total = sum(file.bytes for file in held) - sweep(backend, held)
        limit = self._limit_bytes(total)
        if bytes_ > limit:
            self._warn_once(
                "room",
                f"{self.place}: a result of {size_words(bytes_)} is not kept, since all may take "
                f"{size_words(limit)}; free some space, or raise {LIMIT}.",
            )
            return False
        if total + bytes_ > limit:
            removed = evict(backend, min(limit - bytes_, int(_ROOM * limit)))
            for damaged in removed.damaged:
                self._notes.append(f"{self.place}: {damaged}; removed.")
        return True

    def _fetched(self, backend: StorageBackend, entry: CacheEntry, name: str, part: Path) -> bool:
        facts = entry.files[name]
        held = object_name(facts.sha256)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        try:
            write_new(part, checked(backend.chunks(held), facts))
        except Unreadable as problem:
            self._say_unread(f"{held} {problem}")
            return False
        except Unfit as problem:
            self._drop(backend, entry_name(entry.key), f"its {name} {problem}")
            with contextlib.suppress(OSError):  # it is found again by whoever reads it next
                backend.remove(held)
            return False
        return True

    def _drop(self, backend: StorageBackend, name: str, why: str) -> None:
        try:
            backend.remove(name)
            end = "was removed; it is worked out again"
        except OSError as error:
            end = f"could not be removed ({reason(error)}); it is worked out again"
        self._notes.append(f"{self.place}: the kept result {name} is damaged ({why}) and {end}.")

    def _say_unread(self, why: str) -> None:
        self._warn_once(
            "read",
            f"{self.place}: kept results cannot be read ({why}); what is needed is worked out "
            "again.",
        )

    def _warn_once(self, topic: str, sentence: str) -> None:
        if topic not in self._said:
            self._said.add(topic)
            self._notes.append(sentence)


def _send(
    backend: StorageBackend,
    entry: CacheEntry,
    path_of: PathOf,
    is_kept: Callable[[StorageBackend, FileFacts], bool],
) -> None:
    for name, facts in entry.files.items():
        if not is_kept(backend, facts):
            try:
                chunks = checked(chunks_of(path_of(name)), facts)
                backend.write(object_name(facts.sha256), chunks)
            except Unfit as problem:
                raise Unfit(f"{name} {problem}") from problem


def _is_there(backend: StorageBackend, facts: FileFacts) -> bool:
    held = backend.stat(object_name(facts.sha256))
    return held is not None and held.regular and held.bytes == facts.bytes


def _is_whole(backend: StorageBackend, facts: FileFacts) -> bool:
    try:
        for _ in checked(backend.chunks(object_name(facts.sha256)), facts):
            pass
    except Unfit:
        return False
    return True


def _is_in_use(backend: StorageBackend, facts: FileFacts) -> bool:
    """Whether an object is there, and cannot be taken for one that nobody is about to name."""
    try:
        # Looked at once more: it may have been removed between the look and the touch.
        return (
            _is_there(backend, facts)
            and (not backend.is_local or _is_whole(backend, facts))
            and backend.touch(object_name(facts.sha256))
            and _is_there(backend, facts)
        )
    except FileNotFoundError:
        return False
