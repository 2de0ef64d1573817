"""``compresskit new``: write a commented starter recipe."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from compress.errors import RecipeError, StorageError

_DEFAULT = "recipe.yaml"


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: the file is there already.
        StorageError: it cannot be written.
    """
    path = recipe_path(arguments)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(starter())
    except FileExistsError:
        raise RecipeError(f"{path}: there is a file already; give another path.") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}).") from error
    print(f"wrote {path}; look at it, then: compresskit plan {path}")
    return 0


def recipe_path(arguments: argparse.Namespace) -> Path:
    """Where to, by the argument or by ``--out``.

    Raises:
        RecipeError: both were given.
    """
    if arguments.path is not None and arguments.out is not None:
        raise RecipeError(
            f"{arguments.path} and --out {arguments.out} both say where the recipe goes; give one."
        )
    return Path(arguments.path or arguments.out or _DEFAULT)


def starter() -> str:
    """The text of the starter recipe."""
    return resources.files("compress.cli").joinpath("starter.yaml").read_text(encoding="utf-8")
