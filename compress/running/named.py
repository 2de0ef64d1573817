"""Files that settings name: what is in them belongs to what a stage's result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.artifact import file_sha256
from compress.recipe_file import located

__all__ = ["named_files"]


def named_files(settings: Any) -> list[str]:
    """The checksums of the files that settings name, in order; of a folder, of those in it."""
    if isinstance(settings, Path):
        place = located(settings)
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        return [file_sha256(path) for path in inside if path.is_file()]
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        return [checksum for value in settings for checksum in named_files(value)]
    return []
