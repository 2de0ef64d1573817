"""Arguments that no command has: what was meant, perhaps."""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False  # typing itself takes a tenth of the time of `--help` to import
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["parsed"]


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of one command; ends the program with a sentence where they are wrong."""
    _check_command(parser, sys.argv[1:] if argv is None else argv)
    found, left = parser.parse_known_args(argv)
    if left:
        parser.error(
            f"unrecognized arguments: {' '.join(left)}{_hint(parser, found.command, left)}"
        )
    return found


def _check_command(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Name the command that was meant by one that is like it."""
    from difflib import get_close_matches

    given = next((one for one in argv if not one.startswith("-")), "")
    known = [name for commands in _subparsers(parser) for name in commands]
    near = [] if given in known else get_close_matches(given, known, 1)
    if near:
        parser.error(f"there is no command {given!r}; did you mean {near[0]}?")


def _subparsers(parser: argparse.ArgumentParser) -> list[dict[str, argparse.ArgumentParser]]:
    actions = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return [action.choices for action in actions]


def _hint(parser: argparse.ArgumentParser, command: str, left: Sequence[str]) -> str:
    from difflib import get_close_matches

    known = [
        option
        for commands in _subparsers(parser)
        if command in commands
        for option in commands[command]._option_string_actions
    ]
    near = [get_close_matches(one.partition("=")[0], known, 1) for one in left]
    meant = [found[0] for found in near if found]
    return f"; did you mean {' '.join(meant)}? ({command} --help lists all)" if meant else ""
