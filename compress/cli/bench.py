"""``compresskit bench``: measure ONNX files side by side; the first is the baseline."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter

from compress.cli.run import mode_of
from compress.cli.targets import target_of
from compress.errors import RecipeError
from compress.measure import profile_table, sustained_table
from compress.measure.compare import Comparison, compare, short_names, table
from compress.measure.profile import profile
from compress.measure.sustained import LEAST_S, sustain
from compress.measure.target import Failure
from compress.record import write_atomically

if TYPE_CHECKING:
    from compress.measure.target import Target

_FAILED = 1


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 where a file could not be measured.

    Raises:
        RecipeError: ``threads`` or ``batch`` below 1, a target of no known form, or options that do
            not go together.
        StorageError: the result could not be written; it was printed.
    """
    for name in ("threads", "batch"):
        if getattr(arguments, name) < 1:
            raise RecipeError(f"--{name} must be at least 1; got {getattr(arguments, name)}.")
    if arguments.profile and arguments.raw:
        raise RecipeError("--raw keeps the samples of a comparison; with --profile, use --json.")
    work = _profiled if arguments.profile else _compared
    if arguments.sustained is not None:
        _check_sustained(arguments)
        work = _sustained
    target = target_of(arguments)
    models = [Path(model) for model in arguments.models]
    result = work(arguments, models, target)
    print(result.text)
    if arguments.json:
        write_atomically(Path(arguments.json), result.json)
    return _FAILED if result.failed else 0


def _check_sustained(arguments: argparse.Namespace) -> None:
    if not LEAST_S <= arguments.sustained < math.inf:
        raise RecipeError(
            f"--sustained takes at least {LEAST_S:g} seconds; got {arguments.sustained:g}."
        )
    if arguments.profile or arguments.raw or arguments.quick or arguments.strict:
        raise RecipeError(
            "--sustained goes without --profile, --raw, --quick and --strict; all of it is in "
            "--json."
        )


class _Result(NamedTuple):
    text: str
    json: str
    failed: bool


def _compared(arguments: argparse.Namespace, models: list[Path], target: Target) -> _Result:
    raw = Path(arguments.raw) if arguments.raw else None
    rows = compare(models, target, mode_of(arguments), raw=raw)
    facts = TypeAdapter(list[Comparison]).dump_python(rows, mode="json")
    text = json.dumps({"schema": 1, "models": facts}, indent=1) + "\n"
    return _Result(table(rows), text, any(row.error for row in rows))


def _profiled(arguments: argparse.Namespace, models: list[Path], target: Target) -> _Result:
    found = profile(models, target, mode_of(arguments))
    named = list(zip(short_names(models), found, strict=True))
    failed = any(isinstance(each, Failure) for each in found)
    return _Result(profile_table.text(named), profile_table.as_json(named), failed)


def _sustained(arguments: argparse.Namespace, models: list[Path], target: Target) -> _Result:
    found = sustain(models, target, arguments.sustained)
    named = list(zip(short_names(models), found, strict=True))
    failed = any(isinstance(each, Failure) for each in found)
    return _Result(sustained_table.text(named), sustained_table.as_json(named), failed)
