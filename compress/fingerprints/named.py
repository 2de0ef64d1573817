"""Files that settings name: what is in them belongs to what a stage's result depends on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.config.recipe_file import located
from compress.errors import DataError, RecipeError
from compress.fingerprints.files import FileDigestCache
from compress.io.files import named

__all__ = ["leaves", "named_files"]

_MOST_FILES = 20_000
# What an ONNX file begins with: the field of its version.
_ONNX_BEGINS = b"\x08"
_MOST_ONNX_BYTES = 2 << 30


def named_files(
    settings: Any, memory: FileDigestCache | None = None, *, most_files: int = _MOST_FILES
) -> list[str]:
    """The checksums of the files that settings name, in order.

    Of a folder, of all files below it with their places in it, but for hidden folders; of an ONNX
    file, of its external data too. Links count by what they lead to. What is not there is left to
    whoever needs it.

    Args:
        settings: mappings, lists and values, at any depth.
        memory: checksums of files that did not change since they were read.
        most_files: how many files and folders a folder may have.

    Raises:
        RecipeError: a folder with more files than a model has.
        DataError: a file that cannot be read, or an ONNX file whose data lie outside its folder.
    """
    memory = FileDigestCache() if memory is None else memory
    found = list(_named(settings, memory, most_files))
    memory.save()
    return found


def leaves(settings: Any) -> Iterator[Any]:
    """The values in settings, in order, at any depth of mappings and lists."""
    if isinstance(settings, Mapping):
        settings = tuple(settings.values())
    if not isinstance(settings, (list, tuple)):
        yield settings
        return
    for value in settings:
        yield from leaves(value)


def _named(settings: Any, memory: FileDigestCache, most: int) -> Iterator[str]:
    for path in leaves(settings):
        if isinstance(path, Path):
            place = located(path)
            is_folder = stat.S_ISDIR(_mode(place))
            yield from _of_folder(place, memory, most) if is_folder else _of_file(place, memory)


def _of_file(path: Path, memory: FileDigestCache) -> Iterator[str]:
    if not stat.S_ISREG(_mode(path)):
        return
    yield memory.sha256(path)
    for location, data in _external_data(path):
        yield f"{location} {memory.sha256(data) if stat.S_ISREG(_mode(data)) else 'is not there'}"


def _of_folder(folder: Path, memory: FileDigestCache, most: int) -> Iterator[str]:
    for path in sorted(_below(folder, most)):
        inside = path.relative_to(folder).as_posix()
        if stat.S_ISREG(_mode(path)):
            yield f"{inside} {memory.sha256(path)}"
        elif path.is_symlink():
            yield f"{inside} leads to nothing"


def _below(folder: Path, most: int) -> list[Path]:
    """Every file below a folder; folders that links lead to are gone through once on each way."""
    found: list[Path] = []
    pending = [(folder, frozenset[str]())]
    while pending:
        place, above = pending.pop()
        real = os.path.realpath(place)
        if real in above:
            continue
        for entry in _entries(place, most):
            if not _is_folder(entry):
                found.append(Path(entry.path))
            elif not entry.name.startswith("."):
                pending.append((Path(entry.path), above | {real}))
            if len(found) + len(pending) > most:
                raise RecipeError(
                    f"{named(folder)}: there are over {most:,} files and folders in it, "
                    "more than a model has; give the folder of the model itself."
                )
    return found


def _mode(path: Path) -> int:
    """What kind of thing is there; 0 for nothing that can be looked at."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return 0


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _entries(folder: Path, most: int) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry, _ in zip(entries, range(most + 1), strict=False)]
    except OSError as error:
        raise DataError(
            f"{named(folder)}: this folder cannot be read ({error.strerror or error})."
        ) from error


def _external_data(path: Path) -> list[tuple[str, Path]]:
    """The files beside an ONNX file that have its weights; none for files of other kinds."""
    with path.open("rb") as stream:
        if stream.read(1) != _ONNX_BEGINS or path.stat().st_size > _MOST_ONNX_BYTES:
            return []
    folder = path.parent.resolve()
    found = []
    for location in sorted(_locations(path)):
        data = Path(os.path.normpath(folder / location))
        if not data.is_relative_to(folder):
            raise DataError(
                f"{named(path)}: names {location!r} for its external data, which lies outside "
                "of its own folder and is not read; save the model again with its data beside it."
            )
        found.append((location, data))
    return found


def _locations(path: Path) -> set[str]:
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # of another kind, or damaged, which is for the stage to say
        return set()
    tensors = (tensor for tensor in _tensors(model) if uses_external_data(tensor))
    return {str(ExternalDataInfo(tensor).location) for tensor in tensors}


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a model, in bodies, attributes and local functions too."""
    import onnx

    pending = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto):
            yield message
            continue
        for descriptor, value in message.ListFields():
            if descriptor.message_type is not None:
                pending.extend([value] if hasattr(value, "ListFields") else value)
