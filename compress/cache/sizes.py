"""Sizes as people write them."""

from __future__ import annotations

import math
import re

from compress.errors import RecipeError
from compress.quoting import shown

__all__ = ["parse_size"]

_SIZE = re.compile(r" *([0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?) *([A-Za-z]{0,3}) *")
_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", start=1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", start=1)}
_MOST = float(1 << 62)


def parse_size(text: str, where: str) -> int:
    """Bytes of ``20GB``, ``500 MiB`` or ``1.5e9``; ``where`` begins the sentence if it is none.

    Raises:
        RecipeError: it is no size.
    """
    found = _SIZE.fullmatch(text)
    scale = _UNITS.get(found[2].lower()) if found else None
    size = float(found[1]) * scale if found and scale else math.inf
    if size > _MOST:
        raise RecipeError(
            f"{where}: {shown(text)} is no size; write one such as 20GB, 500 MiB or 1.5e9, which "
            "is bytes."
        )
    return int(size)
