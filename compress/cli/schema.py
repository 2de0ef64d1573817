"""``compresskit schema``: the JSON Schema of recipe files."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.io.atomic import write_atomically
from compress.reference.schema import recipe_schema, schema_text

__all__ = ["recipe_schema", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.out is None:
        print(schema_text(), end="")
    else:
        write_atomically(Path(arguments.out), schema_text())
        print(f"wrote {arguments.out}")
    return 0
