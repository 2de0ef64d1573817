"""Folders for what lasts only as long as a piece of work, and those that kills leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from compress.errors import StorageError
from compress.io.atomic import is_gone, process_tag

__all__ = ["scratch", "sweep_scratch"]

_PREFIX = "compresskit-"
_NAME = re.compile(rf"{_PREFIX}([0-9a-f]{{8}}-[0-9]+)-\w+")


@contextlib.contextmanager
def scratch(beside: Path | None = None) -> Iterator[str]:
    """A new folder; it is gone afterwards.

    Args:
        beside: the folder to make it in; by default where the system keeps temporary files.

    Raises:
        StorageError: there is no room for temporary files.
        OSError: it cannot be made in ``beside``.
    """
    try:
        made = tempfile.TemporaryDirectory(
            prefix=f"{_PREFIX}{process_tag()}-", dir=beside, ignore_cleanup_errors=True
        )
    except OSError as error:
        if beside is not None:
            raise
        raise StorageError(
            f"temporary files cannot be written ({error.strerror or error}); free some space, or "
            "set TMPDIR to a folder that can be written."
        ) from error
    with made as folder:
        yield folder


def sweep_scratch(beside: Path | None = None) -> list[Path]:
    """Remove this user's folders of :func:`scratch` whose process is gone; returns them."""
    removed = []
    with contextlib.suppress(OSError), os.scandir(beside or tempfile.gettempdir()) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found is None or not entry.is_dir(follow_symlinks=False) or not is_gone(found[1]):
                continue
            if hasattr(os, "getuid") and entry.stat(follow_symlinks=False).st_uid != os.getuid():
                continue
            shutil.rmtree(entry.path, ignore_errors=True)
            removed.append(Path(entry.path))
    return removed
