"""``compresskit new``: write a commented starter recipe."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from compress.errors import RecipeError, StorageError


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: the file is there already.
        StorageError: it cannot be written.
    """
    path = Path(arguments.path)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(starter())
    except FileExistsError:
        raise RecipeError(f"{path}: there is a file already; give another path.") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}).") from error
    print(f"wrote {path}; look at it, then: compresskit plan {path}")
    return 0


def starter() -> str:
    """The text of the starter recipe."""
    return resources.files("compress.cli").joinpath("starter.yaml").read_text(encoding="utf-8")
