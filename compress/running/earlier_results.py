"""Results that an earlier run has left of a stage or a measurement, found and checked.

A result lies twice: in the run folder, at its place in the recipe, with a manifest beside it; and
in the store, under its key. What is damaged in one is taken from the other, and a notice says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.backends import backend_of_file, files_beside
from compress.cache import CacheEntry, DamagedEntry, Store
from compress.candidate import FILES
from compress.io.atomic import write_atomically
from compress.running.folder import RunFolder
from compress.running.keys import Dependencies
from compress.running.planned_rows import PlannedRow

__all__ = [
    "EarlierResults",
    "FoundResult",
    "MeasuredModel",
    "ResultFiles",
    "StageResult",
    "before_of",
    "measured_manifest",
]

_STAGE, _MEASUREMENT = "stage", "measurement"
_SAMPLES = "samples.jsonl"
_MODEL = "model"


@dataclass(frozen=True)
class StageResult:
    """What is kept of a finished stage beside its candidate."""

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
class ResultFiles:
    """Where the files of one result lie in the run folder.

    Args:
        manifest: says which files these are.
        path_of: of a file, by its name in the manifest.
    """

    manifest: Path
    path_of: Callable[[str], Path]


@dataclass(frozen=True)
class MeasuredModel:
    """The artifact of one row on one target.

    Args:
        index: of the row.
        label: of the row.
        target: its name.
        path: of the artifact in the run folder.
    """

    index: int
    label: str
    target: str
    path: Path


@dataclass(frozen=True)
class FoundResult:
    """What was found for a key; ``entry`` is ``None`` where the work is to be done.

    ``why`` says, in a clause, why what was there before is not used.
    """

    entry: CacheEntry | None
    why: str = ""


def before_of(entry: CacheEntry) -> Mapping[str, Any]:
    """What an earlier result depended on, by name; a stranger's file may say anything."""
    before = entry.facts.get("depends")
    return before if isinstance(before, Mapping) else {}


def measured_manifest(run: Path, index: int, label: str, target: str) -> Path:
    """Where a run keeps what a row's measurement on a target depends on."""
    return RunFolder(run).stage(index, label) / f"measured-{target}.json"


class EarlierResults:
    """The results of one run folder and of the store.

    Args:
        folder: the run's.
        store: results of all runs, by key.
        source: what entries say of where they are from, such as the recipe's name.
        fresh: whether nothing that is there is used.
        notify: takes sentences that the user should read.
    """

    def __init__(
        self,
        folder: RunFolder,
        store: Store,
        source: Mapping[str, Any],
        *,
        fresh: bool,
        notify: Callable[[str], None],
    ) -> None:
        self._folder, self._store, self._source = folder, store, source
        self._fresh, self._notify = fresh, notify

    def stage(self, planned: PlannedRow, depends: Dependencies) -> FoundResult:
        """The result of a stage, its candidate whole in the run folder."""
        return self._found(self._stage_files(planned), _STAGE, depends)

    def seem_to_have(self, planned: PlannedRow, depends: Dependencies) -> bool:
        """Whether there is a result of the stage; whether it is whole is not looked at."""
        if self._fresh or depends.key is None:
            return False
        entry, _ = self._manifest(self._stage_files(planned))
        is_here = entry is not None and entry.key == depends.key
        return is_here or self._store.find(depends.key, _STAGE) is not None

    def keep_stage(self, planned: PlannedRow, depends: Dependencies, result: StageResult) -> None:
        """Mark a stage as finished; its candidate must be saved before.

        Raises:
            StorageError: the disk refused.
        """
        names = [f"candidate/{name}" for name in FILES]
        facts = {"result": asdict(result), "stage": planned.label}
        self._keep(self._stage_files(planned), _STAGE, depends, facts, names)

    def measurement(self, model: MeasuredModel, depends: Dependencies) -> FoundResult:
        """A row's measurement on a target, its artifact and raw samples whole in the run folder."""
        return self._found(self._measurement_files(model), _MEASUREMENT, depends)

    def provisional(self, model: MeasuredModel) -> CacheEntry | None:
        """What the run folder has of a measurement, whatever it was compared with, if whole."""
        entry, problem = self._read(self._measurement_files(model))
        return None if self._fresh or problem else entry

    def keep_measurement(
        self, model: MeasuredModel, depends: Dependencies, measured: Mapping[str, Any]
    ) -> None:
        """Note that a row was measured; artifact and raw samples must be there.

        Raises:
            StorageError: the disk refused.
        """
        files, stem = self._measurement_files(model), model.path.stem
        written = files_beside(backend_of_file(model.path), model.path)
        names = [_MODEL + path.name.removeprefix(stem) for path in written]
        if files.path_of(_SAMPLES).exists():
            names.append(_SAMPLES)
        facts = {"result": dict(measured), "stage": model.label, "target": model.target}
        self._keep(files, _MEASUREMENT, depends, facts, names)

    def _stage_files(self, planned: PlannedRow) -> ResultFiles:
        folder = self._folder.stage(planned.index, planned.label)
        return ResultFiles(folder / "stage.json", lambda name: folder / name)

    def _measurement_files(self, model: MeasuredModel) -> ResultFiles:
        raw = self._folder.raw(model.index, model.target)

        def path_of(name: str) -> Path:
            if name == _SAMPLES:
                return raw
            return model.path.with_name(model.path.stem + name.removeprefix(_MODEL))

        manifest = measured_manifest(self._folder.root, model.index, model.label, model.target)
        return ResultFiles(manifest, path_of)

    def _found(self, files: ResultFiles, kind: str, depends: Dependencies) -> FoundResult:
        if self._fresh:
            return FoundResult(None)
        if depends.key is None:
            return FoundResult(None, "; ".join(depends.unknown) if files.manifest.exists() else "")
        entry, problem = self._read(files)
        if entry is not None and entry.key == depends.key and not problem:
            return FoundResult(entry)
        stored = self._restored(files, kind, depends.key)
        if stored is not None:
            if problem:
                self._notify(f"{problem}; it was taken from the cache again")
            return FoundResult(stored)
        if problem or entry is None:
            return FoundResult(None, problem)
        return FoundResult(None, depends.changed(before_of(entry)))

    def _read(self, files: ResultFiles) -> tuple[CacheEntry | None, str]:
        """The manifest, and what is wrong with it or with its files, as a clause."""
        entry, problem = self._manifest(files)
        if entry is None or problem:
            return entry, problem
        name, _, rest = (entry.damage(files.path_of) or "").partition(" ")
        return entry, f"{self._folder.named(files.path_of(name))} {rest}" if name else ""

    def _manifest(self, files: ResultFiles) -> tuple[CacheEntry | None, str]:
        name = self._folder.named(files.manifest)
        try:
            text = files.manifest.read_bytes()
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{name} cannot be read ({error.strerror or error})"
        try:
            return CacheEntry.loads(text), ""
        except DamagedEntry as error:
            if b'"checksum"' not in text:
                return None, f"{name} is of an earlier version of compresskit"
            return None, f"{name} is damaged ({error})"

    def _restored(self, files: ResultFiles, kind: str, key: str) -> CacheEntry | None:
        """The store's entry, once its files are in the run folder."""
        entry = self._store.find(key, kind)
        if entry is None:
            return None
        try:
            is_there = self._store.fetch(entry, files.path_of)
            if is_there:
                write_atomically(files.manifest, entry.dumps())
        finally:
            self._pass_on_notes()
        return entry if is_there else None

    def _keep(
        self,
        files: ResultFiles,
        kind: str,
        depends: Dependencies,
        facts: Mapping[str, Any],
        names: list[str],
    ) -> None:
        facts = {**self._source, **facts, "depends": dict(depends.facts)}
        # Without a key the manifest still says what is there, for whoever looks.
        key = depends.key or "0" * 32
        entry = CacheEntry.of(key, kind, facts, names, files.path_of)
        write_atomically(files.manifest, entry.dumps())
        if depends.key is not None:
            self._store.put(entry, files.path_of)
        self._pass_on_notes()

    def _pass_on_notes(self) -> None:
        for note in self._store.take_notes():
            self._notify(note)
