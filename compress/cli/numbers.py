"""Numbers on the command line: in the digits 0 to 9, for ``type=`` of argparse."""

from __future__ import annotations

import argparse
import re

__all__ = ["number", "whole"]

_MOST_SHOWN = 40


def whole(text: str) -> int:
    """A whole number of at most 18 digits.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    # Python also takes digits of other alphabets, underscores and spaces.
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"give a whole number in digits; got {_shown(text)}")
    return int(text)


def number(text: str) -> float:
    """A number, as in 2.5 or 1e3; whether it may be ``inf`` or ``nan`` is for the command to say.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"[-+.0-9a-zA-Z]{1,40}", text):
        raise argparse.ArgumentTypeError(f"give a number such as 2.5; got {_shown(text)}")
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give a number such as 2.5; got {_shown(text)}") from None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
