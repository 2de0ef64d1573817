"""``compresskit bench``: measure ONNX files side by side, or a suite of nets."""

from __future__ import annotations

import argparse
import json
import math
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from compress.cli.run import mode_of
from compress.cli.targets import target_of
from compress.errors import DataError, RecipeError
from compress.io.atomic import write_atomically
from compress.io.scratch import scratch
from compress.measure import sustained_table
from compress.measure.arrays import read_arrays
from compress.measure.compare import ComparedModel, compare, session_table, short_names, table
from compress.measure.input_sizes import Given
from compress.measure.outcomes import as_json
from compress.measure.profile import table as profile_table
from compress.measure.profile.profiler import profile
from compress.measure.sustained import LEAST_S, sustain
from compress.measure.target import Failure
from compress.progress import TerminalProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compress.measure.outcomes import Found
    from compress.measure.target import Target

_FAILED = 1
_SIZES = re.compile(r"[0-9]{1,12}(x[0-9]{1,12})*")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 where a file could not be measured.

    Raises:
        RecipeError: ``threads`` or ``batch`` below 1, a target or a suite of no known name, options
            that do not go together, a file of inputs that cannot be read, or sizes and inputs that
            no file has.
        MeasurementError: the target cannot measure anything.
        StorageError: the result could not be written; it was printed.
    """
    _check(arguments)
    target = target_of(arguments)
    result = _work(arguments)(arguments, target)
    print(result.text)
    if arguments.json:
        write_atomically(Path(arguments.json), result.json)
    return _FAILED if result.failed else 0


def _work(arguments: argparse.Namespace) -> Callable[[argparse.Namespace, Target], _BenchResult]:
    if arguments.suite:
        return _suite
    if arguments.sustained is not None:
        return _sustained
    return _profiled if arguments.profile else _compared


def _check(arguments: argparse.Namespace) -> None:
    for name in ("threads", "batch"):
        if getattr(arguments, name) < 1:
            raise RecipeError(f"--{name} must be at least 1; got {getattr(arguments, name)}.")
    if bool(arguments.models) == bool(arguments.suite):
        given = "both" if arguments.suite else "neither"
        raise RecipeError(f"bench takes ONNX files or --suite NAME; got {given}.")
    for name, of in (("keep", "files"), ("weights", "nets")):
        if getattr(arguments, name) and not arguments.suite:
            raise RecipeError(f"--{name} is for the {of} of a suite; add --suite NAME.")
    for name in ("profile", "sustained", "shape", "inputs"):
        if arguments.suite and getattr(arguments, name):
            raise RecipeError(
                f"--{name} is for ONNX files; --keep those of the suite and name them."
            )
    if arguments.profile and arguments.raw:
        raise RecipeError("--raw keeps the samples of a comparison; with --profile, use --json.")
    if arguments.sustained is not None:
        _check_sustained(arguments)


def _given(arguments: argparse.Namespace) -> Given:
    shapes = dict(_shape(text) for text in arguments.shape)
    try:
        values = read_arrays(Path(arguments.inputs)) if arguments.inputs else {}
    except DataError as error:
        raise RecipeError(f"--inputs {error}") from error
    if twice := sorted(shapes.keys() & values.keys()):
        raise RecipeError(
            f"--shape {twice[0]} and --inputs {arguments.inputs} both have the input {twice[0]!r}; "
            "leave one out."
        )
    return Given(shapes, values)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """A name, which may have anything in it, and sizes."""
    name, _, sizes = text.rpartition("=")
    if not name or not _SIZES.fullmatch(sizes):
        raise RecipeError(f"--shape takes NAME=SIZES, as in --shape input=1x512; got {text!r}.")
    return name, tuple(map(int, sizes.split("x")))


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


class _BenchResult(NamedTuple):
    text: str
    json: str
    failed: bool


def _compared(arguments: argparse.Namespace, target: Target) -> _BenchResult:
    models = [Path(model) for model in arguments.models]
    rows = compare(models, target, mode_of(arguments), given=_given(arguments), raw=_raw(arguments))
    return _result(table(rows), rows, {})


def _suite(arguments: argparse.Namespace, target: Target) -> _BenchResult:
    from compress.suite import measure_suite, suite_of  # builds nets, which takes torch

    suite, mode = suite_of(arguments.suite), mode_of(arguments)
    environment = target.environment()  # first: without the device there is no need to build
    place: AbstractContextManager[str] = (
        nullcontext(arguments.keep) if arguments.keep else scratch()
    )
    with place as folder, TerminalProgress() as progress:
        results = measure_suite(
            suite.nets,
            target,
            mode,
            folder=Path(folder),
            weights=Path(arguments.weights) if arguments.weights else None,
            raw=_raw(arguments),
            callback=progress,
        )
    rows = [row for result in results for row in result.rows]
    nets = [
        {
            **asdict(result.net),
            "parameters": result.parameters,
            "weights": result.weights,
            "macs": result.macs,
            "int8_mac_fraction": result.int8_mac_fraction,
        }
        for result in results
    ]
    facts = {
        "suite": suite.name,
        "about": suite.about,
        "mode": mode,
        "environment": environment,
        "nets": nets,
    }
    text = session_table({result.net.name: result.rows for result in results})
    return _result(f"{text}\n{suite.about}", rows, facts)


def _raw(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.raw) if arguments.raw else None


def _result(text: str, rows: list[ComparedModel], facts: dict[str, Any]) -> _BenchResult:
    models = TypeAdapter(list[ComparedModel]).dump_python(rows, mode="json")
    content = json.dumps({"schema": 1, **facts, "models": models}, indent=1) + "\n"
    return _BenchResult(text, content, any(row.error for row in rows))


def _profiled(arguments: argparse.Namespace, target: Target) -> _BenchResult:
    models = [Path(model) for model in arguments.models]
    found = profile(models, target, mode_of(arguments), given=_given(arguments))
    return _as_result(models, found, profile_table.text)


def _sustained(arguments: argparse.Namespace, target: Target) -> _BenchResult:
    models = [Path(model) for model in arguments.models]
    found = sustain(models, target, arguments.sustained, given=_given(arguments))
    return _as_result(models, found, sustained_table.text)


def _as_result(
    models: list[Path],
    found: Sequence[Found | Failure],
    text: Callable[[Sequence[tuple[str, Found | Failure]]], str],
) -> _BenchResult:
    named = list(zip(short_names(models), found, strict=True))
    failed = any(isinstance(each, Failure) for each in found)
    return _BenchResult(text(named), as_json(named), failed)
