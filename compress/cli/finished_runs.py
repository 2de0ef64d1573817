"""The command lines of what is done before and after runs, such as pairs, export and ship."""

from __future__ import annotations

import argparse

from compress.cli.json_output import json_argument
from compress.cli.numbers import whole

TYPE_CHECKING = False  # see the package: starting up is to be cheap
if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = [
    "add_commands",
    "debug_argument",
    "import_argument",
    "out_argument",
    "recipe_arguments",
]


_FRAMES = 300  # of a video: ten seconds


def add_commands(commands: Commands) -> None:
    """Add the commands, in the order of help."""
    _add_report(commands)
    _add_bundle(commands)
    _add_merge(commands)
    _add_export(commands)
    _add_ship(commands)
    _add_compare(commands)
    _add_cascade(commands)
    _add_sensitivity(commands)
    _add_pairs(commands)
    _add_demo(commands)


def _add_report(commands: Commands) -> None:
    report = commands.add_parser(
        "report", help="rebuild the report of a run, or compare several side by side"
    )
    report.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, or folders of `run --repeat`"
    )
    out_argument(
        report, "DIR", "where a report of several runs, or under --budget, goes (default: overlay)"
    )
    report.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="LIMITS",
        help="name the winner under this budget too, as in accuracy_drop=0.01,artifact_kib=50; "
        "may be repeated",
    )
    json_argument(report)
    debug_argument(report)


def _add_bundle(commands: Commands) -> None:
    bundle = commands.add_parser(
        "bundle", help="put everything that a device needs to measure a run into one file"
    )
    bundle.add_argument("run", metavar="RUN", help="the run folder")
    out_argument(bundle, "FILE", "default: NAME.zip, after the recipe")
    bundle.add_argument("--target", metavar="NAME", help="whose models (default: the first one)")
    bundle.add_argument(
        "--samples", type=whole, metavar="N", help="test samples (default: 2000, or 64 MiB of them)"
    )
    import_argument(bundle)
    debug_argument(bundle)


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
    debug_argument(merge)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="write a row of a run in another form, with open batch and length"
    )
    export.add_argument("run", metavar="RUN", help="the run folder")
    export.add_argument(
        "--row", type=whole, required=True, metavar="N", help="its number in the table, from 0"
    )
    export.add_argument(
        "--format",
        default="hf",
        metavar="FORMAT",
        help="hf (the default): a folder that optimum.onnxruntime opens",
    )
    export.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where to")
    import_argument(export)
    debug_argument(export)


def _add_sensitivity(commands: Commands) -> None:
    sensitivity = commands.add_parser(
        "sensitivity", help="say which layer hurts, quantized by itself or cut by a tenth"
    )
    sensitivity.add_argument(
        "model", metavar="RECIPE|RUN", help="the model that comes in, or that of a row of a run"
    )
    sensitivity.add_argument(
        "--row", type=whole, metavar="N", help="of a run, its number in the table (default: 0)"
    )
    sensitivity.add_argument(
        "--samples",
        type=whole,
        default=256,
        metavar="N",
        help="of the validation split (default: 256)",
    )
    sensitivity.add_argument(
        "--format",
        action="append",
        dest="formats",
        metavar="WEIGHTS/ACTIVATIONS",
        help="such as int8/int8, the first default; may be repeated",
    )
    sensitivity.add_argument(
        "--time",
        action="store_true",
        help="add what each layer wins in ms on the first target, by the runtime's profile",
    )
    mode = sensitivity.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="with --time: 3 processes a file, not 5")
    mode.add_argument("--strict", action="store_true", help="with --time: 10 processes a file")
    sensitivity.add_argument(
        "--budget",
        metavar="LIMITS",
        help="choose a format for each layer so that the outputs move least, as in "
        "artifact_kib=40,latency_p50_ms=2",
    )
    sensitivity.add_argument(
        "--prune-budget",
        metavar="LIMIT",
        help="choose a ratio for each layer likewise, as in macs=0.5 or parameters=20000",
    )
    out_argument(sensitivity, "DIR", "draw the layers as pictures there")
    import_argument(sensitivity)
    json_argument(sensitivity)
    debug_argument(sensitivity)


def _add_ship(commands: Commands) -> None:
    ship = commands.add_parser(
        "ship", help="write a row of a run as a folder that runs with onnxruntime alone"
    )
    ship.add_argument("run", metavar="RUN", help="the run folder")
    ship.add_argument(
        "--row", type=whole, metavar="N", help="its number in the table (default: the advised row)"
    )
    ship.add_argument("--target", metavar="NAME", help="of the record (default: its first)")
    out_argument(ship, "DIR", "where to (default: RUN/ship)")
    ship.add_argument(
        "--batch",
        metavar="N|any",
        help="samples of one inference, lowered again where it is another than was measured",
    )
    ship.add_argument(
        "--samples",
        metavar="N|all",
        help="how many test samples go with it (default: about 1 MiB of them)",
    )
    import_argument(ship)
    debug_argument(ship)


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser(
        "compare", help="say what changed for the deployed model between two runs"
    )
    compare.add_argument("old", metavar="OLD", help="the run folder of what is deployed")
    compare.add_argument("new", metavar="NEW", help="that of what would be")
    compare.add_argument(
        "--row",
        type=whole,
        action="append",
        default=[],
        dest="rows",
        metavar="N",
        help="its number in the table, of both runs, or given twice, of OLD and of NEW (default: "
        "the row that each advises)",
    )
    compare.add_argument("--target", metavar="NAME", help="of the records (default: their first)")
    compare.add_argument(
        "--time", action="store_true", help="time both files in turns, on the new run's target"
    )
    compare.add_argument(
        "--quick", action="store_true", help="with --time: roughly, in a fraction of the time"
    )
    out_argument(compare, "FILE.md", "write it as Markdown, too")
    import_argument(compare)
    json_argument(compare)
    debug_argument(compare)


def _add_cascade(commands: Commands) -> None:
    cascade = commands.add_parser(
        "cascade",
        help="have a row answer, and send what it is not sure of to a larger one, or its teacher",
    )
    cascade.add_argument("run", metavar="RUN", help="the run folder")
    cascade.add_argument(
        "--row",
        type=whole,
        metavar="N",
        help="that answers first (default: the quickest; of a run that makes images, the advised)",
    )
    cascade.add_argument(
        "--larger", type=whole, metavar="N", help="what is sent back to it (default: the baseline)"
    )
    cascade.add_argument("--target", metavar="NAME", help="of the record (default: its first)")
    cascade.add_argument(
        "--score",
        action="append",
        dest="scores",
        choices=("probability", "margin", "energy", "mahalanobis", "neighbors"),
        help="how sure the row is: probability (the default), margin, energy, or a distance of "
        "features, mahalanobis or neighbors; may be repeated, and the first decides",
    )
    cascade.add_argument(
        "--share", metavar="SHARE", help="at most so many go back, as in 5%% (default: 10%%)"
    )
    cascade.add_argument(
        "--drop", metavar="DROP", help="or as few as keep the larger row's accuracy less 0.2pt"
    )
    cascade.add_argument(
        "--accuracy", metavar="ACCURACY", help="or as few as reach an accuracy, as in 93%%"
    )
    cascade.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="SAMPLES",
        help="foreign samples, as files and folders that `task.serving` takes, or a task's test "
        "split by its name; of a run that makes images, pictures; may be repeated",
    )
    mode = cascade.add_mutually_exclusive_group()
    mode.add_argument(
        "--quick", action="store_true", help="time roughly, in a fraction of the time"
    )
    mode.add_argument("--strict", action="store_true", help="time to 1 %%, however long it takes")
    out_argument(cascade, "DIR", "where it goes (default: RUN/cascade)")
    import_argument(cascade)
    json_argument(cascade)
    debug_argument(cascade)


def _add_pairs(commands: Commands) -> None:
    pairs = commands.add_parser(
        "pairs", help="have the teacher of an image-to-image recipe make its images, and keep them"
    )
    recipe_arguments(pairs)


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="run an image filter of a run on pictures or a video, or say how it follows its "
        "controls",
    )
    demo.add_argument("run", metavar="RUN", help="the run folder")
    demo.add_argument(
        "images",
        nargs="?",
        metavar="IMAGE|FOLDER|VIDEO",
        help="pictures, or a video (default: a table of how the net follows its controls on the "
        "test split)",
    )
    demo.add_argument(
        "--frames",
        type=whole,
        default=_FRAMES,
        metavar="N",
        help="of a video, from its first (default: %(default)s)",
    )
    demo.add_argument(
        "--row", type=whole, metavar="N", help="its number in the table (default: the advised row)"
    )
    demo.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        dest="controls",
        help="of a net with controls (default: the highest value); may be repeated",
    )
    demo.add_argument(
        "--teacher", action="store_true", help="have the slow teacher make its images beside them"
    )
    demo.add_argument(
        "--moving",
        action="store_true",
        help="say how steady the net is where a picture moves by a pixel at a time",
    )
    out_argument(demo, "DIR", "where images go (default: RUN/demo)")
    import_argument(demo)
    debug_argument(demo)


def out_argument(parser: argparse.ArgumentParser, metavar: str, words: str) -> None:
    """Add where a command writes to: the same two names everywhere."""
    parser.add_argument("-o", "--out", metavar=metavar, help=words)


def import_argument(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes that reads a recipe."""
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        metavar="MODULE",
        dest="imports",
        help="allow the recipe to refer to code in this module; may be repeated",
    )


def debug_argument(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes."""
    # Also after the command, where people type it; the default must not undo the one before it.
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes whose first argument is a recipe."""
    parser.add_argument("recipe", metavar="RECIPE.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="settings",
        help="change a value, as in stages.prune.ratio=0.4 or stages.1.epochs=3; may be repeated",
    )
    import_argument(parser)
    debug_argument(parser)
