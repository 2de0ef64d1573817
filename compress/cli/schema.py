"""``compresskit schema``: the JSON Schema of recipe files."""

from __future__ import annotations

import argparse

from compress.reference.schema import recipe_schema, schema_text

__all__ = ["recipe_schema", "run"]


def run(_: argparse.Namespace) -> int:
    """Run the command."""
    print(schema_text(), end="")
    return 0
