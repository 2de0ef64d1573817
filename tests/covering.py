"""What covers one list, or two in pairs; all else is for ``pytest -m exhaustive``, now and then."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def kept_of(every: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """All of a list as parameters; those that are not in ``kept`` are marked.

    Raises:
        ValueError: one of ``kept`` is not in the list.
    """
    ones = list(every)
    if strange := [one for one in kept if one not in ones]:
        raise ValueError(f"not in the list: {strange}")
    return [
        pytest.param(one, marks=() if one in kept else (pytest.mark.exhaustive,)) for one in ones
    ]


def covering(first: Iterable[Any], second: Iterable[str], each: int = 3) -> list[Any]:
    """Every pair as a parameter; those beyond ``each`` of one of ``first`` are marked.

    Those that are left go round, so that each of ``second`` comes with as many of ``first``, and
    two neighbors of ``first`` come with others.
    """
    columns, pairs = list(second), []
    for row, one in enumerate(first):
        kept = {(row + len(columns) * turn // each) % len(columns) for turn in range(each)}
        for place, other in enumerate(columns):
            marks = () if place in kept else (pytest.mark.exhaustive,)
            name = getattr(one, "__name__", one)
            pairs.append(pytest.param(one, other, id=f"{name}-{other}", marks=marks))
    return pairs
