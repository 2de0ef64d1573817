"""What is a library's and what is the user's own; a library counts by its version."""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "compiled_identity",
    "installed_identity",
    "is_library_file",
    "library_identity",
    "source_path",
]

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_PYTHON = "python"


def library_identity(name: str) -> str | None:
    """What identifies the code of a library's module; ``None`` where it is the user's own.

    The version of its package, and the checksum of its source: a package of the user's that is
    installed under the same version again is another one.
    """
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return None
    path = source_path(module)
    if path is None:
        return _without_source(name, module)
    if not is_library_file(path):
        return None
    if _is_python(path):
        return _PYTHON
    return f"{name} {_version(name)} {_checksum(path)}"


def compiled_identity(name: str) -> str | None:
    """The same for what is compiled, whose file alone tells; ``None`` where there is none."""
    module = sys.modules.get(name)
    path = None if module is None else source_path(module)
    return library_identity(name) or (_checksum(path) if path is not None else None)


def installed_identity(name: str) -> str | None:
    """The same of a module that may not be imported yet, and does not become so.

    It is the same before and after somebody imports it.
    """
    top = name.partition(".")[0]
    spec = _top_spec(top)
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        return _PYTHON
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    if not places or not is_library_file(places[0]):
        return None
    if _is_python(places[0]):
        return _PYTHON
    origin = spec.origin if spec.origin and os.path.isfile(spec.origin) else None
    return f"{top} {_installed_version(top)} {_checksum(origin) if origin else ''}"


def is_library_file(path: str) -> bool:
    """Whether a file is installed, or of Python, or of this package."""
    parts = Path(path).parts
    if _INSTALLED.intersection(parts):
        return True
    return _is_below(path, (*_python_folders(), *_user_folders(), _own_folder()))


def source_path(module: ModuleType) -> str | None:
    """The file that a module was made from."""
    path = getattr(module, "__file__", None)
    return path if isinstance(path, str) and os.path.isfile(path) else None


def _without_source(name: str, module: ModuleType) -> str | None:
    """Modules that are built in, or that a library makes while it runs."""
    spec = getattr(module, "__spec__", None)
    if name in sys.builtin_module_names or getattr(spec, "origin", None) in ("built-in", "frozen"):
        return _PYTHON
    top = name.partition(".")[0]
    parent = sys.modules.get(top)
    if parent is None or parent is module:
        return None
    path = source_path(parent)
    return library_identity(top) if path is not None and is_library_file(path) else None


def _version(name: str) -> str:
    top = name.partition(".")[0]
    said = getattr(sys.modules.get(top), "__version__", None)
    return said if isinstance(said, str) else _installed_version(top)


@functools.lru_cache(maxsize=256)
def _installed_version(top: str) -> str:
    try:
        return metadata.version(top)
    except (metadata.PackageNotFoundError, ValueError):
        names = metadata.packages_distributions().get(top, ())
        return " ".join(sorted(f"{name} {metadata.version(name)}" for name in set(names)))


def _top_spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None


def _is_python(path: str) -> bool:
    return not _INSTALLED.intersection(Path(path).parts) and _is_below(path, _python_folders())


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    real = os.path.realpath(path)
    return any(place.startswith(folder) for place in (path, real) for folder in folders)


@functools.cache
def _python_folders() -> tuple[str, ...]:
    return _with_real([sysconfig.get_path(name) for name in ("stdlib", "platstdlib")])


@functools.cache
def _user_folders() -> tuple[str, ...]:
    return _with_real([site.getusersitepackages()])


@functools.cache
def _own_folder() -> str:
    return f"{Path(__file__).resolve().parents[1]}{os.sep}"


def _with_real(folders: list[Any]) -> tuple[str, ...]:
    known = [folder for folder in folders if isinstance(folder, str)]
    return tuple({f"{f.rstrip(os.sep)}{os.sep}" for g in known for f in (g, os.path.realpath(g))})


def _checksum(path: str) -> str:
    try:
        facts = os.stat(path)
        return _checksum_of(path, (facts.st_size, facts.st_mtime_ns))
    except OSError:
        return ""


@functools.lru_cache(maxsize=4096)
def _checksum_of(path: str, _facts: tuple[int, int]) -> str:
    # Size and time are for the cache alone: a file that was edited is another entry.
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
