"""Pairs that cover two lists; all others are for ``pytest -m exhaustive``, before a release."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


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
