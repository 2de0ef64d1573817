"""Where the store lies, and how much it may take."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from compress.cache.backend import StorageBackend
from compress.cache.folder import Folder
from compress.cache.sizes import parse_size
from compress.errors import RecipeError

__all__ = ["LIMIT", "NOTHING", "PLACE", "asked_bytes", "backend_at", "default_place"]

#: The environment's word on both.
PLACE = "COMPRESSKIT_CACHE"
LIMIT = "COMPRESSKIT_CACHE_LIMIT"

#: The name of a store that keeps nothing.
NOTHING = "none"

_DEFAULT_BYTES = 20 * 1000**3
_LOCAL = ("file://", "local://")


def asked_bytes() -> int:
    """What the store may take at most.

    Raises:
        RecipeError: the environment says something that is no size.
    """
    given = os.environ.get(LIMIT)
    return parse_size(given, LIMIT) if given else _DEFAULT_BYTES


def default_place() -> str | None:
    """A folder of this user's; ``None`` where there is no home to have it in."""
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # which is to be ignored
        home = os.environ.get("HOME", "")
        if sys.platform == "win32":
            home = os.path.expanduser("~")
        caches = os.path.join(home, ".cache")
    # Downloads and, on devices, models lie beside it.
    return os.path.join(caches, "compresskit", "store") if os.path.isabs(caches) else None


def backend_at(place: str) -> StorageBackend:
    """What lies at a folder or an address; looks at nothing yet in a folder.

    Raises:
        RecipeError: it is neither.
        MissingExtra: the package for this kind of address is not installed.
        OSError: it cannot be reached.
    """
    if not place.strip() or "\0" in place:
        raise RecipeError(
            f"{place!r} is no place for a store; give a folder, an address such as "
            f"s3://bucket/folder, or {NOTHING}."
        )
    for prefix in _LOCAL:
        if place.startswith(prefix):
            return Folder(Path.cwd() / place.removeprefix(prefix))
    if "://" in place:
        from compress.cache.remote import connect

        return connect(place)
    return Folder(Path.cwd() / os.path.expanduser(place))
