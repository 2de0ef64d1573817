"""The command line. Importing it is cheap: each command imports what it needs when it runs.

Exit codes: 0 done; 1 data, a stage or a measurement failed, and the record so far is kept; 2 the
command line or the recipe is wrong; 3 done, but the budget is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys

from compress.cli.arguments import parsed
from compress.cli.finished_runs import (
    add_commands,
    debug_argument,
    out_argument,
    recipe_arguments,
)
from compress.cli.json_output import json_argument, print_failure
from compress.cli.numbers import number, whole
from compress.cli.signals import Interrupted, SignalHandler, signals_raised
from compress.cli.streams import discard, open_closed_streams, printable_streams
from compress.cli.unexpected import exit_code, in_a_sentence
from compress.errors import CompressError, ProcessError, RecipeError, in_words
from compress.quoting import on_one_line

TYPE_CHECKING = False  # typing itself takes a tenth of the time of `--help` to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]

_FAILED = 1
_WRITES: tuple[str, ...] = ("run", "report", "bench", "bundle", "merge", "export", "ship", "new")
_WRITES += ("schema", "compare", "cascade")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could come next
        importlib.import_module("compress.cli.completion").complete(_parser())
    open_closed_streams()
    with printable_streams():
        try:
            with signals_raised() as signals:
                return _printed(lambda: _run_command(parsed(_parser(), argv), signals))
        except KeyboardInterrupt as error:
            return _interrupted(error, "")


def _printed(work: Callable[[], int]) -> int:
    """What ``work`` returns, once all that it printed is out."""
    try:
        code = work()
    except BrokenPipeError:
        discard()
        return _FAILED
    except SystemExit:  # of --help and of the parser, which has printed its message
        _flush(reported=True)
        raise
    return code if _flush(reported=code != 0) else _FAILED


def _flush(*, reported: bool) -> bool:
    """Whether standard output went out; says why not, unless an error was ``reported`` already."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard()
    except OSError as error:
        discard()
        if not reported:
            _print_error(f"standard output could not be written ({error.strerror or error}).")
    else:
        return True
    return False


def _run_command(arguments: argparse.Namespace, signals: SignalHandler) -> int:
    try:
        _import_from_here()
        if arguments.command in _WRITES:
            importlib.import_module("compress.cli.outputs").check_outputs(arguments)
        if "recipe" in arguments:  # a slip in its text is told before seconds of imports
            importlib.import_module("compress.config.recipe_file").parse_file(arguments.recipe)
        return int(importlib.import_module(f"compress.cli.{arguments.command}").run(arguments))
    except KeyboardInterrupt as error:
        return _interrupted(error, arguments.command, arguments)
    except BrokenPipeError:
        raise
    except SystemExit as error:
        if arguments.debug:
            raise
        return _failed(
            arguments, f"code that the recipe names ended the program ({in_words(error)}).", _FAILED
        )
    except CompressError as error:
        if arguments.debug:
            raise
        # Wrong input, and the end of rank 0, are printed by rank 0 alone.
        if not (_is_other_rank() and (error.exit_code == 2 or isinstance(error, ProcessError))):
            _failed(arguments, _placed(error), error.exit_code)
        return error.exit_code
    except Exception as error:
        if arguments.debug:
            raise
        if signals.name is not None:  # what a library has made of it
            return _interrupted(Interrupted(signals.name), arguments.command, arguments)
        return _failed(arguments, in_a_sentence(error), exit_code(error))


def _failed(arguments: argparse.Namespace, message: str, code: int) -> int:
    """Say what went wrong; the exit code."""
    _print_error(message)
    if not _is_other_rank():
        print_failure(arguments, message, code)
    return code


def _import_from_here() -> None:
    """Let a module named with --import lie in the current folder, as it may for `python -m`."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise RecipeError("the current folder is no longer there; change to another.") from None
    if here not in sys.path:
        sys.path.insert(0, here)


def _interrupted(
    error: KeyboardInterrupt, command: str, arguments: argparse.Namespace | None = None
) -> int:
    if not _is_other_rank():
        name = str(error)
        by = f" by {name}" if name not in ("", "SIGINT") else ""
        kept = "; what was finished is kept, and the same command resumes from there"
        message = f"interrupted{by}{kept if command in ('run', '') else ''}."
        _failed(arguments or argparse.Namespace(), message, _FAILED)
    return _FAILED


def _print_error(message: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be closed
        text = on_one_line(message, keep="\t")
        print(f"compresskit: {text}", file=sys.stderr)


def _is_other_rank() -> bool:
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
        description="Distill, quantize and prune a model in any order, and see what each step "
        "bought on the device in hand.",
        epilog="exit codes: 0 done; 1 data, a stage or a measurement failed; 2 wrong command "
        "line or recipe; 3 done, but the budget is missed",
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    parser.set_defaults(command="guide")
    _add_run(commands)
    _add_plan(commands)
    add_commands(commands)
    _add_bench(commands)
    _add_cache(commands)
    schema = commands.add_parser("schema", help="print the JSON Schema of recipes, for editors")
    out_argument(schema, "FILE.json", "write it here instead")
    debug_argument(schema)
    explain = commands.add_parser("explain", help="say what a key of recipes means, or list all")
    explain.add_argument("keys", nargs="*", metavar="KEY", help="such as prune.importance")
    debug_argument(explain)
    _add_new(commands)
    doctor = commands.add_parser(
        "doctor", help="say what this machine can do, with a fix for what it cannot"
    )
    doctor.set_defaults(threads=1, batch=1, runtime=None, provider=None)
    _target_arguments(doctor)
    debug_argument(doctor)
    completion = commands.add_parser(
        "completion", help="print a script that lets a shell complete command lines"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    debug_argument(completion)
    return parser


def _add_new(commands: Commands) -> None:
    new = commands.add_parser(
        "new", help="write a starter recipe, for your own model and data where you give them"
    )
    new.add_argument("path", nargs="?", help="where to (default: recipe.yaml)")
    out_argument(new, "FILE.yaml", "the same")
    new.add_argument(
        "--data",
        metavar="DATA",
        help="a folder of images or of another task, a file .npz or .parquet, or data.py:make_task",
    )
    new.add_argument(
        "--model",
        metavar="MODEL",
        help="net.py:Net, a Hugging Face folder or a built-in net (default: resnet, trained first)",
    )
    new.add_argument("--weights", metavar="FILE", help="of the model: safetensors, or a state dict")
    new.add_argument(
        "--size",
        type=whole,
        metavar="PIXELS",
        help="side of the images that the net takes (default: the one it does best on)",
    )
    debug_argument(new)


def _add_run(commands: Commands) -> None:
    run = commands.add_parser(
        "run", help="run a recipe, measure after every stage, write the report"
    )
    recipe_arguments(run)
    out_argument(run, "DIR", "the run folder (default: runs/NAME)")
    _effort_arguments(
        run,
        "run it with N seeds, from the recipe's own on, and report the spread over them "
        "(default folder: runs/NAME-repeat)",
    )
    run.add_argument(
        "--fresh", action="store_true", help="start over, and use nothing that is kept"
    )
    run.add_argument(
        "--cache",
        metavar="PLACE",
        help="where results of all runs are kept: a folder, an address that fsspec knows, or none "
        "(default: COMPRESSKIT_CACHE, or the user's cache folder)",
    )
    json_argument(run)
    run.add_argument(
        "--track",
        action="append",
        default=[],
        metavar="TRACKER[:PLACE]",
        help="send the run's numbers to mlflow, tensorboard or wandb (extras); may be repeated",
    )


def _add_plan(commands: Commands) -> None:
    plan = commands.add_parser(
        "plan", help="check a recipe and forecast time, memory and disk; runs no stage"
    )
    recipe_arguments(plan)
    _effort_arguments(plan, "forecast a run with N seeds")
    json_argument(plan)


def _effort_arguments(parser: argparse.ArgumentParser, repeat: str) -> None:
    """What changes how long a run takes, and so what is planned."""
    parser.add_argument("--repeat", type=whole, metavar="N", help=repeat)
    parser.add_argument(
        "--quick", action="store_true", help="measure roughly, in a fraction of the time"
    )
    parser.add_argument(
        "--strict", action="store_true", help="measure to 1 %%, however long it takes"
    )


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
    bench.add_argument("--threads", type=whole, default=1, metavar="N", help="default: %(default)s")
    bench.add_argument(
        "--batch", type=whole, default=1, metavar="N", help="for free batch axes (default: 1)"
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
        help="complete inputs of one run, by name (default: drawn at random)",
    )
    bench.add_argument(
        "--runtime",
        metavar="NAME",
        help="onnxruntime (the default), openvino or another that doctor lists, on this machine",
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
        type=number,
        metavar="SECONDS",
        help="run each model back to back for so long, and say whether it slows down",
    )
    bench.add_argument(
        "-o", "--out", "--json", dest="json", metavar="FILE", help="write the result here, too"
    )
    _target_arguments(bench)
    debug_argument(bench)


def _add_cache(commands: Commands) -> None:
    cache = commands.add_parser(
        "cache", help="list, verify or prune the results that runs share (docs/cache.md)"
    )
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("ls", help="what is there, and how much of the limit it takes")
    verify = actions.add_parser("verify", help="read everything, and remove what is damaged")
    verify.add_argument("--keep", action="store_true", help="only say what is damaged")
    prune = actions.add_parser("prune", help="remove what was not used for longest")
    most = prune.add_mutually_exclusive_group()
    most.add_argument("--to", metavar="SIZE", help="such as 5GB or 500 MiB (default: the limit)")
    most.add_argument("--all", action="store_true", help="remove every result")
    for action in (listing, verify, prune):
        action.add_argument(
            "--cache",
            metavar="PLACE",
            help="a folder or an fsspec address (default: COMPRESSKIT_CACHE, else a folder below "
            "~/.cache)",
        )
        debug_argument(action)


def _target_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        default="local",
        metavar="TARGET",
        help="local, ssh:HOST or adb[:SERIAL] (default: %(default)s); HOST may be USER@HOST",
    )
    there = parser.add_argument_group("on another device")
    there.add_argument(
        "--python", metavar="PATH", help="a Python there with numpy and onnxruntime (python3)"
    )
    there.add_argument("--folder", metavar="PATH", help="where models and samples are kept there")
    there.add_argument("--ssh-config", metavar="FILE", help="in place of ~/.ssh/config")


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from compress import __version__

        print(f"compresskit {__version__}")
        parser.exit()
