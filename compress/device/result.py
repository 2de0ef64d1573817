"""Result: what a device sends back, read as what it is: a stranger's file.

Bounded in size, JSON and nothing else, every part checked before it is used; statistics are
computed again from the raw samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compress.errors import MeasurementError, RecordError
from compress.io.files import named, read_json
from compress.measure.score import count_of, largest_of
from compress.measure.session import SessionResult, read_session

__all__ = ["Result", "ResultRow", "load_result"]

_MOST_BYTES = 256 << 20  # a strict session of thirty small models
_MOST_VALUES = 16_000_000
_MOST_WORDS = 5000
_LARGEST_SCORE = 1e30  # squares of many of them can be summed
_MOST_FACTS = 100_000

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=200)]


class ResultRow(BaseModel):
    """Which row of the run one model of the session is; ``sha256`` is that of its artifact."""

    model_config = ConfigDict(frozen=True)

    index: Annotated[int, Field(strict=True, ge=0)]
    stage: Text
    sha256: Sha256


class _SampleCounts(BaseModel):
    model_config = ConfigDict(frozen=True)

    count: Annotated[int, Field(strict=True, ge=1)]
    of: Annotated[int, Field(strict=True, ge=1)]


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True)

    schema_: Literal[1] = Field(alias="schema")
    kind: Literal["compresskit-result"]
    bundle_sha256: Sha256
    record: Text
    target: Text
    mode: Text
    rows: Annotated[tuple[ResultRow, ...], Field(min_length=1, max_length=1000)]
    samples: _SampleCounts
    lines: list[dict[str, Any]]


@dataclass(frozen=True)
class Result:
    """A device's result: ``session`` has one timing and one set of scores for each of ``rows``."""

    path: Path
    content: _Content
    session: SessionResult

    def text(self) -> str:
        """The lines of its session, as ``session.jsonl`` has them.

        Raises:
            RecordError: they cannot be written.
        """
        return _text(self.path, self.content.lines)

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """The rows measured, in the session's order; the first is the baseline."""
        return self.content.rows


def load_result(path: Path, *, most_bytes: int = _MOST_BYTES) -> Result:
    """Read a result, of at most ``most_bytes``.

    Raises:
        RecordError: no such file, too large, not JSON, or not the result of a whole session.
    """
    content = _content(path, most_bytes)
    names = [f"row {row.index} ({row.stage})" for row in content.rows]
    try:
        session = read_session(content.lines, names)
    except MeasurementError as error:
        raise RecordError(f"{path}: {error}") from error
    measured = [model["sha256"] for model in session.session["models"]]
    if measured != [row.sha256 for row in content.rows]:
        raise RecordError(f"{path}: it names other models than it measured; take it again.")
    if not session.timings:
        raise RecordError(f"{path}: nothing in it was timed.")
    _check_numbers(path, content, session)
    return Result(path, content, session)


def _check_numbers(path: Path, content: _Content, session: SessionResult) -> None:
    for outputs in session.outputs:
        if outputs.scores is not None and count_of(outputs.scores) != content.samples.count:
            raise RecordError(
                f"{path}: it has {count_of(outputs.scores)} scores for {content.samples.count} "
                "samples."
            )
        if outputs.scores is not None and largest_of(outputs.scores) > _LARGEST_SCORE:
            raise RecordError(f"{path}: a score in it is beyond {_LARGEST_SCORE:g}.")
    for line in content.lines:
        error = line.get("error", "")
        if not isinstance(error, str) or len(error) > _MOST_WORDS:
            raise RecordError(f"{path}: an error in it is no sentence.")
    if len(_text(path, [session.environment])) > _MOST_FACTS:
        raise RecordError(f"{path}: it says more of its device than a device can be.")


def _text(path: Path, facts: Sequence[Mapping[str, Any]]) -> str:
    try:
        return "".join(json.dumps(each) + "\n" for each in facts)
    except RecursionError as error:  # which is less deep when it is read
        raise RecordError(f"{named(path)}: it is nested too deeply.") from error


def _content(path: Path, most_bytes: int) -> _Content:
    given = read_json(path, most_bytes, RecordError, most_values=_MOST_VALUES)
    try:
        return _Content.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RecordError(
            f"{named(path)}: not a result of schema 1: {named(where)}: {named(first['msg'])}."
        ) from error
