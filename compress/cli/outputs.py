"""What a command is about to write, looked at before it does anything else."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from compress.cli.new import recipe_path
from compress.environment import process_index
from compress.errors import RecipeError, RecordError
from compress.io.atomic import is_stream, sweep_beside
from compress.io.files import named
from compress.io.scratch import sweep_scratch
from compress.layer_facts import LAYERS_NAME
from compress.measure import program
from compress.overwriting import (
    BUNDLE,
    CHANGES,
    PROGRAM,
    RAW,
    REPEAT_NAME,
    RESULT,
    SCHEMA,
    FileKind,
    check_cascade_folder,
    check_hub_folder,
    check_layers,
    check_models,
    check_output,
    check_report,
    check_run_folder,
)
from compress.record import RECORD_NAME, Record
from compress.ship_folder import SHIP, check_ship_folder

__all__ = ["check_outputs", "check_run", "run_folder_of", "single_run"]


def check_outputs(arguments: argparse.Namespace) -> None:
    """See that nothing that this tool did not write is in the way of the command's outputs.

    Links that an output is reached by are followed: ``arguments`` names what they lead to then.

    Raises:
        RecipeError: a file is there that would be replaced.
        RecordError: a folder for a run holds something that is none.
    """
    sweep_scratch()
    check = _CHECKS.get(arguments.command)
    if check is not None and process_index() == 0:  # only rank 0 writes
        check(arguments)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:  # without it the name comes from the recipe; see `run`
        check_run(Path(arguments.out))


def check_run(folder: Path) -> None:
    """See that a run may be kept in ``folder``, and its report beside it.

    Raises:
        RecordError: it holds something that is no run.
        RecipeError: a file of a report's name is there that this tool did not write.
    """
    check_run_folder(folder)
    check_report(folder)
    check_ship_folder(folder / SHIP)


def _report(arguments: argparse.Namespace) -> None:
    runs = [Path(given) for given in arguments.runs]
    if arguments.out is not None or len(runs) > 1:
        check_report(Path(arguments.out or "overlay"), of_several=len(runs) > 1)
    elif arguments.budget:
        check_report(Path("overlay"), of_several=True)
    else:
        check_report(run_folder_of(runs[0]))


def run_folder_of(given: Path) -> Path:
    """The run folder that a command line names, by itself or by its record."""
    return given if os.path.isdir(given) else given.parent


def single_run(given: Path) -> Record:
    """The record of one run, and not of one over seeds.

    Raises:
        RecordError: there is none, or it is one over seeds.
    """
    folder = run_folder_of(given)
    if (folder / REPEAT_NAME).exists() and not (folder / RECORD_NAME).exists():
        raise RecordError(
            f"{named(folder)}: this is a run over seeds, and a row is of one; give one of its "
            f"folders, such as {named(folder / 'seed-0')}."
        )
    return Record.load(given)


def _compare(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        arguments.out = str(_checked(arguments.out, CHANGES, "--out"))


def _cascade(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        check_cascade_folder(Path(arguments.out), "--out")
    else:
        check_cascade_folder(run_folder_of(Path(arguments.run)) / "cascade", "")


def _bench(arguments: argparse.Namespace) -> None:
    inputs = [Path(model) for model in arguments.models]
    inputs += [Path(given) for given in (arguments.inputs,) if given]
    if arguments.json is not None:
        arguments.json = str(_checked(arguments.json, RESULT, "--json", inputs))
    if arguments.raw is not None:
        arguments.raw = str(_checked(arguments.raw, RAW, "--raw", inputs))
    if arguments.keep is not None and arguments.suite:
        _check_keep(arguments)


def _checked(given: str, kind: FileKind, option: str, inputs: Iterable[Path] = ()) -> Path:
    path = check_output(Path(given), kind, option, inputs)
    sweep_beside(path)
    return path


def _check_keep(arguments: argparse.Namespace) -> None:
    from compress.suite import suite_of
    from compress.suite.nets import FORMATS

    nets = suite_of(arguments.suite).nets
    names = [f"{net.name}-{format}.onnx" for net in nets for format in FORMATS]
    check_models(Path(arguments.keep), names, "--keep")


def _bundle(arguments: argparse.Namespace) -> None:
    if arguments.out is None:
        with suppress(RecordError):  # which the command itself raises
            arguments.out = f"{Record.load(Path(arguments.run)).name}.zip"
    if arguments.out is not None:
        if is_stream(Path(arguments.out)):
            raise RecipeError(
                f"--out {arguments.out}: a bundle and its program are two files; give a name that "
                "ends in .zip."
            )
        out = _checked(arguments.out, BUNDLE, "--out")
        _checked(str(out.with_name(program.PROGRAM)), PROGRAM, "--out")
        arguments.out = str(out)


def _merge(arguments: argparse.Namespace) -> None:
    folder = run_folder_of(Path(arguments.run))
    if os.path.exists(folder / RECORD_NAME):
        check_report(folder, "RUN")


def _export(arguments: argparse.Namespace) -> None:
    check_hub_folder(Path(arguments.out), "--out")


def _sensitivity(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        check_layers(Path(arguments.out))
    given = Path(arguments.model)
    if given.is_dir() or given.name == RECORD_NAME:
        folder = run_folder_of(given)
        if (folder / LAYERS_NAME).exists():
            check_layers(folder, "RUN")


def _ship(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        check_ship_folder(Path(arguments.out), "--out")
    elif os.path.exists(run_folder_of(Path(arguments.run)) / RECORD_NAME):
        check_ship_folder(run_folder_of(Path(arguments.run)) / SHIP)


def _schema(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        arguments.out = str(_checked(arguments.out, SCHEMA, "--out"))


def _new(arguments: argparse.Namespace) -> None:
    path = recipe_path(arguments)
    if path.suffix and path.suffix.lower() not in (".yaml", ".yml"):
        raise RecipeError(
            f"{path}: a recipe is no {path.suffix} file; give a name that ends in .yaml."
        )


_CHECKS = {
    "run": _run,
    "report": _report,
    "bench": _bench,
    "bundle": _bundle,
    "merge": _merge,
    "export": _export,
    "ship": _ship,
    "compare": _compare,
    "cascade": _cascade,
    "new": _new,
    "sensitivity": _sensitivity,
    "schema": _schema,
}
