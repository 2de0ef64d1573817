"""``compresskit completion``: the script that completes command lines, and what it asks for.

The only file that knows argcomplete, which reads the parser. What an argument may be is told by its
metavar: recipes, run folders, the keys of a recipe behind ``--set``. No torch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter
from argcomplete.shell_integration import shellcode

from compress.config.block_names import block_names
from compress.config.recipe_file import parse_file
from compress.errors import CompressError
from compress.record import RECORD_NAME, Record

__all__ = ["complete", "run"]

_PROGRAM = "compresskit"
_REPEAT_NAME = "repeat.json"


def run(arguments: argparse.Namespace) -> int:
    """Print the script for a shell."""
    print(shellcode([_PROGRAM], use_defaults=True, shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer what a shell asked for and end the process; nothing if no shell did."""
    _add_completers(parser)
    argcomplete.autocomplete(
        parser, always_complete_options=False, default_completer=FilesCompleter()
    )


def _add_completers(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _add_completers(each)
        elif found := _COMPLETERS.get(str(action.metavar)) or _COMPLETERS.get(action.dest):
            action.completer = found  # type: ignore[attr-defined]


# -- what an argument may be ------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """What is there of a command line: the word to complete, and the arguments before it."""

    prefix: str
    arguments: argparse.Namespace


class _Completer:
    """Calls a function of what was asked in the way that argcomplete calls completers."""

    def __init__(self, answer: Callable[[_Asked], Any]) -> None:
        self._answer = answer

    def __call__(
        self,
        prefix: str,
        action: argparse.Action,
        parser: argparse.ArgumentParser,
        parsed_args: argparse.Namespace,
    ) -> Any:
        del action, parser
        return self._answer(_Asked(prefix, parsed_args))


def _runs(asked: _Asked) -> Iterator[str]:
    """Run folders, and folders on the way to them."""
    prefix = asked.prefix
    try:
        folders = sorted(path for path in Path(os.path.dirname(prefix)).iterdir() if path.is_dir())
    except OSError:
        return
    for folder in folders:
        if not folder.name.startswith(".") or os.path.basename(prefix).startswith("."):
            is_run = any((folder / name).exists() for name in (RECORD_NAME, _REPEAT_NAME))
            yield str(folder) if is_run else f"{folder}/"


def _rows(asked: _Asked) -> Mapping[str, str]:
    """The rows of the run that is named, with their stages as descriptions."""
    try:
        return {str(row.index): row.stage for row in Record.load(Path(asked.arguments.run)).rows}
    except (CompressError, OSError, TypeError):
        return {}


def _settings(asked: _Asked) -> list[str]:
    """Every value of the recipe, by the labels of stages: ``stages.prune.ratio=``."""
    try:
        data = parse_file(asked.arguments.recipe).data
    except (CompressError, OSError, TypeError):
        return []
    return [f"{path}=" for path in _paths(data, "")]


def _paths(data: Any, path: str) -> Iterator[str]:
    names = block_names(data) if isinstance(data, list) else None
    if isinstance(data, dict):
        names, data = list(map(str, data)), list(data.values())
    if not names:
        yield path
        return
    for name, part in zip(names, data, strict=True):
        if name != "kind":
            yield from _paths(part, f"{path}.{name}" if path else name)


_COMPLETERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "RECIPE.yaml": FilesCompleter(allowednames=("yaml", "yml")),
        "MODEL.onnx": FilesCompleter(allowednames=("onnx",)),
        "RESULT.json": FilesCompleter(allowednames=("json",)),
        "DIR": DirectoriesCompleter(),
        "FOLDER": DirectoriesCompleter(),
        "RUN": _Completer(_runs),
        "row": _Completer(_rows),
        "PATH=VALUE": _Completer(_settings),
        "TARGET": _Completer(lambda _: ("local", "ssh:", "adb")),
    }
)
