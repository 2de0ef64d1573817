"""``compresskit sensitivity``: which layer hurts, quantized by itself or cut by a tenth."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from compress.cli.json_output import others_to_stderr, print_json
from compress.cli.run_candidate import candidate_of_run
from compress.config.clauses import clauses
from compress.errors import RecipeError
from compress.formatting import sanitize
from compress.quantization.formats import default_activations
from compress.quantization.numerics import LayerFormat
from compress.recipe import Recipe
from compress.running.job import Job
from compress.running.sensitivity import Change, LayerSensitivity, Sensitivity, sensitivity_of
from compress.text_table import Column, text_lines

_FORMATS = ("int8/int8", "int4/float32")
_BAR = 12
_MOST_OF_ALL = 0.9
_FEW = 0.34


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: a format that is none, or ``--row`` of a recipe.
        CompressError: a recipe, a run or data that cannot be read.
    """
    if arguments.samples < 1:
        raise RecipeError(f"--samples {arguments.samples}: give 1 or more.")
    formats = {text: _format(text) for text in arguments.formats or _FORMATS}
    with others_to_stderr(arguments):
        job = _job(arguments)
        found = sensitivity_of(job, formats, arguments.samples, _tell)
    if arguments.as_json:
        facts = {"command": "sensitivity", "status": "done", "error": None}
        print_json({**facts, **asdict(found)})
        return 0
    is_read = sys.stdout is not None and sys.stdout.isatty()
    print("\n".join(described(found, shutil.get_terminal_size().columns if is_read else None)))
    return 0


def _job(arguments: argparse.Namespace) -> Job:
    place = Path(arguments.model)
    if place.is_dir() or place.name == "record.json":
        of_run = candidate_of_run(place, arguments.row or 0, arguments.imports)
        return of_run.recipe.job(of_run.candidate, of_run.task, workdir=Path())
    if arguments.row is not None:
        raise RecipeError(f"--row {arguments.row}: {place} is a recipe; rows are of a run.")
    recipe = Recipe.load(place, imports=arguments.imports)
    task = recipe.make_task()
    return recipe.job(recipe.make_candidate(task), task, workdir=Path())


def _format(text: str) -> LayerFormat:
    weights, _, activations = text.partition("/")
    try:
        return LayerFormat.model_validate(
            {
                "weights": weights,
                "activations": activations or default_activations(weights) or "float32",
            }
        )
    except ValidationError as error:
        place, clause = clauses(error)[0]
        what = f"{place[0]}: " if place else ""
        raise RecipeError(
            f"--format {text}: {what}{clause}; write weights/activations, as in int8/int8 or "
            "int4/float32."
        ) from error


def _tell(number: int, count: int, layer: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{number} of {count}: {layer}", end="", file=sys.stderr, flush=True)
        if number == count:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def described(found: Sensitivity, width: int | None = None) -> list[str]:
    """The table, the largest error of the first format first, and selectors to paste."""
    names = list(found.layers[0].formats)
    ordered = sorted(found.layers, key=lambda one: one.formats[names[0]].error, reverse=True)
    columns = [
        Column("layer", "", tuple(sanitize(one.layer, 60) for one in ordered), left=True),
        Column("class", "", tuple(one.kind for one in ordered), left=True, spare=3),
        Column("parameters", "", tuple(f"{one.parameters:,}" for one in ordered), spare=2),
    ]
    for name in names:
        columns += _columns(name, [one.formats[name] for one in ordered], bars=name == names[0])
    columns += _columns("a tenth cut", [one.cut for one in ordered], bars=False)
    metric = sanitize(found.metric, 40)
    lines = [*text_lines(columns, width=width), ""]
    lines.append(
        f"{found.samples} validation samples, on which the model has {metric} {found.score:.4g}. "
        "Each layer is changed by itself, in simulation."
    )
    lines.append(
        f"error: mean squared error of the outputs over their variance; loss: of {metric}; KiB: "
        "saved of the weights."
    )
    return lines + _selectors(ordered, names[0])


def _columns(heading: str, changes: Sequence[Change | None], *, bars: bool) -> list[Column]:
    most = max((change.error for change in changes if change), default=0.0)
    columns = [
        Column(heading, "error", tuple(_cell(c.error if c else None, ".2g") for c in changes)),
        Column("", "loss", tuple(_cell(c.lost if c else None, "+.4f") for c in changes), spare=1),
        Column(
            "",
            "KiB",
            tuple(_cell(c.saved_bytes / 1024 if c else None, ",.1f") for c in changes),
            spare=1,
        ),
    ]
    if bars:
        cells = tuple(
            "#" * round(_BAR * (c.error / most) ** 0.5) if c and most else "" for c in changes
        )
        columns.insert(0, Column("", "", cells, left=True, spare=4))
    return columns


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _selectors(ordered: Sequence[LayerSensitivity], name: str) -> list[str]:
    """What to paste where few layers make most of the error."""
    lines = []
    quantized = _most_of({one.layer: one.formats[name].error for one in ordered})
    if quantized:
        lines.append(f"quantize ({name}): exclude: [{', '.join(quantized)}]")
    cut = _most_of({one.layer: one.cut.error for one in ordered if one.cut})
    if cut:
        lines.append(f"prune: ignore: [{', '.join(cut)}]")
    return ["", "Few layers make most of the error; to leave them out:", *lines] if lines else []


def _most_of(errors: dict[str, float]) -> list[str]:
    """The layers that make most of all errors, where these are few; else none."""
    total, taken, chosen = sum(errors.values()), 0.0, list[str]()
    for layer, error in sorted(errors.items(), key=lambda one: one[1], reverse=True):
        if taken >= _MOST_OF_ALL * total:
            break
        taken += error
        chosen.append(layer)
    return chosen if total and len(chosen) <= _FEW * len(errors) else []
