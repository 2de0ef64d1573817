"""Files that settings name: what is in them belongs to what a stage's result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.artifact import file_sha256

__all__ = ["named_files"]


def named_files(settings: Any) -> list[str]:
    """The checksums of the files that settings name, in order; of those that exist."""
    if isinstance(settings, Path):
        return [file_sha256(settings)] if settings.is_file() else []
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        return [checksum for value in settings for checksum in named_files(value)]
    return []
