"""Trials, a JSON line for each as it is done, so that a script resumes where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["add", "each", "known"]

Trial = dict[str, Any]


def known(kept: Path) -> list[Trial]:
    """The trials in the file ``kept``; none without a file."""
    return [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []


def add(kept: Path, trial: Mapping[str, Any]) -> None:
    """One more trial for the file."""
    with kept.open("a") as stream:
        stream.write(json.dumps(trial) + "\n")


def each(
    plan: Iterable[Trial], do: Callable[[Trial], Mapping[str, Any]], kept: Path
) -> Iterator[Trial]:
    """All trials of ``plan``: what tells each from others, with what ``do`` finds beside it.

    Those in the file ``kept`` are not done again.
    """
    done = known(kept)
    for trial in plan:
        found = next((old for old in done if trial.items() <= old.items()), None)
        if found is None:
            found = {**trial, **do(trial)}
            add(kept, found)
        yield found
