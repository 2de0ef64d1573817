"""``compresskit bench``: measure ONNX files side by side; the first is the baseline."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.cli.run import mode_of
from compress.errors import RecipeError
from compress.measure.compare import compare, table
from compress.measure.local import LocalTarget

_FAILED = 1


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 where a file could not be measured.

    Raises:
        RecipeError: ``threads`` or ``batch`` below 1.
    """
    for name in ("threads", "batch"):
        if getattr(arguments, name) < 1:
            raise RecipeError(f"--{name} must be at least 1; got {getattr(arguments, name)}.")
    target = LocalTarget(threads=arguments.threads, batch=arguments.batch)
    models = [Path(model) for model in arguments.models]
    raw = Path(arguments.raw) if arguments.raw else None
    rows = compare(models, target, mode_of(arguments), raw=raw)
    print(table(rows))
    return _FAILED if any(row.error for row in rows) else 0
