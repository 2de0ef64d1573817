"""``compresskit new``: write a starter recipe, for one's own model and data where given."""

from __future__ import annotations

import argparse
import shlex
from importlib import resources
from pathlib import Path

from compress.errors import RecipeError, StorageError

_DEFAULT = "recipe.yaml"


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: the file is there already, or model and data do not go together.
        StorageError: it cannot be written.
    """
    path = recipe_path(arguments)
    if path.exists():
        raise RecipeError(_is_there(path))
    text, imports, notes = _text(arguments, path)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise RecipeError(_is_there(path)) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}).") from error
    options = "".join(f" --import {module}" for module in imports)
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {path}; look at it, then: compresskit plan {shlex.quote(str(path))}{options}")
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


def _text(
    arguments: argparse.Namespace, path: Path
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The recipe, the modules that it needs, and what there is to say of it."""
    if arguments.data is None:
        given = ("model", "weights", "size")
        if named := [name for name in given if getattr(arguments, name) is not None]:
            raise RecipeError(
                f"--{named[0]}: give the data as well, such as --data photos (a folder of images), "
                "--data arrays.npz or --data data.py:make_task."
            )
        return starter(), (), ()
    if arguments.weights is not None and arguments.model is None:
        raise RecipeError(
            f"--weights {arguments.weights}: give the net that they are of as well, such as "
            "--model net.py:Net."
        )
    from compress.recipe import Recipe
    from compress.starters import starter_for

    weights = None if arguments.weights is None else Path(arguments.weights)
    made = starter_for(path, arguments.data, arguments.model, weights, arguments.size)
    Recipe.loads(made.text, imports=made.imports)  # what is written is a recipe
    return made.text, made.imports, made.notes


def _is_there(path: Path) -> str:
    return f"{path}: there is a file already; give another path."


def starter() -> str:
    """The text of the starter recipe."""
    return resources.files("compress.cli").joinpath("starter.yaml").read_text(encoding="utf-8")
