"""``compresskit sensitivity``: which layer hurts, quantized by itself or cut by a tenth.

Under a budget also which format, or which ratio, an integer program gives each layer.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from glob import escape
from pathlib import Path
from typing import Any

import yaml

from compress.cli.json_output import others_to_stderr, print_json
from compress.cli.layer_table import described
from compress.cli.outputs import run_folder_of
from compress.cli.run_candidate import candidate_of_run
from compress.errors import AlreadySo, RecipeError
from compress.layer_facts import Choice, Sensitivity, write_sensitivity
from compress.measure.target import Mode
from compress.quantization.numerics import LayerFormat
from compress.quantization.stored import format_named
from compress.quoting import clipped, shown
from compress.recipe import Recipe
from compress.report.layers import write_layer_figures
from compress.running.cut_choice import COUNTED, choose_cuts, cuts_of
from compress.running.job import Job
from compress.running.layer_files import LayerFiles, choose_formats, with_times
from compress.running.sensitivity import sensitivity_of

_FORMATS = ("int8/int8", "int4/float32")
_CHOSEN = ("int8/int8", "float16/float16")
_LIMITS = ("artifact_kib", "latency_p50_ms")


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        RecipeError: a format or a budget that is none, or ``--row`` of a recipe.
        CompressError: a recipe, a run or data that cannot be read.
    """
    if arguments.samples < 1:
        raise RecipeError(f"--samples {arguments.samples}: give 1 or more.")
    budget = _limits("--budget", arguments.budget, _LIMITS)
    cuts = _limits("--prune-budget", arguments.prune_budget, COUNTED)
    names = arguments.formats or (_CHOSEN if budget else _FORMATS)
    formats = {text: _format(text) for text in names}
    place = Path(arguments.model)
    is_run = place.is_dir() or place.name == "record.json"
    with others_to_stderr(arguments), tempfile.TemporaryDirectory() as folder:
        job = _job(arguments, place, is_run=is_run)
        found = sensitivity_of(job, formats, arguments.samples, _tell)
        found = replace(found, row=arguments.row or 0)
        files = LayerFiles(job, formats, Path(folder))
        if arguments.time or "latency_p50_ms" in budget:
            found = with_times(found, files, _mode(arguments))
        if budget:
            found = _with(found, _formats_choice(found, files, budget, arguments.budget))
        if cuts:
            found = _with(found, _cuts_choice(job, arguments, cuts))
    written = [write_sensitivity(found, run_folder_of(place))] if is_run else []
    if arguments.out is not None:
        written += write_layer_figures(found, Path(arguments.out))
    if arguments.as_json:
        facts = {"command": "sensitivity", "status": "done", "error": None}
        print_json({**facts, **asdict(found), "files": list(map(str, written))})
        return 0
    is_read = sys.stdout is not None and sys.stdout.isatty()
    lines = described(found, shutil.get_terminal_size().columns if is_read else None)
    print("\n".join([*lines, *([""] if written else []), *map(str, written)]))
    return 0


def _mode(arguments: argparse.Namespace) -> Mode:
    return "strict" if arguments.strict else "quick" if arguments.quick else "default"


def _with(found: Sensitivity, choice: Choice) -> Sensitivity:
    return replace(found, choices=(*found.choices, choice))


def _limits(option: str, given: str | None, known: Collection[str]) -> dict[str, float]:
    """The limits of a budget, as in ``artifact_kib=40,latency_p50_ms=2``."""
    found: dict[str, float] = {}
    for term in given.split(",") if given is not None else ():
        name, _, text = (part.strip() for part in term.partition("="))
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if name not in known or name in found or not 0 < value < float("inf"):
            raise RecipeError(
                f"{option} {clipped(str(given))}: {shown(term)} is no limit; give "
                f"{' or '.join(f'{one}=NUMBER' for one in known)}, each once and above 0."
            )
        found[name] = value
    return found


def _formats_choice(
    found: Sensitivity, files: LayerFiles, budget: Mapping[str, float], asked: str
) -> Choice:
    where = f"--budget {clipped(asked)}"
    kib, ms = budget.get("artifact_kib"), budget.get("latency_p50_ms")
    chosen = choose_formats(found, files, where, kib, ms)
    stages = []
    for name in dict.fromkeys(chosen.formats.values()):
        layers = [escape(one) for one, own in chosen.formats.items() if own == name]
        format = files.formats[name]
        stages.append(
            _line(
                {
                    "kind": "quantize",
                    "weights": format.weights,
                    "activations": format.activations,
                    "select": layers,
                }
            )
        )
    time = "" if chosen.seconds is None else f", about {1e3 * chosen.seconds:.3g} ms by the profile"
    said = (
        f"{len(chosen.formats)} of {len(found.layers)} layers are quantized; the file has "
        f"{chosen.file_bytes / 1024:.4g} KiB{time}, and the layers' errors sum to "
        f"{chosen.error:.3g}"
    )
    return Choice(where, tuple(stages), said)


def _cuts_choice(job: Job, arguments: argparse.Namespace, cuts: Mapping[str, float]) -> Choice:
    where = f"--prune-budget {clipped(arguments.prune_budget)}"
    if len(cuts) > 1:
        raise RecipeError(f"{where}: give one of {' and '.join(COUNTED)}.")
    ((what, asked),) = ((one, cuts[one]) for one in COUNTED if one in cuts)
    table = cuts_of(job.candidate, job, arguments.samples, _tell)
    try:
        chosen = choose_cuts(table, job.candidate, job, arguments.samples, what, asked)
    except AlreadySo as error:
        return Choice(where, (), str(error))
    ratios = {escape(layer): ratio for layer, ratio in chosen.ratios.items()}
    said = (
        f"{len(ratios)} of {chosen.groups} groups of layers are cut; {what} are then "
        f"{chosen.cost[what]:,.0f}, the groups' errors sum to {chosen.error:.3g}, and all at once "
        f"make {chosen.joint_error:.3g} before any training"
    )
    return Choice(where, (_line({"kind": "prune", "ratios": ratios}),), said)


def _line(stage: Mapping[str, Any]) -> str:
    """A stage of a recipe on one line of YAML."""
    text = yaml.safe_dump(dict(stage), default_flow_style=True, sort_keys=False, width=1 << 20)
    return f"- {text.strip()}"


def _job(arguments: argparse.Namespace, place: Path, *, is_run: bool) -> Job:
    if is_run:
        of_run = candidate_of_run(place, arguments.row or 0, arguments.imports)
        return of_run.recipe.job(of_run.candidate, of_run.task, workdir=Path())
    if arguments.row is not None:
        raise RecipeError(f"--row {arguments.row}: {place} is a recipe; rows are of a run.")
    recipe = Recipe.load(place, imports=arguments.imports)
    task = recipe.make_task()
    return recipe.job(recipe.make_candidate(task), task, workdir=Path())


def _format(text: str) -> LayerFormat:
    try:
        return format_named(text)
    except ValueError as error:
        raise RecipeError(f"--format {text}: {error}.") from error


def _tell(number: int, count: int, layer: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{number} of {count}: {layer}", end="", file=sys.stderr, flush=True)
        if number == count:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
