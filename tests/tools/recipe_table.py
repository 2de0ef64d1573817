"""The table of recipes, made from the files: ``python -m tests.tools.recipe_table``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from compress.recipe import Recipe

__all__ = ["recipe_files", "recipe_table"]

_INTRODUCTION = """\
# Recipes

Each runs as it is: `compresskit run recipes/NAME`. A comment beside each number gives its reason.
`compresskit plan recipes/NAME` says what it would cost on your machine.

"""


def recipe_files(folder: Path) -> list[Path]:
    """Every recipe below ``folder``: those on top first."""
    return sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path))


def recipe_table(folder: Path) -> str:
    """A Markdown page with one line for each recipe."""
    lines = ["| recipe | what it does | stages |", "|---|---|---|", *_rows(folder)]
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _rows(folder: Path) -> Iterator[str]:
    for path in recipe_files(folder):
        recipe = Recipe.load(path)
        name = path.relative_to(folder).as_posix()
        stages = " → ".join(stage.kind for stage in recipe.stages)
        yield f"| [{name}]({name}) | {recipe.description} | {stages} |"


if __name__ == "__main__":
    sys.stdout.write(recipe_table(Path(sys.argv[1] if len(sys.argv) > 1 else "recipes")))
