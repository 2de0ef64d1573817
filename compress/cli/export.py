"""``compresskit export``: a row of a run as a folder in the form of the Hugging Face hub."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.cli.run_candidate import candidate_of_run
from compress.config.recipe_file import located
from compress.errors import RecipeError
from compress.models.hub_export import ExportedRow, HubExport, write_hub_folder
from compress.record import Row

_FORMATS = ("hf",)


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: no such format, or a model that came from no Hugging Face folder.
        RecordError: no such row, or one whose candidate is gone or was changed.
    """
    if arguments.format not in _FORMATS:
        raise RecipeError(f"--format {arguments.format}: there is only {', '.join(_FORMATS)}.")
    found = candidate_of_run(Path(arguments.run), arguments.row, arguments.imports)
    record, row, candidate = found.record, found.row, found.candidate
    source, inputs = _source_of(record.recipe, row), candidate.example
    timed = row.measurements[0].artifact.path if row.measurements else "not measured"
    facts = ExportedRow(record.name, row.index, row.stage, row.fingerprint, timed)
    print(describe(write_hub_folder(candidate, source, inputs, Path(arguments.out), facts), facts))
    return 0


def describe(made: HubExport, row: ExportedRow) -> str:
    """What was written, how far it is from its module, and that it is not what was timed."""
    error = max(parity.max_error for parity in made.parities.values())
    least = min(parity.r_squared for parity in made.parities.values())
    axes = " and ".join(("batch", "length")[: len(next(iter(made.parities)))])
    size = f"{made.bytes / 2**20:.1f} MiB"
    sizes = ", ".join("x".join(map(str, sizes)) for sizes in made.parities)
    lines = [
        f"wrote {made.folder}: row {row.row} ({row.stage}), {size}, with open {axes}",
        f"as its module at {sizes}: largest error {error:.2g}, R² {least:.6f} or more",
        f"this file was not timed: the record is about {row.timed}, whose shapes are fixed",
        f"open it by: optimum.onnxruntime.{made.opened_by}.from_pretrained({str(made.folder)!r})",
    ]
    return "\n".join([*lines, *(f"note: {warning}" for warning in made.warnings)])


def _source_of(recipe: Mapping[str, Any], row: Row) -> Path:
    """The folder that the row's model came from: the last student's of the stages so far."""
    blocks = [recipe.get("model") or {}]
    blocks += [stage.get("student") for stage in recipe.get("stages", [])[: row.index]]
    folders = [block["hf"] for block in blocks if isinstance(block, dict) and "hf" in block]
    if not folders:
        raise RecipeError(
            f"row {row.index} ({row.stage}): its model came from no Hugging Face folder, whose "
            "configuration and tokenizer such a folder needs; deploy the row's own file."
        )
    return located(Path(folders[-1]))
