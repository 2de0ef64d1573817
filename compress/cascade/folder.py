"""The folder of a cascade: made aside and put in its place, so that a kill leaves no half of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import __version__
from compress.artifact import file_sha256, model_files
from compress.errors import StorageError
from compress.io.atomic import write_atomically
from compress.io.scratch import scratch
from compress.overwriting import CASCADE, CASCADE_NAME, check_cascade_folder
from compress.ship.model_file import write_model

__all__ = ["PROGRAM", "FolderToBe", "written"]

#: What lies in folders, and needs numpy and onnxruntime alone.
PROGRAM = Path(__file__).parent / "program"


@dataclass(frozen=True)
class FolderToBe:
    """A folder that is made aside.

    Args:
        folder: where it will be.
        draft: where it is made.
    """

    folder: Path
    draft: Path

    def add_model(self, source: Path, name: str, says: Mapping[str, object]) -> str:
        """Write a model with what it says of itself, and its part in the cascade.

        Args:
            source: its file.
            name: of the part, and of the file.
            says: of itself.

        Returns:
            Its file in the folder; external data, whose names are fixed, give it a folder.

        Raises:
            OSError: the disk refused.
        """
        place = self.draft / f"{name}.onnx"
        if len(model_files(source)) > 1:
            place = self.draft / name / f"{name}.onnx"
            place.parent.mkdir()
        says = {"version": __version__, **says, "cascade": name}
        own, *_ = write_model(source, place, says)
        return own.relative_to(self.draft).as_posix()

    def files(self) -> dict[str, str]:
        """The files of the draft with their SHA-256, by their names in the folder."""
        return {
            path.relative_to(self.draft).as_posix(): file_sha256(path)
            for path in sorted(self.draft.rglob("*"))
            if path.is_file()
        }

    def put(self, files: Mapping[str, str], content: bytes) -> None:
        """Put all files in their place; a kill leaves a folder that may be written over.

        Args:
            files: of the draft, by their names.
            content: of ``cascade.json``, which is written last.

        Raises:
            OSError: the disk refused.
        """
        self.folder.mkdir(exist_ok=True)
        earlier = _files_of(self.folder / CASCADE_NAME)
        coming: dict[str, Any] = {"kind": CASCADE, "files": [*earlier, *files]}
        write_atomically(self.folder / CASCADE_NAME, json.dumps(coming))
        whole = self.folder.resolve()
        for name in earlier:
            if name not in files and (self.folder / name).resolve().is_relative_to(whole):
                (self.folder / name).unlink(missing_ok=True)
        for name in files:
            (self.folder / name).parent.mkdir(exist_ok=True)
            os.replace(self.draft / name, self.folder / name)
        write_atomically(self.folder / CASCADE_NAME, content)


@contextmanager
def written(folder: Path) -> Iterator[FolderToBe]:
    """A folder to fill and put in its place.

    Args:
        folder: is made, or has an earlier cascade, which is replaced.

    Raises:
        RecipeError: something is in the folder that this tool did not write.
        StorageError: the disk refused; what was there before can be written over again.
    """
    check_cascade_folder(folder, "--out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch(folder.parent) as place:
            yield FolderToBe(folder, Path(place))
    except OSError as error:
        raise StorageError(
            f"{folder}: the cascade could not be written there ({error.strerror or error}); free "
            "space or give another folder (--out)."
        ) from error


def _files_of(path: Path) -> list[str]:
    """What an earlier cascade says that it wrote: the folder was looked at before."""
    try:
        files = json.loads(path.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in files]
