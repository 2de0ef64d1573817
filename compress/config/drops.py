"""How much a metric may lose, as recipes write it: ``0.01``, ``1%`` or ``1pt``. No torch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator

from compress.config.fields import LARGEST_FACTOR, Number
from compress.quoting import shown

__all__ = ["Drop", "Points"]


class Points(float):
    """A share that was given in points: 0.01 where ``1%`` or ``1pt`` was written."""


_POINTS = re.compile(r"([0-9]{1,9}(?:\.[0-9]*)?|\.[0-9]+)\s*(?:%|pt)")
_PLAIN_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


def _drop(given: object, number: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(given, str):
        return number(given)
    found = _POINTS.fullmatch(given.strip())
    if found and float(found[1]) <= 100:
        return Points(float(found[1]) / 100)
    if not _PLAIN_NUMBER.fullmatch(given.strip()):
        raise ValueError(
            f"{shown(given)} is neither a number nor points of accuracy, up to 100; "
            "write 0.01, 1% or 1pt"
        )
    return number(float(given))


#: A share of a rate, points of it, or a number in the unit of another metric.
Drop = Annotated[
    Number,
    Field(ge=0, le=LARGEST_FACTOR),
    WrapValidator(_drop),
    WithJsonSchema(
        {
            "anyOf": [
                {"minimum": 0, "type": "number"},
                {"pattern": r"^[\d.]+ *(%|pt)$", "type": "string"},
            ]
        }
    ),
]
