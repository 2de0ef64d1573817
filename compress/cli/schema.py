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
        # The newline is a write of its own, which notices where nobody has read what came before.
        print(schema_text().removesuffix("\n"))
    else:
        write_atomically(Path(arguments.out), schema_text())
        print(f"wrote {arguments.out}")
    return 0
