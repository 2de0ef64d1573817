"""Every error this package raises on purpose.

The tree::

    CompressError
    ├── RecipeError            a recipe, a setting or a command line that is wrong
    │   ├── SelectorError      a pattern that matches no layer
    │   ├── SettingsError      a stage, a target or another block that was made in Python
    │   └── CodeReferenceError ``module:name`` that was not allowed or does not exist
    ├── DataError              data that is missing, damaged or of the wrong shape
    ├── CheckpointError        weights or a saved candidate that cannot be loaded
    ├── StageError             a stage that failed
    │   ├── NoEffect           a stage that changed nothing
    │   │   └── AlreadySo      since all that it was asked for is so already
    │   ├── ContractViolation  a stage that broke a clause of the stage contract
    │   ├── InvariantBroken    an invariant of an earlier stage that a later one broke
    │   └── TrainingDiverged   a loss that is no longer finite
    ├── LoweringError          a model that cannot be exported or encoded
    │   └── ParityError        an artifact that does not compute what its module computes
    ├── MeasurementError       a target that could not load, run or time an artifact
    ├── RecordError            a run folder or record that cannot be read or belongs elsewhere
    ├── StorageError           the disk refused a write
    ├── ProcessError           of several processes that train together, another one failed
    └── MissingExtra           an optional dependency that is not installed

A message is one sentence (two at most): what was wrong, where, what was given, what would do.
``exit_code`` is what the command line returns: 2 for wrong input, 1 for work that failed.
"""

from __future__ import annotations

__all__ = [
    "AlreadySo",
    "CheckpointError",
    "CodeReferenceError",
    "CompressError",
    "ContractViolation",
    "DataError",
    "InvariantBroken",
    "LoweringError",
    "MeasurementError",
    "MissingExtra",
    "NoEffect",
    "ParityError",
    "ProcessError",
    "RecipeError",
    "RecordError",
    "SelectorError",
    "SettingsError",
    "StageError",
    "StorageError",
    "TrainingDiverged",
    "in_words",
]

_MOST_CHARACTERS = 400


class CompressError(Exception):
    """Root of every deliberate error.

    ``index`` and ``label`` say in which stage of a recipe it happened (-1 and ``input`` for the
    model that came in). The loop fills them in; whoever raises need not know.
    """

    exit_code = 1
    index: int | None = None
    label: str | None = None


class RecipeError(CompressError):
    """A recipe, a setting or a command line that is wrong."""

    exit_code = 2


class SelectorError(RecipeError):
    """A layer pattern that matches nothing."""


class SettingsError(RecipeError, ValueError):
    """A stage, a loss, a target or another block of a recipe that was made in Python, and is wrong.

    A ``ValueError`` as well: where pydantic validates what made it, it is told with the place.
    ``problems`` has all of them, each with its place in the block.
    """

    problems: tuple[tuple[tuple[int | str, ...], str], ...] = ()


class CodeReferenceError(RecipeError):
    """A ``module:name`` reference that was not allowed, or leads nowhere."""


class DataError(CompressError):
    """Data that is missing, damaged or of the wrong shape."""


class CheckpointError(CompressError):
    """Weights or a saved candidate that cannot be loaded."""


class StageError(CompressError):
    """A stage that failed."""


class NoEffect(StageError):
    """A stage that changed nothing it declares to change."""


class AlreadySo(NoEffect):
    """A stage that changed nothing since all that it was asked for is so already.

    A run continues with the model as it is, and the row has this sentence among its notes.
    """


class ContractViolation(StageError):
    """A stage that broke a clause of the stage contract."""


class InvariantBroken(StageError):
    """An invariant of an earlier stage that a later one did not keep."""


class TrainingDiverged(StageError):
    """A training loss that is no longer finite."""


class LoweringError(CompressError):
    """A model that cannot be exported or encoded."""


class ParityError(LoweringError):
    """An artifact that does not compute what its module computes."""


class MeasurementError(CompressError):
    """A target that could not load, run or time an artifact."""


class RecordError(CompressError):
    """A run folder or a record that cannot be read, or that belongs to another recipe."""

    exit_code = 2


class StorageError(CompressError):
    """The disk refused a write; what was written before is intact."""


class ProcessError(CompressError):
    """Of several processes that train together, another one failed or is gone."""


class MissingExtra(CompressError):
    """An optional dependency that is not installed; the message names the extra."""


def in_words(error: BaseException) -> str:
    """An exception that somebody else's code raised: its kind, the line, and what it says.

    The line is the innermost that is not of an installed library: that which its author can mend.
    """
    import re
    import sysconfig
    import traceback

    installed = [sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*installed, "<"))
    ]
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    # Where pydantic's own pages explain it helps nobody who reads a sentence.
    said = re.sub(r"\s+For further information visit \S+", "", str(error))
    text = " ".join(said.split())[:_MOST_CHARACTERS].rstrip(".")
    return f"{type(error).__name__}{place}{': ' if text else ''}{text}"
