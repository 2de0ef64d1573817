"""Results: what an earlier run has left of a stage or a measurement, found and seen to be whole.

A result lies twice: in the run folder, at its place in the recipe, with a manifest beside it; and
in the store, under its key. What is damaged in one is taken from the other, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.artifact import model_files, modules_file
from compress.cache import DamagedEntry, Entry, Store
from compress.candidate import FILES
from compress.io.atomic import write_atomically
from compress.running.folder import RunFolder
from compress.running.keys import Dependencies

__all__ = ["Found", "Place", "Results", "StageResult", "before_of"]

_STAGE, _MEASUREMENT = "stage", "measurement"
_SAMPLES = "samples.jsonl"
_MODEL = "model.onnx"


@dataclass(frozen=True)
class StageResult:
    """What is remembered of a finished stage beside its candidate."""

    fingerprint: str
    seconds: float
    notes: tuple[str, ...]
    history: tuple[dict[str, Any], ...]
    widths: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> StageResult:
        """From what :func:`dataclasses.asdict` made of one."""
        return cls(
            fingerprint=str(stored["fingerprint"]),
            seconds=float(stored["seconds"]),
            notes=tuple(stored["notes"]),
            history=tuple(stored["history"]),
            widths=tuple(stored["widths"]),
        )


@dataclass(frozen=True)
class Place:
    """Where the files of one result lie in the run folder.

    Args:
        manifest: says which files these are.
        path_of: of a file, by its name in the manifest.
    """

    manifest: Path
    path_of: Callable[[str], Path]


@dataclass(frozen=True)
class Found:
    """What was found for a key; ``entry`` is ``None`` where the work is to be done.

    ``why`` says, in a clause, why what was there before is not used.
    """

    entry: Entry | None
    why: str = ""


def before_of(entry: Entry) -> Mapping[str, Any]:
    """What an earlier result depended on, by name; a stranger's file may say anything."""
    before = entry.facts.get("depends")
    return before if isinstance(before, Mapping) else {}


class Results:
    """The results of one run folder and of the store.

    Args:
        folder: the run's.
        store: results of all runs, by key.
        words: what entries say of where they are from, such as the recipe's name.
        fresh: whether nothing that is there is used.
        tell: takes sentences that the user should read.
    """

    def __init__(
        self,
        folder: RunFolder,
        store: Store,
        words: Mapping[str, Any],
        *,
        fresh: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._folder, self._store, self._words = folder, store, words
        self._fresh, self._tell = fresh, tell

    def stage(self, index: int, label: str, depends: Dependencies) -> Found:
        """The result of a stage, its candidate whole in the run folder."""
        return self._found(self._stage_place(index, label), _STAGE, depends)

    def seem_to_have(self, index: int, label: str, depends: Dependencies) -> bool:
        """Whether there is a result of the stage; whether it is whole is not looked at."""
        if self._fresh or depends.key is None:
            return False
        entry, _ = self._manifest(self._stage_place(index, label))
        is_here = entry is not None and entry.key == depends.key
        return is_here or self._store.find(depends.key, _STAGE) is not None

    def keep_stage(
        self, index: int, label: str, depends: Dependencies, result: StageResult
    ) -> None:
        """Mark a stage as finished; its candidate must be saved before.

        Raises:
            StorageError: the disk refused.
        """
        names = [f"candidate/{name}" for name in FILES]
        facts = {"result": asdict(result), "stage": label}
        self._keep(self._stage_place(index, label), _STAGE, depends, facts, names)

    def measurement(
        self, index: int, label: str, target: str, model: Path, depends: Dependencies
    ) -> Found:
        """A row's measurement on a target, its artifact and raw samples whole in the run folder."""
        place = self._measurement_place(index, label, target, model)
        return self._found(place, _MEASUREMENT, depends)

    def provisional(self, index: int, label: str, target: str, model: Path) -> Entry | None:
        """What the run folder has of a measurement, whatever it was compared with, if whole."""
        place = self._measurement_place(index, label, target, model)
        entry, problem = self._read(place)
        return None if self._fresh or problem else entry

    def keep_measurement(
        self,
        index: int,
        label: str,
        target: str,
        model: Path,
        depends: Dependencies,
        measured: Mapping[str, Any],
    ) -> None:
        """Note that a row was measured; artifact and raw samples must be there.

        Raises:
            StorageError: the disk refused.
        """
        place = self._measurement_place(index, label, target, model)
        files = [*model_files(model), modules_file(model)]
        names = [_MODEL + path.name.removeprefix(model.name) for path in files if path.exists()]
        if place.path_of(_SAMPLES).exists():
            names.append(_SAMPLES)
        facts = {"result": dict(measured), "stage": label, "target": target}
        self._keep(place, _MEASUREMENT, depends, facts, names)

    def _stage_place(self, index: int, label: str) -> Place:
        folder = self._folder.stage(index, label)
        return Place(folder / "stage.json", lambda name: folder / name)

    def _measurement_place(self, index: int, label: str, target: str, model: Path) -> Place:
        raw = self._folder.raw(index, target)

        def path_of(name: str) -> Path:
            if name == _SAMPLES:
                return raw
            return model.parent / (model.name + name.removeprefix(_MODEL))

        return Place(self._folder.stage(index, label) / f"measured-{target}.json", path_of)

    def _found(self, place: Place, kind: str, depends: Dependencies) -> Found:
        if self._fresh:
            return Found(None)
        if depends.key is None:
            return Found(None, "; ".join(depends.unknown) if place.manifest.exists() else "")
        entry, problem = self._read(place)
        if entry is not None and entry.key == depends.key and not problem:
            return Found(entry)
        stored = self._restored(place, kind, depends.key)
        if stored is not None:
            if problem:
                self._tell(f"{problem}; it was taken from the cache again")
            return Found(stored)
        if problem or entry is None:
            return Found(None, problem)
        return Found(None, depends.changed(before_of(entry)))

    def _read(self, place: Place) -> tuple[Entry | None, str]:
        """The manifest, and what is wrong with it or with its files, as a clause."""
        entry, problem = self._manifest(place)
        if entry is None or problem:
            return entry, problem
        name, _, rest = (entry.damage(place.path_of) or "").partition(" ")
        return entry, f"{self._folder.named(place.path_of(name))} {rest}" if name else ""

    def _manifest(self, place: Place) -> tuple[Entry | None, str]:
        name = self._folder.named(place.manifest)
        try:
            text = place.manifest.read_bytes()
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{name} cannot be read ({error.strerror or error})"
        try:
            return Entry.loads(text), ""
        except DamagedEntry as error:
            if b'"checksum"' not in text:
                return None, f"{name} is of an earlier version of compresskit"
            return None, f"{name} is damaged ({error})"

    def _restored(self, place: Place, kind: str, key: str) -> Entry | None:
        """The store's entry, once its files are in the run folder."""
        entry = self._store.find(key, kind)
        if entry is None:
            return None
        try:
            is_there = self._store.fetch(entry, place.path_of)
            if is_there:
                write_atomically(place.manifest, entry.dumps())
        finally:
            self._pass_on_notes()
        return entry if is_there else None

    def _keep(
        self,
        place: Place,
        kind: str,
        depends: Dependencies,
        facts: Mapping[str, Any],
        names: list[str],
    ) -> None:
        facts = {**self._words, **facts, "depends": dict(depends.facts)}
        # Without a key the manifest still says what is there, for whoever looks.
        key = depends.key or "0" * 32
        entry = Entry.of(key, kind, facts, names, place.path_of)
        write_atomically(place.manifest, entry.dumps())
        if depends.key is not None:
            self._store.put(entry, place.path_of)
        self._pass_on_notes()

    def _pass_on_notes(self) -> None:
        for note in self._store.take_notes():
            self._tell(note)
