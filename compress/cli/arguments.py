"""Arguments that no command has: what was meant, perhaps."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False  # typing itself takes a tenth of the time of `--help` to import
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["parsed"]


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of one command; ends the program with a sentence where they are wrong."""
    found, left = parser.parse_known_args(argv)
    if left:
        parser.error(
            f"unrecognized arguments: {' '.join(left)}{_hint(parser, found.command, left)}"
        )
    return found


def _hint(parser: argparse.ArgumentParser, command: str, left: Sequence[str]) -> str:
    from difflib import get_close_matches

    known = [
        option
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction) and command in action.choices
        for option in action.choices[command]._option_string_actions
    ]
    near = [get_close_matches(one.partition("=")[0], known, 1) for one in left]
    meant = [found[0] for found in near if found]
    return f"; did you mean {' '.join(meant)}? ({command} --help lists all)" if meant else ""
