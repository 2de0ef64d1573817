"""What pydantic found wrong with plain data, as clauses for sentences."""

from __future__ import annotations

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from compress.quoting import shown

__all__ = ["clause", "clauses", "first_clause"]

_PERCENT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{0,6})?) ?%")


def clauses(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """What pydantic found wrong: where, and a clause."""
    return [(one["loc"], _clause(one)) for one in error.errors()]


def first_clause(error: ValidationError) -> str:
    """The first thing that is wrong in a file, after where it is: ``a.b: should be a number``."""
    place, text = clauses(error)[0]
    where = ".".join(map(str, place))
    return f"{where}: {text}" if where else text


def _clause(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        last = error["loc"][-1]
        return f"the key {last!r} is missing" if isinstance(last, str) else "a value is missing"
    return clause(error)


def _as_share(error: ErrorDetails) -> str:
    """What a percentage is as a number, where one was written."""
    given = error["input"]
    found = _PERCENT.fullmatch(given.strip()) if isinstance(given, str) else None
    return f"; write {float(found[1]) / 100:g}" if found and error["type"] == "float_type" else ""


def clause(error: ErrorDetails) -> str:
    """What pydantic says of one value, with the value: ``should be greater than 0; got -1``."""
    text = error["msg"].removeprefix("Value error, ").rstrip(".")
    text = text.replace("Input is not a valid path for <class 'pathlib.Path'>", "should be a path")
    # "Tuple should have at least 1 item after validation, not 0": the type is Python's, not YAML's.
    text = re.sub(r"^\w+ (?=should )", "", re.sub(r" after validation, not \d+$", "", text))
    if text.startswith("should") and "; got " not in text:
        text = f"{text}; got {shown(error['input'])}{_as_share(error)}"
    return " ".join(text.split())
