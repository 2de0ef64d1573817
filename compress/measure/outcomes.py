"""Outcomes: what was found of several models, or why not, as JSON and as blocks of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from compress.measure.profile.facts import Profile
from compress.measure.sustained import Sustained
from compress.measure.target import Failure

__all__ = ["as_json", "blocks"]

Found = TypeVar("Found", Profile, Sustained)


def as_json(found: Sequence[tuple[str, Found | Failure]]) -> str:
    """All of it, by the names of its fields; a failed model has ``name`` and ``error``."""
    models = [
        {"name": name, **asdict(each)} if isinstance(each, Failure) else asdict(each)
        for name, each in found
    ]
    return json.dumps({"schema": 1, "models": models}, indent=1) + "\n"


def blocks(found: Sequence[tuple[str, Found | Failure]], text: Callable[[Found], str]) -> list[str]:
    """A block for each model: the ``text`` of what was found, or why it failed."""
    return [
        f"{name}\n  failed: {each.error}\n" if isinstance(each, Failure) else text(each)
        for name, each in found
    ]
