"""Source files of the user's own modules, with all that they import; nothing is imported here."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.fingerprints.bytecode import Import
from compress.fingerprints.content_walk import ContentWalk
from compress.fingerprints.libraries import installed_identity, is_library_file, source_path

__all__ = ["absolute_name", "closed_source", "module_file"]

_MOST_MODULES = 2_000


def absolute_name(scope: Mapping[str, Any], statement: Import) -> str:
    """The module that an import statement means; empty where a relative one leads nowhere."""
    if not statement.level:
        return statement.module
    package = str(scope.get("__package__") or "")
    try:
        return importlib.util.resolve_name("." * statement.level + statement.module, package)
    except ImportError:
        return ""


def closed_source(walk: ContentWalk, name: str, path: str) -> str:
    """The digest of a module's source, and of all of the user's own that it imports."""
    digest, found, pending = hashlib.sha256(), {name}, [(name, path)]
    while pending:
        name, path = pending.pop()
        tree = _parsed(path)
        digest.update(tree if isinstance(tree, bytes) else ast.dump(tree).encode())
        imported = set() if isinstance(tree, bytes) else _imported(tree, name, path)
        for other in sorted(imported - found):
            found.add(other)
            library = installed_identity(other.partition(".")[0])
            place = None if library is not None else module_file(other)
            digest.update(f"{other} {library or ''}".encode())
            if place is not None:
                pending.append((other, place))
        if len(found) > _MOST_MODULES:
            walk.refuse_because(
                f"the module {name}", f"which imports over {_MOST_MODULES:,} others"
            )
    return digest.hexdigest()


def _parsed(path: str) -> ast.AST | bytes:
    source = Path(path).read_bytes()
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # compiled, or of another Python
        return source


def _imported(tree: ast.AST, name: str, path: str) -> set[str]:
    """The modules that a module's import statements may mean."""
    package = name if Path(path).name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(
                {"__package__": package}, Import(node.level, node.module or "", ())
            )
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    return {each for each in found if each}


def module_file(name: str) -> str | None:
    """The source file of a module of the user's own; nothing is imported to find it."""
    top, *rest = name.split(".")
    loaded = sys.modules.get(name)
    if loaded is not None:
        path = source_path(loaded)
        return None if path is None or is_library_file(path) else path
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if not rest:
        return spec.origin if spec.origin and Path(spec.origin).is_file() else None
    for folder in spec.submodule_search_locations or ():
        stem = Path(folder, *rest)
        for place in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
            if place.is_file():
                return str(place)
    return None
