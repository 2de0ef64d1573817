"""References to code as they are typed in a shell: ``net.py:Net`` for ``net:Net``."""

from __future__ import annotations

from pathlib import Path, PurePath

from compress.errors import CodeReferenceError
from compress.io.files import named

__all__ = ["reference_of"]

_SUFFIX = ".py"


def reference_of(given: str) -> str | None:
    """``module:name`` of what was typed, ``module`` where no name was; ``None`` of what is no code.

    Raises:
        CodeReferenceError: a file that cannot be imported from the current folder.
    """
    file, colon, name = given.rpartition(":") if ":" in given else (given, "", "")
    if file.endswith(_SUFFIX) and colon and not name.replace(".", "").isidentifier():
        raise CodeReferenceError(
            f"{named(given)}: after the colon comes the name of a class or a function, and "
            f"{name!r} is none; arguments go into a function that makes it, such as `def make(): "
            "return Net(width=12)`."
        )
    if not file.endswith(_SUFFIX):
        return given if colon and file.replace(".", "").isidentifier() else None
    path = PurePath(file)
    if path.is_absolute():
        try:
            path = path.relative_to(Path.cwd())
        except ValueError:
            raise CodeReferenceError(_elsewhere(file)) from None
    if not Path(path).is_file():
        raise CodeReferenceError(f"{named(file)}: there is no such file.")
    parts = [part for part in path.with_suffix("").parts if part != "."]
    if ".." in parts:
        raise CodeReferenceError(_elsewhere(file))
    if wrong := [part for part in parts if not part.isidentifier()]:
        raise CodeReferenceError(
            f"{named(file)}: {named(wrong[0])!r} is no name that Python imports; rename it to "
            "letters, digits and underscores, such as my_net.py."
        )
    return f"{'.'.join(parts)}{colon}{name}"


def _elsewhere(file: str) -> str:
    return (
        f"{named(file)}: code is imported from the current folder; run the command in the folder "
        "that holds the file, or copy it here."
    )
