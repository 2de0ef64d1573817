"""The command line. Importing it is cheap: each command imports what it needs when it runs.

Exit codes: 0 done; 1 a stage or a measurement failed, and the record so far is kept; 2 the command
line or the recipe is wrong; 3 done, but the budget is missed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from compress.errors import CompressError, ProcessError

TYPE_CHECKING = False  # typing itself takes a tenth of the time of `--help` to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]

_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    command = importlib.import_module(f"compress.cli.{arguments.command}")
    # A module named with --import may lie in the current folder, as it may for `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return int(command.run(arguments))
    except KeyboardInterrupt:
        if not _is_follower():
            _complain(
                "interrupted; what was finished is kept, and the same command goes on from there."
            )
        return _FAILED
    except CompressError as error:
        if arguments.debug:
            raise
        # Wrong input, and the end of the first process, are not said once more by every other.
        if not (_is_follower() and (error.exit_code == 2 or isinstance(error, ProcessError))):
            _complain(_placed(error))
        return error.exit_code
    except BrokenPipeError:
        return _FAILED
    except Exception as error:
        if arguments.debug:
            raise
        _complain(
            f"unexpected {type(error).__name__}: {error} (this should not happen; --debug shows "
            "where it did)."
        )
        return _FAILED


def _complain(message: str) -> None:
    print(f"compresskit: {message}", file=sys.stderr)


def _is_follower() -> bool:
    from compress.environment import process_index

    return process_index() > 0


def _placed(error: CompressError) -> str:
    if error.index is None:
        return str(error)
    place = error.label if error.index < 0 else f"stages[{error.index}] ({error.label})"
    return f"{place}: {error}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="compresskit",
        description="Distil, quantise and prune a model in any order, and see what each step "
        "bought on the device in hand.",
        epilog="exit codes: 0 done; 1 a stage or measurement failed; 2 wrong command line or "
        "recipe; 3 done, but the budget is missed",
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_plan(commands)
    _add_report(commands)
    _add_bench(commands)
    _add_bundle(commands)
    _add_merge(commands)
    schema = commands.add_parser("schema", help="print the JSON Schema of recipes, for editors")
    _common(schema)
    new = commands.add_parser("new", help="write a commented starter recipe")
    new.add_argument(
        "path", nargs="?", default="recipe.yaml", help="where to (default: %(default)s)"
    )
    _common(new)
    doctor = commands.add_parser(
        "doctor", help="say what this machine can do, with a fix for what it cannot"
    )
    doctor.set_defaults(threads=1, batch=1, runtime=None, provider=None)
    _target_arguments(doctor)
    _common(doctor)
    return parser


def _add_run(commands: Commands) -> None:
    run = commands.add_parser(
        "run", help="run a recipe, measure after every stage, write the report"
    )
    _recipe_arguments(run)
    run.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME)")
    run.add_argument(
        "--repeat",
        type=int,
        metavar="N",
        help="run it with N seeds, from the recipe's own on, and report the spread over them "
        "(default folder: runs/NAME-repeat)",
    )
    run.add_argument("--fresh", action="store_true", help="start over instead of going on")
    run.add_argument(
        "--quick", action="store_true", help="measure roughly, in a fraction of the time"
    )
    run.add_argument("--strict", action="store_true", help="measure to 1 %%, however long it takes")
    run.add_argument(
        "--track",
        action="append",
        default=[],
        metavar="TRACKER[:PLACE]",
        help="tell mlflow, tensorboard or wandb (each an extra) of the run; may be repeated",
    )


def _add_plan(commands: Commands) -> None:
    plan = commands.add_parser(
        "plan", help="check a recipe and forecast time, memory and disk; runs no stage"
    )
    _recipe_arguments(plan)


def _add_report(commands: Commands) -> None:
    report = commands.add_parser("report", help="rebuild the report of a run, or overlay several")
    report.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, or folders of `run --repeat`"
    )
    report.add_argument("--out", metavar="DIR", help="where an overlay goes (default: overlay)")
    _common(report)


def _add_bench(commands: Commands) -> None:
    bench = commands.add_parser(
        "bench", help="measure ONNX files side by side; the first is the baseline"
    )
    bench.add_argument("models", nargs="*", metavar="MODEL.onnx")
    bench.add_argument(
        "--suite",
        metavar="NAME",
        help="in place of files, build and measure a fixed set of nets: tiny or mobile",
    )
    bench.add_argument("--keep", metavar="FOLDER", help="keep the files of the suite here")
    bench.add_argument(
        "--weights", metavar="FOLDER", help="has NET.safetensors for nets of the suite to load"
    )
    bench.add_argument("--threads", type=int, default=1, metavar="N", help="default: %(default)s")
    bench.add_argument(
        "--batch", type=int, default=1, metavar="N", help="for free batch axes (default: 1)"
    )
    bench.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=SIZES",
        help="sizes of an input that a file leaves open, as in input=1x512, or of such an axis, as "
        "in length=512; may be repeated (default: another file's, or guessed)",
    )
    bench.add_argument(
        "--inputs",
        metavar="FILE.npz",
        help="inputs by their name, whole as one run takes them (default: drawn at random)",
    )
    bench.add_argument(
        "--runtime", metavar="NAME", help="onnxruntime (the default) or openvino, on this machine"
    )
    bench.add_argument(
        "--provider", metavar="NAME", help="of onnxruntime: cpu (the default), cuda, xnnpack, ..."
    )
    bench.add_argument("--quick", action="store_true", help="roughly, in a fraction of the time")
    bench.add_argument("--strict", action="store_true", help="to 1 %%, however long it takes")
    bench.add_argument("--raw", metavar="FILE.jsonl", help="keep the raw samples here")
    bench.add_argument(
        "--profile",
        action="store_true",
        help="say where the time goes: by module and operator, float islands, what could be done",
    )
    bench.add_argument(
        "--sustained",
        type=float,
        metavar="SECONDS",
        help="run each model back to back for so long, and say whether it slows down",
    )
    bench.add_argument("--json", metavar="FILE", help="write the result here, too")
    _target_arguments(bench)
    _common(bench)


def _add_bundle(commands: Commands) -> None:
    bundle = commands.add_parser(
        "bundle", help="put everything that a device needs to measure a run into one file"
    )
    bundle.add_argument("run", metavar="RUN", help="the run folder")
    bundle.add_argument("-o", "--out", metavar="FILE", help="default: NAME.zip, after the recipe")
    bundle.add_argument("--target", metavar="NAME", help="whose models (default: the first one)")
    bundle.add_argument(
        "--samples", type=int, metavar="N", help="test samples (default: 2000, or 64 MiB of them)"
    )
    bundle.add_argument(
        "--import",
        action="append",
        default=[],
        metavar="MODULE",
        dest="imports",
        help="allow the recipe to refer to code in this module; may be repeated",
    )
    _common(bundle)


def _add_merge(commands: Commands) -> None:
    merge = commands.add_parser(
        "merge", help="take what a device measured into a run's record and report"
    )
    merge.add_argument("run", metavar="RUN", help="the run folder")
    merge.add_argument("results", nargs="+", metavar="RESULT.json")
    merge.add_argument("--name", metavar="NAME", help="of the target (default: the board or CPU)")
    merge.add_argument(
        "--replace", action="store_true", help="replace a target that has the name already"
    )
    _common(merge)


def _target_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        default="local",
        metavar="TARGET",
        help="local (the default), ssh:HOST, ssh:USER@HOST, adb or adb:SERIAL",
    )
    there = parser.add_argument_group("on another device")
    there.add_argument(
        "--python", metavar="PATH", help="a Python there with numpy and onnxruntime (python3)"
    )
    there.add_argument("--folder", metavar="PATH", help="where models and samples are kept there")
    there.add_argument("--ssh-config", metavar="FILE", help="in place of ~/.ssh/config")


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="settings",
        help="change a value, as in stages.1.epochs=3; may be repeated",
    )
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        metavar="MODULE",
        dest="imports",
        help="allow the recipe to refer to code in this module; may be repeated",
    )
    _common(parser)


def _common(parser: argparse.ArgumentParser) -> None:
    # Also after the command, where people type it; the default must not undo the one before it.
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from compress import __version__

        print(f"compresskit {__version__}")
        parser.exit()
